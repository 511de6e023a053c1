//! What a store keeps, and what it lets go.

use std::time::Duration;

use super::*;

/// A store of its own.
struct Rig {
    folder: tempfile::TempDir,
    store: Store,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        Self { folder, store }
    }

    fn layer(&self, content: &str) -> Digest {
        let digest = Digest::of(content.as_bytes());
        if !self.store.has_layer(&digest) {
            self.store.add_layer(&digest, |into| fill(into, content)).unwrap();
        }
        digest
    }

    fn image(&self, name: &str, layers: &[&str]) -> Record {
        let layers = layers.iter().map(|content| self.layer(content)).collect();
        let id = Digest::of(name.as_bytes());
        let record = self.store.describe(id, layers, Settings::default(), Timestamp::UNIX_EPOCH).unwrap();
        self.store.put(&record, &[parse(name)]).unwrap()
    }

    /// As if a container of it had been started then.
    fn used(&self, record: &Record, seconds: u64) {
        let file = File::options().append(true).open(self.store.config_path(&record.id)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    fn shrink(&self, bytes: u64, in_use: &[&Record]) -> (Vec<Vec<String>>, u64) {
        let in_use: InUse = in_use.iter().map(|record| record.id.clone()).collect();
        let (removed, freed) = self.store.shrink(bytes, SystemTime::now(), || Ok(in_use)).unwrap();
        (removed.into_iter().map(|one| one.names).collect(), freed)
    }

    fn files(&self, kind: &str) -> usize {
        fs::read_dir(self.folder.path().join(kind)).unwrap().count()
    }
}

fn fill(into: &Path, content: &str) -> Result<Unpacked, Error> {
    fs::write(into.join("content"), content).unwrap();
    let digest = Digest::of(content.as_bytes());
    Ok(Unpacked { diff_id: digest.clone(), bytes: content.len() as u64, digest })
}

fn parse(name: &str) -> Name {
    Name::parse(name).unwrap()
}

fn nobody() -> Result<InUse, Error> {
    Ok(InUse::new())
}

#[test]
fn images_share_layers_and_stack_them_by_short_names() {
    let rig = Rig::new();
    let one = rig.image("one", &["base", "one"]);
    rig.image("two", &["base", "two", "base"]);
    assert_eq!(rig.files("layers"), 3);
    let stack = rig.store.stack(&one).unwrap();
    let texts: Vec<_> =
        stack.iter().map(|layer| fs::read_to_string(layer.join("content")).unwrap()).collect();
    assert_eq!(texts, ["one", "base"], "topmost first");
    assert!(stack.iter().all(|layer| layer.file_name().unwrap().len() == SHORT_DIGITS));
    let two = rig.store.find(&parse("two")).unwrap().unwrap();
    assert_eq!(rig.store.stack(&two).unwrap().len(), 2, "overlayfs takes no folder twice");
    assert_eq!((one.bytes, two.bytes), (7, 11));
}

#[test]
fn a_name_moves_to_another_image_and_the_first_stays_until_it_is_swept() {
    let rig = Rig::new();
    let old = rig.image("app:1", &["old"]);
    let layers = vec![rig.layer("new")];
    let id = Digest::of(b"new image");
    let new = rig.store.describe(id, layers, Settings::default(), Timestamp::UNIX_EPOCH).unwrap();
    let names = [parse("app:1"), parse("app:1").at(&Digest::of(b"manifest"))];
    let new = rig.store.put(&new, &names).unwrap();
    assert_eq!(new.digests, [names[1].to_string()]);
    assert_eq!(rig.store.find(&parse("app:1")).unwrap(), Some(new.clone()));
    assert_eq!(rig.store.find(&names[1]).unwrap(), Some(new));
    let nameless = rig.store.list().unwrap().into_iter().find(|one| one.record.id == old.id).unwrap();
    assert!(nameless.names.is_empty());
    assert_eq!(rig.store.meant(&old.id.to_string()).unwrap(), nameless);
}

#[test]
fn those_used_longest_ago_go_first_and_those_in_use_never() {
    let rig = Rig::new();
    let [old, middle, new] = ["old:1", "middle:1", "new:1"].map(|name| rig.image(name, &["base", name]));
    for (record, seconds) in [(&middle, 20), (&new, 30), (&old, 10)] {
        rig.used(record, seconds);
    }
    let name = |name: &str| vec![format!("docker.io/library/{name}")];
    assert_eq!(rig.shrink(1, &[&old]), (vec![name("middle:1")], 8), "the base is shared");
    assert_eq!(rig.shrink(1, &[&old, &new]), (vec![], 0));
    assert_eq!(rig.shrink(u64::MAX, &[]), (vec![name("old:1"), name("new:1")], 5 + 5 + 4));
    for kind in ["layers", "l", "configs", "names", "pins", "locks", "trash"] {
        assert_eq!(rig.files(kind), 0, "{kind}");
    }
}

#[test]
fn recently_used_images_stay() {
    let rig = Rig::new();
    let record = rig.image("app:1", &["a"]);
    rig.used(&record, 1000);
    let before = SystemTime::UNIX_EPOCH + Duration::from_secs(999);
    assert!(rig.store.shrink(1, before, nobody).unwrap().0.is_empty());
    assert_eq!(rig.store.shrink(1, before + Duration::from_secs(1), nobody).unwrap().0.len(), 1);
}

#[test]
fn what_is_pinned_stays_until_the_pin_is_gone() {
    let rig = Rig::new();
    rig.image("app:1", &["a"]);
    let (_, pin) = rig.store.take(&parse("app:1")).unwrap().unwrap();
    let coming = rig.store.pin(&[Digest::of(b"coming")]).unwrap();
    rig.layer("coming");
    assert_eq!(rig.shrink(u64::MAX, &[]), (vec![], 0));
    let error = rig.store.remove("app:1", nobody).unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    drop(coming);
    assert_eq!(rig.shrink(u64::MAX, &[]), (vec![], 6), "a layer that no image has");
    drop(pin);
    assert_eq!(rig.store.remove("app:1", nobody).unwrap(), 1);
    assert!(rig.store.take(&parse("app:1")).unwrap().is_none());
}

#[test]
fn removing_one_of_several_names_takes_that_name_alone() {
    let rig = Rig::new();
    let record = rig.image("app:1", &["a"]);
    rig.store.put(&record, &[parse("app:2"), parse("app").at(&Digest::of(b"m"))]).unwrap();
    assert_eq!(rig.store.remove("app:1", || panic!("nobody has to be asked")).unwrap(), 0);
    let used = || Ok([record.id.clone()].into());
    assert!(rig.store.remove("app:2", used).unwrap_err().to_string().contains("in use"));
    assert_eq!(rig.store.remove("app:2", nobody).unwrap(), 1, "the digest is no name that keeps it");
    assert!(rig.store.list().unwrap().is_empty());
    assert!(rig.store.remove("app:2", nobody).unwrap_err().to_string().contains("no image \"app:2\""));
}

#[test]
fn an_image_is_meant_by_the_beginning_of_its_id() {
    let rig = Rig::new();
    let record = rig.image("app:1", &["a"]);
    assert_eq!(rig.store.meant(&record.id.hex()[..12]).unwrap().record, record);
    assert!(rig.store.meant("").is_err());
    assert!(rig.store.meant(&record.id.hex()[..3]).is_err(), "too short to be meant");
}

#[test]
fn a_layer_that_is_another_leaves_nothing() {
    let rig = Rig::new();
    let promised = Digest::of(b"promised");
    let error = rig.store.add_layer(&promised, |into| fill(into, "other")).unwrap_err().to_string();
    assert!(error.contains(&promised.to_string()) && error.contains("unpacked"), "{error}");
    let error = rig.store.add_layer(&promised, |_| Err(Error::Image("no".to_owned()))).unwrap_err();
    assert_eq!(error.to_string(), "no");
    for kind in ["layers", "l", "ingest", "trash"] {
        assert_eq!(rig.files(kind), 0, "{kind}");
    }
}

#[test]
fn what_a_crash_left_is_cleared_and_what_somebody_is_at_is_not() {
    let rig = Rig::new();
    let left = |name: &str| fs::create_dir_all(rig.folder.path().join(name).join("fs")).unwrap();
    let (dead, alive) = (Digest::of(b"dead"), Digest::of(b"alive"));
    for digest in [&dead, &alive] {
        left(&format!("ingest/{}", digest.hex()));
    }
    left("trash/old");
    let link = |digest: &Digest, short: &str| {
        let path = rig.folder.path().join("l").join(short);
        std::os::unix::fs::symlink(format!("../layers/{}/fs", digest.hex()), path).unwrap();
    };
    link(&dead, "dead");
    link(&alive, "alive");
    fs::write(rig.folder.path().join("pins/old"), format!("{dead}\n")).unwrap();
    let image = rig.image("app:1", &["a"]);
    let at_work = Lock::attempt(&rig.store.lock_path(alive.hex())).unwrap().unwrap();
    let again = Store::open(rig.folder.path()).unwrap();
    assert_eq!((rig.files("ingest"), rig.files("trash"), rig.files("l")), (1, 0, 2));
    assert!(again.pinned().unwrap().is_empty());
    assert_eq!(rig.files("pins"), 0);
    assert_eq!(again.find(&parse("app:1")).unwrap(), Some(image));
    drop(at_work);
    // Whoever comes next starts over.
    again.add_layer(&alive, |into| fill(into, "alive")).unwrap();
    assert!(again.has_layer(&alive));
}

#[test]
fn an_image_that_lost_a_layer_is_not_here() {
    let rig = Rig::new();
    let record = rig.image("app:1", &["a", "b"]);
    fs::remove_dir_all(rig.folder.path().join("layers").join(record.layers[0].hex())).unwrap();
    assert!(rig.store.take(&parse("app:1")).unwrap().is_none());
    let error = rig.store.put(&record, &[]).unwrap_err().to_string();
    assert!(error.contains("is not on this machine"), "{error}");
}
