//! The questions at the end: does everybody know what is, are pods where they should be, was every promise kept.

use std::collections::BTreeMap;

use claw_e2e::{capacity::Books, history::revision_of, runs::Runs};
use claw_schemas::api;
use serde_json::Value;

use super::{cluster::GPU, world::World};

/// What is not as it should be once nothing goes wrong any more. `lost` is a node that never came back.
pub fn unsettled(world: &World, lost: Option<&str>) -> Option<String> {
    uninformed(world).or_else(|| undeployed(world, lost)).or_else(|| uncalculated(world))
}

/// Who does not know what is.
fn uninformed(world: &World) -> Option<String> {
    let truth = world.disk.present("", "configmaps", "default");
    let there = truth.iter().map(|(place, object)| {
        let name = place.rsplit('/').next().unwrap_or_default();
        (name.to_owned(), revision_of(object).unwrap_or(0))
    });
    let there: BTreeMap<_, _> = there.collect();
    world.note(|notes| {
        for (name, told) in &notes.watched {
            let mut selected = truth.clone();
            selected.retain(|_, object| told.selects(object));
            let last = told.present();
            if last != Some(&selected) {
                return Some(format!("{name} is told of {last:?} where there is {selected:?}"));
            }
        }
        let lagging = notes.cached.iter().find(|(_, cached)| **cached != there);
        lagging.map(|(name, cached)| format!("{name} has cached {cached:?} where there is {there:?}"))
    })
}

/// Which deployment has not the pods it wants, on nodes that live.
fn undeployed(world: &World, lost: Option<&str>) -> Option<String> {
    let deployments = world.disk.present("apps", "deployments", "default");
    let pods = world.disk.present("", "pods", "default");
    deployments.iter().find_map(|(name, deployment)| {
        let (wanted, app) = (&deployment["spec"]["replicas"], &deployment["metadata"]["name"]);
        let template = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
        let works = |pod: &&Value| {
            pod["metadata"]["labels"]["app"] == *app
                && pod["metadata"]["deletionTimestamp"].is_null()
                && pod["spec"]["containers"][0]["image"] == *template
                && pod["status"]["phase"] == "Running"
                && pod["spec"]["nodeName"].as_str() != lost
        };
        let running = pods.values().filter(works).count() as u64;
        let status = &deployment["status"];
        let says = status["availableReplicas"].as_u64().unwrap_or(0);
        let observed = status["observedGeneration"] == deployment["metadata"]["generation"];
        let wanted = wanted.as_u64().unwrap_or(1);
        let right = running == wanted && says == wanted && observed;
        (!right).then(|| format!("{name} has {running} of {wanted} pods running, and says {status}"))
    })
}

/// Which kernel job has not come to its end: nodes that calculate nothing fail it.
fn uncalculated(world: &World) -> Option<String> {
    let jobs = world.disk.present(api::GROUP, "kerneljobs", "default");
    let open = jobs.iter().find(|(_, job)| job["status"]["phase"] != "Failed");
    open.map(|(name, job)| format!("{name} has not failed yet: {}", job["status"]))
}

/// What must hold of everything that happened.
pub fn check(world: &World) {
    let truth = world.disk.history("", "configmaps", "default");
    let (promises, watched) = world.note(|notes| (notes.promises.clone(), notes.watched.clone()));
    world.must("a promise is broken", promises.kept(&truth));
    for (name, told) in &watched {
        world.must(name, told.is_part_of(&truth));
    }
    account(world);
}

/// Goes through everything that ever was bound, and every try of a kernel job.
fn account(world: &World) {
    let (mut books, mut runs) = (Books::of(GPU), Runs::default());
    let parse = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).expect("the server stores JSON") };
    world.disk.each(|stored| match stored.key.group_and_plural() {
        ("", "nodes") => books.node(&parse(&stored.value)),
        ("", "pods") => {
            let pod = parse(&stored.value);
            let told = books.pod(&pod, stored.gone).and_then(|()| runs.pod(&pod, stored.gone));
            world.must(&format!("at {}", stored.revision), told);
        }
        (api::GROUP, "kerneljobs") => {
            world.must(&format!("at {}", stored.revision), runs.job(&parse(&stored.value)));
        }
        _ => {}
    });
}
