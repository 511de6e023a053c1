//! The pods of the story: most write numbered lines for ever, eight of them hold a GPU, some end by themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use claw_e2e::{Cluster, binary, cluster, dice::Dice, http::Http, wait};
use http::Method;
use serde_json::{Value, json};

use crate::data_of;

pub const PATH: &str = "/api/v1/namespaces/default/pods";

/// How many run at all times.
const LASTING: usize = 50;

/// One each.
pub const GPUS: usize = 8;

/// What one that ends by itself writes before.
pub const MORTAL_LINES: u64 = 40;

/// What the variable is called that names a container's GPUs.
pub const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";

/// Which pods there should be.
#[derive(Debug, Default)]
pub struct Pods {
    /// By name: whether it holds a GPU.
    lasting: BTreeMap<String, bool>,
    /// Those that end by themselves.
    mortal: BTreeSet<String>,
    /// By uid: with which code they do.
    codes: BTreeMap<String, i64>,
    /// Uids, by name.
    uids: BTreeMap<String, String>,
    /// Uids of those that were deleted.
    going: BTreeSet<String>,
    made: usize,
}

impl Pods {
    pub async fn create_all(&mut self, http: &Http) {
        for number in 0..LASTING {
            self.create_lasting(http, number < GPUS).await;
        }
    }

    async fn create_lasting(&mut self, http: &Http, gpu: bool) {
        let name = self.name(if gpu { "holder" } else { "talker" });
        let args = json!(["lines", "--count", "1000000000", "--interval-ms", "200", "--text", name]);
        let uid = create(http, &pod(&name, &args, gpu, "Always")).await;
        self.uids.insert(name.clone(), uid);
        self.lasting.insert(name, gpu);
    }

    /// One more that ends by itself, with a code of its own.
    pub async fn start_mortal(&mut self, http: &Http, dice: &Dice) {
        let name = self.name("mortal");
        let code = dice.below(120);
        let script =
            format!("/toolbox lines --count {MORTAL_LINES} --interval-ms 25 --text {name}; exit {code}");
        let uid = create(http, &pod(&name, &json!(["sh", "-c", script]), false, "Never")).await;
        self.codes.insert(uid, i64::try_from(code).expect("it is small"));
        self.mortal.insert(name);
    }

    /// One goes, another comes.
    pub async fn replace_one(&mut self, http: &Http, dice: &Dice) {
        let names: Vec<String> = self.lasting.keys().cloned().collect();
        let name = dice.pick(&names);
        let gpu = self.lasting.remove(name).expect("it is there");
        self.going.insert(self.uids[name].clone());
        delete(http, name).await;
        self.create_lasting(http, gpu).await;
    }

    fn name(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}-{}", self.made)
    }

    /// Names of those that are to run.
    pub fn lasting(&self) -> impl Iterator<Item = &str> {
        self.lasting.keys().map(String::as_str)
    }

    /// Names of those that are to end.
    pub fn mortal(&self) -> impl Iterator<Item = &str> {
        self.mortal.iter().map(String::as_str)
    }

    pub fn len(&self) -> usize {
        self.lasting.len() + self.mortal.len()
    }

    /// With which code it ends by itself, if it does.
    pub fn code_of(&self, uid: &str) -> Option<i64> {
        self.codes.get(uid).copied()
    }

    pub fn is_going(&self, uid: &str) -> bool {
        self.going.contains(uid)
    }
}

/// Writes `NAME 1`, `NAME 2`, and so on.
fn pod(name: &str, args: &Value, gpu: bool, restart: &str) -> Value {
    let limits = if gpu { json!({"nvidia.com/gpu": "1"}) } else { json!({}) };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": "clawbernetes.io/toolbox:1",
                "args": args,
                "resources": {"limits": limits},
            }],
        },
    })
}

/// Creates it once, over whatever connections break; gives its uid.
async fn create(http: &Http, pod: &Value) -> String {
    let created = wait::until_async("a pod is created", wait::SOON, || async {
        let answer = http.ask(Method::POST, PATH, &[], pod.to_string()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.code {
            201 => Ok(answer.json()),
            // An earlier try got through, and its answer did not.
            409 => {
                let path = format!("{PATH}/{}", name_of(pod).unwrap_or_default());
                http.get(&path).await.map_err(|error| error.to_string())
            }
            _ => Err(answer.text()),
        }
    })
    .await;
    uid_of(&created)
}

async fn delete(http: &Http, name: &str) {
    let path = format!("{PATH}/{name}");
    wait::until_async("a pod is deleted", wait::SOON, || async {
        let answer = http.ask(Method::DELETE, &path, &[], "").await.map_err(|error| error.to_string())?;
        wait::check(matches!(answer.code, 200 | 202 | 404), answer.text())
    })
    .await;
}

pub fn name_of(pod: &Value) -> Option<&str> {
    pod["metadata"]["name"].as_str()
}

pub fn uid_of(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

/// The recorded machine has one GPU; this one has eight of the kind, with names that no other story uses.
pub fn eight_gpus(cluster: &Cluster) -> PathBuf {
    let path = binary::workspace().join("nodeagent/tests/data/h100.json");
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut recording: Value = serde_json::from_slice(&text).expect("the recording parses");
    let first = recording["gpus"][0].clone();
    let gpus = (0..GPUS).map(|number| {
        let mut gpu = first.clone();
        gpu["index"] = number.into();
        gpu["minor"] = number.into();
        gpu["uuid"] =
            format!("GPU-c4a05000-0000-0000-{:04}-{number:012}", std::process::id() % 10_000).into();
        gpu["pci"]["bus_id"] = format!("0000:{:02}:00.0", number + 1).into();
        gpu
    });
    recording["gpus"] = gpus.collect();
    cluster::write(&data_of(cluster, "gpus.json"), &recording.to_string())
}
