//! The present inventory: looked at again and again, and told to whoever listens.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    Gpu, Inventory, Source, Unavailable,
    cdi::{self, ContainerEdits},
    host,
};

/// How often GPUs are looked at. An answer takes the driver some milliseconds.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The same while there is none: somebody may install a driver.
const LOOK_EVERY_WITHOUT: Duration = Duration::from_secs(60);

/// The GPUs of this machine, as they are now.
pub struct Gpus {
    source: Box<dyn Source>,
    /// Later ones win.
    cdi_folders: Vec<PathBuf>,
    present: watch::Sender<Arc<Inventory>>,
    /// What was wrong with CDI files, so that it is told once.
    problems: Mutex<Vec<String>>,
}

impl Gpus {
    /// Looks for the first time, and from then on every few seconds. No driver is no error: then there are no GPUs.
    ///
    /// # Errors
    /// When a recording cannot be read.
    pub async fn open(source: impl Source) -> Result<Arc<Self>, Unavailable> {
        let gpus = Arc::new(Self {
            source: Box::new(source),
            cdi_folders: cdi::FOLDERS.map(PathBuf::from).to_vec(),
            present: watch::Sender::default(),
            problems: Mutex::default(),
        });
        match looked(&gpus).await {
            Ok(()) => {}
            Err(error @ Unavailable::Absent(_)) => {
                tracing::debug!(%error, "this machine has no GPUs to offer")
            }
            Err(error @ Unavailable::Silent(_)) => {
                tracing::warn!(%error, "this machine offers no GPUs for now")
            }
            Err(error @ Unavailable::Unreadable { .. }) => return Err(error),
        }
        tokio::spawn(keep_looking(Arc::downgrade(&gpus)));
        Ok(gpus)
    }

    /// As last seen.
    pub fn present(&self) -> Arc<Inventory> {
        Arc::clone(&self.present.borrow())
    }

    /// Told of every change, figures that come and go included.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Inventory>> {
        self.present.subscribe()
    }

    /// What a container needs to use these GPUs.
    ///
    /// # Errors
    /// When one of them is not there any more, or cannot be given; the sentence says which and why.
    pub fn edits(&self, uuids: &[String]) -> Result<ContainerEdits, String> {
        let inventory = self.present();
        let mut gpus = Vec::new();
        for uuid in uuids {
            gpus.push(
                inventory.get(uuid).ok_or_else(|| format!("GPU {uuid} is not on this machine any more"))?,
            );
        }
        edits_for(&gpus, &inventory, &cdi::read(&self.cdi_folders))
    }

    /// Looks now. Blocks.
    fn look(&self) -> Result<(), Unavailable> {
        let before = self.present();
        let answer = self.source.ask();
        let vendor = cdi::read(&self.cdi_folders);
        self.tell_problems(&vendor);
        let error = answer.as_ref().err().map(ToString::to_string);
        let mut now = match answer {
            Ok(inventory) => judged(inventory, &vendor),
            Err(error) if before.gpus.is_empty() => return Err(error),
            Err(_) => Inventory::default(),
        }
        .after(&before);
        if let Some(error) = error {
            now.gpus.iter_mut().for_each(|gpu| gpu.withheld = Some(error.clone()));
        }
        tell_changes(&before, &now);
        self.present.send_if_modified(|present| {
            let is_news = **present != now;
            if is_news {
                *present = Arc::new(now);
            }
            is_news
        });
        Ok(())
    }

    fn tell_problems(&self, vendor: &cdi::Vendor) {
        let mut told = self.problems.lock();
        for problem in vendor.problems().iter().filter(|problem| !told.contains(problem)) {
            tracing::warn!(problem, "a CDI description is not used");
        }
        *told = vendor.problems().to_vec();
    }
}

/// Looks once, for who does not stay to see what changes. Blocks.
///
/// # Errors
/// When nobody answers.
pub fn once(source: &dyn Source) -> Result<Inventory, Unavailable> {
    Ok(judged(source.ask()?, &cdi::read(&cdi::FOLDERS.map(PathBuf::from))))
}

/// Withholds what is broken, and what no container could be given.
fn judged(mut inventory: Inventory, vendor: &cdi::Vendor) -> Inventory {
    let obstacle = |gpu: &Gpu| gpu.fault().or_else(|| edits_for(&[gpu], &inventory, vendor).err());
    let obstacles: Vec<Option<String>> = inventory.gpus.iter().map(obstacle).collect();
    for (gpu, obstacle) in inventory.gpus.iter_mut().zip(obstacles) {
        gpu.withheld = obstacle;
    }
    inventory
}

/// The vendor's word, where there is one; else what the driver's files on this machine make of it.
fn edits_for(gpus: &[&Gpu], inventory: &Inventory, vendor: &cdi::Vendor) -> Result<ContainerEdits, String> {
    if inventory.replayed {
        return Ok(host::names_only(gpus));
    }
    let edits = match vendor.edits(gpus) {
        Some(edits) => edits,
        None => host::edits(gpus, inventory.library.as_deref())?,
    };
    host::with_numbers(edits)
}

fn tell_changes(before: &Inventory, now: &Inventory) {
    let withheld = |all: &Inventory| -> BTreeMap<String, Option<String>> {
        all.gpus.iter().map(|gpu| (gpu.uuid.clone(), gpu.withheld.clone())).collect()
    };
    let known = withheld(before);
    for gpu in now.gpus.iter().filter(|gpu| known.get(&gpu.uuid) != Some(&gpu.withheld)) {
        let Gpu { uuid, model, index, .. } = gpu;
        match &gpu.withheld {
            Some(why) => tracing::warn!(uuid, model, index, why, "a GPU is not offered to pods"),
            None => tracing::info!(uuid, model, index, replayed = now.replayed, "a GPU is offered to pods"),
        }
    }
}

/// Drivers can take long to answer, and are not asked on a thread of the runtime.
async fn looked(gpus: &Arc<Gpus>) -> Result<(), Unavailable> {
    let gpus = Arc::clone(gpus);
    tokio::task::spawn_blocking(move || gpus.look())
        .await
        .unwrap_or_else(|error| Err(Unavailable::Silent(error.to_string())))
}

/// Ends with the last user.
async fn keep_looking(gpus: Weak<Gpus>) {
    loop {
        let Some(there_are_none) = gpus.upgrade().map(|gpus| gpus.present().gpus.is_empty()) else { return };
        tokio::time::sleep(if there_are_none { LOOK_EVERY_WITHOUT } else { LOOK_EVERY }).await;
        let Some(gpus) = gpus.upgrade() else { return };
        if let Err(error) = looked(&gpus).await {
            tracing::debug!(%error, "there are still no GPUs");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_recording_is_marked_read_again_and_refused_when_it_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gpus.json");
        let recording = || super::super::Recording(file.clone());
        assert!(matches!(Gpus::open(recording()).await, Err(Unavailable::Unreadable { .. })));
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/h100.json"), &file).unwrap();
        let gpus = Gpus::open(recording()).await.unwrap();
        let present = gpus.present();
        assert!(present.replayed);
        let uuid = present.gpus[0].uuid.clone();
        let edits = gpus.edits(std::slice::from_ref(&uuid)).unwrap();
        let names = ContainerEdits {
            env: vec![format!("NVIDIA_VISIBLE_DEVICES={uuid}")],
            ..ContainerEdits::default()
        };
        assert_eq!(edits, names, "names, and nothing behind them");
        assert!(gpus.edits(&["GPU-other".to_owned()]).unwrap_err().contains("GPU-other"));

        std::fs::write(&file, r#"{"gpus": []}"#).unwrap();
        gpus.look().unwrap();
        assert_eq!(gpus.present().offered().count(), 0);
        std::fs::write(&file, "{").unwrap();
        gpus.look().unwrap();
        let present = gpus.present();
        let why = present.gpus[0].withheld.as_deref().unwrap();
        assert!(why.contains("gpus.json"), "{why}");
    }

    struct Nobody;

    impl Source for Nobody {
        fn ask(&self) -> Result<Inventory, Unavailable> {
            Err(Unavailable::Absent("no library".to_owned()))
        }
    }

    #[tokio::test]
    async fn a_machine_without_a_driver_has_no_gpus_and_no_trouble() {
        let gpus = Gpus::open(Nobody).await.unwrap();
        assert_eq!(*gpus.present(), Inventory::default());
    }
}
