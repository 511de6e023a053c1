//! Registries that stall, lie, break off and send elsewhere; and those that want to know who asks.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use claw_e2e::{
    need::{self, Need},
    wait,
};
use claw_nodeagent::{
    Error, ImagesConfig,
    image::{Image, Images, Keyring, Limits, Name},
};
use serde_json::json;
use tokio::sync::Barrier;

use super::{
    made::{self, Layer, Made, noise},
    registry::{Answer, Registry, honest},
};

/// Long enough for a busy machine to answer itself, and short enough to wait for a few times.
const SILENCE: Duration = Duration::from_millis(1500);

/// A store of its own that may speak plain HTTP to some registries.
struct Rig {
    folder: tempfile::TempDir,
    images: Arc<Images>,
}

impl Rig {
    fn new(hosts: &[&str]) -> Self {
        Self::with(hosts, |_| {})
    }

    fn with(hosts: &[&str], change: impl FnOnce(&mut ImagesConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let insecure: BTreeSet<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut config =
            ImagesConfig { insecure, silence_max: Duration::from_secs(30), ..Default::default() };
        change(&mut config);
        let images = Images::open(folder.path(), config).unwrap();
        Self { folder, images }
    }

    async fn pull(&self, name: &str) -> Result<Image, Error> {
        self.pull_as(name, &Keyring::default()).await
    }

    async fn pull_as(&self, name: &str, keyring: &Keyring) -> Result<Image, Error> {
        self.images.pull(&Name::parse(name).unwrap(), keyring, &|_| {}).await
    }

    async fn refusal(&self, name: &str) -> String {
        self.pull(name).await.unwrap_err().to_string()
    }

    /// Layers that are whole.
    fn layers(&self) -> usize {
        fs::read_dir(self.folder.path().join("layers")).unwrap().count()
    }

    /// Nothing half done is left, once those who were at it have noticed that nobody wants it any more.
    async fn is_tidied(&self) {
        wait::until_async("nothing half done is left", wait::SOON, || async {
            let kinds = ["ingest", "trash", "locks", "pins"].map(|kind| self.folder.path().join(kind));
            let left: Vec<_> = kinds
                .iter()
                .flat_map(|kind| fs::read_dir(kind).unwrap())
                .map(|one| one.unwrap().path())
                .collect();
            wait::check(left.is_empty(), format!("{left:?}"))
        })
        .await;
    }
}

/// Two layers: a small one, and one of 3 MiB that does not compress.
fn image() -> Made {
    let large = Layer::new().file("large", &noise(3 << 20, 7)).done();
    Made::new(json!({"Cmd": ["x"]}), vec![Layer::new().file("small", b"small").done(), large])
}

fn large(image: &Made) -> &[u8] {
    &image.blobs[&image.layers[1]]
}

fn text(image: &Image, path: &str) -> Vec<u8> {
    let found = image.layers.iter().map(|layer| layer.join(path)).find(|path| path.exists());
    fs::read(found.unwrap_or_else(|| panic!("{path} is in no layer"))).unwrap()
}

/// Unpacking gives files to their owners.
fn can_run(test: &str) -> bool {
    need::all(test, &[Need::Root])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_once_and_its_layers_are_shared() {
    if !can_run("an_image_comes_once_and_its_layers_are_shared") {
        return;
    }
    let made = image();
    let registry = Registry::with(made.clone(), |_| None);
    let rig = Rig::new(&[&registry.host]);
    let pulled = rig.pull(&registry.name()).await.unwrap();
    assert_eq!(pulled.id, format!("{}/app@{}", registry.host, made.digest()));
    assert_eq!(pulled.settings.cmd, Some(vec!["x".to_owned()]));
    assert_eq!(text(&pulled, "large"), noise(3 << 20, 7));
    assert_eq!(pulled.layers.len(), 2);

    // The manifest is looked at again, and nothing else.
    rig.pull(&registry.name()).await.unwrap();
    assert_eq!((registry.count("/manifests/"), registry.count("/blobs/")), (2, 3));
    let by_digest = format!("{}/app@{}", registry.host, made.digest());
    let again = rig.images.present(&Name::parse(&by_digest).unwrap()).await.unwrap();
    assert_eq!(again.unwrap().layers, pulled.layers);
    drop(pulled);
    rig.is_tidied().await;

    // Another image with the same large layer.
    let other = Made::new(json!({}), vec![made.archives[1].clone()]);
    let second = Registry::with(other, |_| None);
    let rig_again = Images::open(
        rig.folder.path(),
        ImagesConfig { insecure: [second.host.clone()].into(), ..Default::default() },
    )
    .unwrap();
    let name = Name::parse(&second.name()).unwrap();
    rig_again.pull(&name, &Keyring::default(), &|_| {}).await.unwrap();
    assert_eq!((second.count("/blobs/"), rig.layers()), (1, 2), "its configuration alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_pulls_what_is_being_pulled_waits_for_it() {
    if !can_run("who_pulls_what_is_being_pulled_waits_for_it") {
        return;
    }
    let registry = Registry::with(image(), |_| None);
    let rig = Rig::new(&[&registry.host]);
    // As if they were two processes, of which one is the command line.
    let other = Images::open(rig.folder.path(), rig.images.config().clone()).unwrap();
    let (start, name) = (Arc::new(Barrier::new(8)), Name::parse(&registry.name()).unwrap());
    let pulls = (0..8).map(|number| {
        let images = if number % 2 == 0 { Arc::clone(&rig.images) } else { Arc::clone(&other) };
        let (start, name) = (Arc::clone(&start), name.clone());
        tokio::spawn(async move {
            start.wait().await;
            images.pull(&name, &Keyring::default(), &|_| {}).await.map(|image| image.layers)
        })
    });
    let pulled = futures::future::join_all(pulls).await;
    let layers: BTreeSet<_> = pulled.into_iter().map(|layers| layers.unwrap().unwrap()).collect();
    assert_eq!(layers.len(), 1);
    assert_eq!(registry.count("/blobs/"), 3, "each content once");
    rig.is_tidied().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_goes_on_where_it_was() {
    if !can_run("a_download_that_breaks_goes_on_where_it_was") {
        return;
    }
    let made = image();
    let (layer, whole) = (made.layers[1].clone(), large(&made).to_vec());
    let tries = AtomicUsize::new(0);
    let registry = Registry::with(made, move |asked| {
        let is_first = asked.path.contains(&layer) && tries.fetch_add(1, Ordering::SeqCst) == 0;
        is_first.then(|| Answer::Half(whole[..whole.len() / 2].to_vec()))
    });
    let rig = Rig::new(&[&registry.host]);
    let pulled = rig.pull(&registry.name()).await.unwrap();
    assert_eq!(text(&pulled, "large"), noise(3 << 20, 7));
    let ranges: Vec<_> =
        registry.asked().iter().filter_map(|asked| asked.headers.get("range").cloned()).collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    let from: usize = ranges[0].trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!(from > 0, "some of it had come");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_knows_no_parts_starts_over_and_nothing_comes_twice() {
    if !can_run("a_registry_that_knows_no_parts_starts_over_and_nothing_comes_twice") {
        return;
    }
    let made = image();
    let (layer, whole) = (made.layers[1].clone(), large(&made).to_vec());
    let tries = AtomicUsize::new(0);
    let registry = Registry::with(made, move |asked| {
        let is_layer = asked.path.contains(&layer);
        is_layer.then(|| match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::Half(whole[..whole.len() / 3].to_vec()),
            _ => Answer::ok(whole.clone()),
        })
    });
    let rig = Rig::new(&[&registry.host]);
    let pulled = rig.pull(&registry.name()).await.unwrap();
    assert_eq!(text(&pulled, "large"), noise(3 << 20, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_layer_again_and_again_is_given_up_and_what_came_whole_stays() {
    if !can_run("half_a_layer_again_and_again_is_given_up_and_what_came_whole_stays") {
        return;
    }
    let made = image();
    let (layer, size) = (made.layers[1].clone(), large(&made).len());
    let is_broken = Arc::new(Mutex::new(true));
    let broken = Arc::clone(&is_broken);
    let layers = Arc::new(OnceLock::<PathBuf>::new());
    let known = Arc::clone(&layers);
    let registry = Registry::with(made, move |asked| {
        let breaks = asked.path.contains(&layer) && *broken.lock().unwrap();
        // Not before the small one is there: what comes together ends together.
        while breaks && known.get().is_none_or(|layers| fs::read_dir(layers).unwrap().next().is_none()) {
            std::thread::sleep(Duration::from_millis(10));
        }
        breaks.then(|| Answer::Half(Vec::new()))
    });
    let rig = Rig::new(&[&registry.host]);
    layers.set(rig.folder.path().join("layers")).unwrap();
    let error = rig.refusal(&registry.name()).await;
    assert!(error.contains(&format!("0 of {size} bytes came")), "{error}");
    rig.is_tidied().await;
    assert_eq!(rig.layers(), 1, "the small one");
    *is_broken.lock().unwrap() = false;
    rig.pull(&registry.name()).await.unwrap();
    let small = registry.asked().iter().filter(|asked| asked.path.contains("/blobs/")).count();
    assert!(small >= 3);
    assert_eq!(rig.layers(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_says_nothing_more_is_given_up() {
    if !can_run("a_registry_that_says_nothing_more_is_given_up") {
        return;
    }
    for part in ["/manifests/", "/blobs/"] {
        let made = image();
        let registry = Registry::with(made, move |asked| {
            asked.path.contains(part).then(|| Answer::Stall(b"{".to_vec()))
        });
        let rig = Rig::with(&[&registry.host], |config| config.silence_max = SILENCE);
        let error = rig.refusal(&registry.name()).await;
        assert!(error.contains("no progress in 1.5 s"), "{part}: {error}");
        rig.is_tidied().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_in_a_layer_is_survived_if_the_registry_comes_to() {
    if !can_run("a_stall_in_a_layer_is_survived_if_the_registry_comes_to") {
        return;
    }
    let made = image();
    let (layer, whole) = (made.layers[1].clone(), large(&made).to_vec());
    let tries = AtomicUsize::new(0);
    let registry = Registry::with(made, move |asked| {
        let stalls = asked.path.contains(&layer) && tries.fetch_add(1, Ordering::SeqCst) == 0;
        stalls.then(|| Answer::Stall(whole[..whole.len() / 2].to_vec()))
    });
    // This machine's own silence must not be taken for the registry's.
    let rig = Rig::with(&[&registry.host], |config| config.silence_max = 10 * SILENCE);
    let pulled = rig.pull(&registry.name()).await.unwrap();
    assert_eq!(text(&pulled, "large"), noise(3 << 20, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_digests_are_found() {
    if !can_run("lies_about_digests_are_found") {
        return;
    }
    let made = image();
    let other = gzip_of_another();
    let mut flipped = large(&made).to_vec();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let (layer, config) = (made.layers[1].clone(), made.id());
    let spaced = [&made.manifest[..], b" "].concat();
    let cases: [(&str, String, Answer, String); 5] = [
        ("another layer", layer.clone(), Answer::ok(resized(&other, large(&made).len())), layer.clone()),
        ("a bit of a layer", layer.clone(), Answer::ok(flipped), layer.clone()),
        (
            "a longer layer",
            layer.clone(),
            Answer::ok([large(&made), b"x"].concat()),
            "more came than".to_owned(),
        ),
        ("another configuration", config.clone(), Answer::ok(vec![b' '; made.config.len()]), config.clone()),
        (
            "a manifest with another's digest",
            "/manifests/".to_owned(),
            Answer::ok(spaced).with("docker-content-digest", &made.digest()),
            made.digest(),
        ),
    ];
    for (what, part, answer, complaint) in cases {
        let answer = Mutex::new(Some(answer));
        let registry = Registry::with(made.clone(), move |asked| {
            if asked.path.contains(&part) { answer.lock().unwrap().take() } else { None }
        });
        let rig = Rig::new(&[&registry.host]);
        let error = rig.refusal(&registry.name()).await;
        assert!(error.contains(&complaint), "{what}: {error}");
        rig.is_tidied().await;
        // Nothing of it is kept: the truth is taken afterwards.
        rig.pull(&registry.name()).await.unwrap();
    }
}

fn gzip_of_another() -> Vec<u8> {
    made::gzip(&Layer::new().file("large", b"mine").done())
}

fn resized(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(length, 0);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_configuration_lies_about_its_layers_is_refused() {
    if !can_run("an_image_whose_configuration_lies_about_its_layers_is_refused") {
        return;
    }
    let mut made = image();
    let lie = String::from_utf8(made.config.clone()).unwrap();
    let lie = lie.replace(&made::digest(&made.archives[0]), &made::digest(b"something else")).into_bytes();
    let old = made.id();
    let manifest = String::from_utf8(made.manifest.clone()).unwrap().replace(&old, &made::digest(&lie));
    made.manifest = manifest.into_bytes();
    made.blobs.insert(made::digest(&lie), lie);
    let registry = Registry::with(made, |_| None);
    let rig = Rig::new(&[&registry.host]);
    let error = rig.refusal(&registry.name()).await;
    assert!(error.contains("unpacked, and is"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_do_harm_are_refused_whoever_sends_them() {
    if !can_run("layers_that_do_harm_are_refused_whoever_sends_them") {
        return;
    }
    let through = Layer::new().link("out", "/").file("out/victim", b"mine").done();
    for (archive, complaint) in [
        (Layer::new().device("dev/sda").done(), "it is a device"),
        (through, "leads out of the image"),
        (Layer::new().file("zeros", &vec![0; 80 << 20]).done(), "times its size"),
    ] {
        let registry = Registry::with(Made::new(json!({}), vec![archive]), |_| None);
        let rig = Rig::with(&[&registry.host], |config| {
            config.limits = Limits { ratio_max: 100, ..Limits::default() };
        });
        let error = rig.refusal(&registry.name()).await;
        assert!(error.contains(complaint), "{error}");
        rig.is_tidied().await;
    }
    assert!(!Path::new("/victim").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_without_end_are_not_read_to_it() {
    let registry = Registry::start(|_| Answer::ok(vec![b' '; 9 << 20]));
    let rig = Rig::new(&[&registry.host]);
    let error = rig.refusal(&registry.name()).await;
    assert!(error.contains("longer than 4194304 bytes"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_followed_without_the_password_and_never_to_plain_http_that_nobody_named() {
    if !can_run("a_redirect_is_followed_without_the_password_and_never_to_plain_http_that_nobody_named") {
        return;
    }
    let made = image();
    let storage = Registry::with(made.clone(), |_| None);
    let target = storage.host.clone();
    let registry = Registry::with(made, move |asked| {
        let wanted = format!("Basic {}", base64("app:sesame"));
        if asked.headers.get("authorization") != Some(&wanted) {
            return Some(Answer::status(401).with("www-authenticate", "Basic realm=\"x\""));
        }
        let to = format!("http://{target}{}", asked.path);
        asked.path.contains("/blobs/").then(|| Answer::status(307).with("location", &to))
    });
    let keyring = keyring(&registry.host, "app", "sesame");
    let both = Rig::new(&[&registry.host, &storage.host]);
    both.pull_as(&registry.name(), &keyring).await.unwrap();
    assert_eq!(storage.count("/blobs/"), 3);
    assert!(storage.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));

    let one = Rig::new(&[&registry.host]);
    let error = one.pull_as(&registry.name(), &keyring).await.unwrap_err().to_string();
    assert!(error.contains(&format!("--insecure-registry {}", storage.host)), "{error}");
    assert_eq!(storage.count("/blobs/"), 3, "it was not asked");

    let circle = Registry::start(|asked| Answer::status(302).with("location", &asked.path));
    let error = Rig::new(&[&circle.host]).refusal(&circle.name()).await;
    assert!(error.contains("in circles"), "{error}");
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn keyring(host: &str, user: &str, password: &str) -> Keyring {
    let mut keyring = Keyring::default();
    let auths = json!({"auths": {host: {"auth": base64(&format!("{user}:{password}"))}}});
    keyring.add_docker_config(auths.to_string().as_bytes()).unwrap();
    keyring
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_asked_for_with_the_password_and_renewed_when_they_are_old() {
    if !can_run("tokens_are_asked_for_with_the_password_and_renewed_when_they_are_old") {
        return;
    }
    let made = image();
    let (tokens, host) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(String::new())));
    let (given, own) = (Arc::clone(&tokens), Arc::clone(&host));
    let registry = Registry::start(move |asked| {
        if asked.path.starts_with("/token?") {
            let basic = format!("Basic {}", base64("app:sesame"));
            let is_known = asked.headers.get("authorization") == Some(&basic);
            assert!(
                asked.path.contains("scope=repository%3Aapp%3Apull") && asked.path.contains("service=it")
            );
            // The first is good for the manifest alone.
            let number = given.fetch_add(1, Ordering::SeqCst);
            return if is_known {
                Answer::ok(format!("{{\"token\": \"t{number}\"}}"))
            } else {
                Answer::status(401)
            };
        }
        let last = format!("Bearer t{}", given.load(Ordering::SeqCst).wrapping_sub(1));
        let is_old = asked.path.contains("/blobs/") && last == "Bearer t0";
        if asked.headers.get("authorization") != Some(&last) || is_old {
            let challenge = format!("Bearer realm=\"http://{}/token\",service=\"it\"", own.lock().unwrap());
            return Answer::status(401).with("www-authenticate", &challenge);
        }
        honest(&made, asked)
    });
    host.lock().unwrap().clone_from(&registry.host);
    let rig = Rig::new(&[&registry.host]);
    let error = rig.refusal(&registry.name()).await;
    assert!(error.contains("401"), "{error}");
    let wrong = keyring(&registry.host, "app", "wrong");
    assert!(rig.pull_as(&registry.name(), &wrong).await.unwrap_err().to_string().contains("401"));
    tokens.store(0, Ordering::SeqCst);
    rig.pull_as(&registry.name(), &keyring(&registry.host, "app", "sesame")).await.unwrap();
    assert!(tokens.load(Ordering::SeqCst) >= 2, "a new one was asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_asked_first_and_its_registry_when_that_fails() {
    if !can_run("a_mirror_is_asked_first_and_its_registry_when_that_fails") {
        return;
    }
    let made = image();
    let mirror = Registry::with(made.clone(), |_| None);
    let empty = Registry::start(|_| Answer::status(404));
    let registry = Registry::with(made, |_| None);
    let hosts = [&*mirror.host, &*empty.host, &*registry.host];
    let mirrored = |by: &Registry| {
        let urls = vec![format!("http://{}", by.host)];
        let origin = registry.host.clone();
        move |config: &mut ImagesConfig| drop(config.mirrors.insert(origin, urls))
    };
    let rig = Rig::with(&hosts, mirrored(&mirror));
    let pulled = rig.pull(&registry.name()).await.unwrap();
    assert_eq!((mirror.count("/blobs/"), registry.count("/")), (3, 0));
    assert!(pulled.id.starts_with(&registry.host), "its name is not the mirror's: {}", pulled.id);

    let rig = Rig::with(&hosts, mirrored(&empty));
    rig.pull(&registry.name()).await.unwrap();
    assert_eq!((empty.count("/manifests/"), registry.count("/blobs/")), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_of_this_machine_is_taken_from_an_index() {
    if !can_run("the_image_of_this_machine_is_taken_from_an_index") {
        return;
    }
    let (made, foreign) = (image(), Made::new(json!({"Cmd": ["foreign"]}), Vec::new()));
    let index = made::index(&[(&foreign, "linux", "s390x"), (&made, "linux", made::architecture())]);
    let only_foreign = made::index(&[(&foreign, "linux", "s390x")]);
    let digest = made::digest(&index);
    let registry = Registry::with(made, move |asked| {
        let answer = |body: &Vec<u8>| Some(Answer::ok(body.clone()).with("content-type", made::INDEX));
        match asked.path.rsplit('/').next()? {
            "v1" => answer(&index),
            "foreign" => answer(&only_foreign),
            _ => None,
        }
    });
    let rig = Rig::new(&[&registry.host]);
    let pulled = rig.pull(&registry.name()).await.unwrap();
    assert_eq!(pulled.settings.cmd, Some(vec!["x".to_owned()]));
    assert_eq!(pulled.id, format!("{}/app@{digest}", registry.host), "what the tag stands for everywhere");
    let error = rig.refusal(&format!("{}/app:foreign", registry.host)).await;
    assert!(error.contains("there are: linux/s390x"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_not_spoken_to_this_machine_either_unless_it_was_named() {
    let registry = Registry::with(image(), |_| None);
    let error = Rig::new(&[]).refusal(&registry.name()).await;
    assert!(error.contains(&registry.host), "{error}");
    assert!(registry.asked().iter().all(|asked| !asked.path.contains("/v2/")), "{:?}", registry.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_while_layers_come() {
    if !can_run("progress_is_told_while_layers_come") {
        return;
    }
    let made = image();
    let (layer, whole) = (made.layers[1].clone(), large(&made).to_vec());
    let (told, tries) = (Arc::new(Mutex::new(Vec::new())), AtomicUsize::new(0));
    let all = Arc::clone(&told);
    // The second half comes when progress was told of the first.
    let registry = Registry::with(made, move |asked| {
        if !asked.path.contains(&layer) {
            return None;
        }
        if tries.fetch_add(1, Ordering::SeqCst) == 0 {
            return Some(Answer::Half(whole[..whole.len() / 2].to_vec()));
        }
        while !all.lock().unwrap().iter().any(|one: &claw_nodeagent::image::Progress| one.bytes > 0) {
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    });
    let rig = Rig::with(&[&registry.host], |config| config.progress_every = Duration::from_millis(20));
    let name = Name::parse(&registry.name()).unwrap();
    let tell = {
        let told = Arc::clone(&told);
        move |progress| told.lock().unwrap().push(progress)
    };
    rig.images.pull(&name, &Keyring::default(), &tell).await.unwrap();
    let told = told.lock().unwrap();
    let last = told.last().unwrap();
    assert!(last.bytes > 0 && last.bytes <= last.bytes_all && last.layers_all == 2, "{last:?}");
}
