//! The present inventory: looked at again and again, and told to whoever listens.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Weak, mpsc},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{
        oneshot::{self, error::RecvError},
        watch,
    },
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Gpu, Inventory, Source, Unavailable, amd,
    cdi::{self, ContainerEdits},
    health, host,
    inventory::{Teller, whole},
    mps,
    sharing::Sharing,
    source::Answer,
    vulkan,
};

/// How long is waited for a driver, and how often it is asked.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// For the first answer, until all else goes on without: it wakes GPUs up, a second or two each.
    first: Duration,
    /// For each further one, until the driver counts as silent. An answer takes it some milliseconds.
    answer: Duration,
    /// Between an answer and the next question.
    every: Duration,
    /// The same while there is no GPU: somebody may install a driver.
    every_without: Duration,
}

const PACE: Pace = Pace {
    first: Duration::from_secs(10),
    answer: Duration::from_secs(30),
    every: Duration::from_secs(5),
    every_without: Duration::from_secs(60),
};

/// The GPUs of this machine, as they are now.
pub struct Gpus {
    /// Later ones win.
    cdi_folders: Vec<PathBuf>,
    /// Where containers meet the daemons that have them share GPUs.
    mps: mps::Place,
    present: watch::Sender<Arc<Inventory>>,
    /// What was wrong with CDI files, so that it is told once.
    problems: Mutex<Vec<String>>,
    /// Ends the looking with the last user.
    _looking: DropGuard,
}

impl Gpus {
    /// Looks for the first time, and from then on every few seconds. No driver is no error: then there are no GPUs. One
    /// that does not answer keeps nobody waiting: its GPUs come when it does.
    ///
    /// # Errors
    /// When a recording cannot be read.
    pub async fn open(
        source: impl Source,
        sharing: Sharing,
        mps: mps::Place,
    ) -> Result<Arc<Self>, Unavailable> {
        Self::open_at(PACE, source, sharing, mps).await
    }

    async fn open_at(
        pace: Pace,
        source: impl Source,
        sharing: Sharing,
        mps: mps::Place,
    ) -> Result<Arc<Self>, Unavailable> {
        let cancel = CancellationToken::new();
        let cdi_folders = cdi::FOLDERS.map(PathBuf::from).to_vec();
        let gpus = Arc::new(Self {
            cdi_folders: cdi_folders.clone(),
            mps: mps.clone(),
            present: watch::Sender::default(),
            problems: Mutex::default(),
            _looking: cancel.clone().drop_guard(),
        });
        let asker = Asker::start(source, cdi_folders, sharing, mps);
        let mut first = asker.ask();
        let pending = match timeout(pace.first, &mut first).await {
            Ok(looked) => {
                gpus.begin(looked)?;
                None
            }
            Err(_) => {
                gpus.miss_answer();
                Some(first)
            }
        };
        let looking = keep_looking(Arc::downgrade(&gpus), pace, asker, pending);
        tokio::spawn(cancel.run_until_cancelled_owned(looking));
        Ok(gpus)
    }

    fn begin(&self, looked: Result<Looked, RecvError>) -> Result<(), Unavailable> {
        match self.take_in(looked) {
            Err(error @ Unavailable::Absent(_)) => {
                tracing::debug!(%error, "this machine has no GPUs to offer")
            }
            Err(error @ Unavailable::Unreadable { .. }) => return Err(error),
            // It was told as it was taken in.
            Err(Unavailable::Silent(_)) | Ok(()) => {}
        }
        Ok(())
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
    pub fn edits(&self, ids: &[String]) -> Result<ContainerEdits, String> {
        let inventory = self.present();
        let mut gpus: Vec<&Gpu> = Vec::new();
        for uuid in ids.iter().map(|id| whole(id)) {
            // Two turns on one GPU are one GPU.
            if gpus.iter().any(|gpu| gpu.uuid == uuid) {
                continue;
            }
            let why = || match &inventory.silent {
                Some(why) => format!("GPU {uuid} is not to be had now: {why}"),
                None => format!("GPU {uuid} is not on this machine any more"),
            };
            gpus.push(inventory.get(uuid).ok_or_else(why)?);
        }
        let mut edits = edits_for(&gpus, &inventory, &cdi::read(&self.cdi_folders))?;
        edits.extend(mps::edits(&gpus, &self.mps)?);
        Ok(edits)
    }

    /// The next inventory, from what an answer says.
    fn take_in(&self, looked: Result<Looked, RecvError>) -> Result<(), Unavailable> {
        let (answer, problems) = match looked {
            Ok(looked) => (looked.answer, looked.problems),
            // Only where the library brought its thread down.
            Err(_) => (Err(Unavailable::Silent("nobody asks it any more".to_owned())), Vec::new()),
        };
        self.tell_problems(problems);
        let before = self.present();
        match answer {
            Ok(inventory) => self.publish(&before, inventory.after(&before)),
            Err(error) => {
                let now = Inventory::default().after(&before);
                // Where there never was one there is nothing to be silent about.
                let is_none = matches!(error, Unavailable::Absent(_)) && now.gpus.is_empty();
                self.publish(&before, if is_none { now } else { now.fall_silent(&error.to_string()) });
                return Err(error);
            }
        }
        Ok(())
    }

    /// The driver has been asked, and does not answer in time.
    fn miss_answer(&self) {
        let error = Unavailable::Silent("a question is not answered".to_owned());
        let before = self.present();
        self.publish(&before, Inventory::default().after(&before).fall_silent(&error.to_string()));
    }

    fn publish(&self, before: &Inventory, now: Inventory) {
        tell_changes(before, &now);
        self.present.send_if_modified(|present| {
            let is_news = **present != now;
            if is_news {
                *present = Arc::new(now);
            }
            is_news
        });
    }

    fn tell_problems(&self, problems: Vec<String>) {
        let mut told = self.problems.lock();
        for problem in problems.iter().filter(|problem| !told.contains(problem)) {
            tracing::warn!(problem, "a CDI description is not used");
        }
        *told = problems;
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
    inventory.share_health();
    let obstacles: Vec<Option<String>> =
        inventory.gpus.iter().map(|gpu| obstacle(gpu, &inventory, vendor)).collect();
    for (gpu, obstacle) in inventory.gpus.iter_mut().zip(obstacles) {
        gpu.withheld = obstacle;
        if gpu.withheld.is_none()
            && let Some(fault) = health::fault(gpu)
        {
            gpu.withhold(fault);
        }
    }
    match inventory.silent.clone() {
        Some(why) => inventory.fall_silent(&why),
        None => inventory,
    }
}

/// Why no container could be given a GPU, however it is.
fn obstacle(gpu: &Gpu, inventory: &Inventory, vendor: &cdi::Vendor) -> Option<String> {
    if gpu.is_cut() {
        return Some("it is cut into MIG instances".to_owned());
    }
    if let Some(mode) = gpu.amd.as_ref().filter(|amd| amd.is_cut()).and_then(|amd| amd.partition.as_ref()) {
        return Some(format!("it is cut into partitions ({mode}), which cannot be given yet"));
    }
    // One that is lost has lost its files, too.
    if gpu.lost {
        return None;
    }
    edits_for(&[gpu], inventory, vendor).err()
}

/// The vendor's word, where there is one; else what the driver's files on this machine make of it.
fn edits_for(gpus: &[&Gpu], inventory: &Inventory, vendor: &cdi::Vendor) -> Result<ContainerEdits, String> {
    let of =
        |teller: Teller| -> Vec<&Gpu> { gpus.iter().copied().filter(|gpu| gpu.teller() == teller).collect() };
    let (nvidia, amd, others) = (of(Teller::Nvidia), of(Teller::Amd), of(Teller::Vulkan));
    let mut edits = ContainerEdits::default();
    if !nvidia.is_empty() {
        edits.extend(match vendor.edits(&nvidia) {
            _ if inventory.replayed => host::names_only(&nvidia),
            Some(edits) => edits,
            None => host::edits(&nvidia, inventory.library.as_deref())?,
        });
    }
    if !amd.is_empty() {
        edits.extend(match (vendor.edits(&amd), &inventory.dev) {
            _ if inventory.replayed && inventory.dev.is_none() => amd::host::names_only(&amd),
            (_, Some(dev)) => amd::host::edits(&amd, dev)?,
            (Some(edits), None) => edits,
            (None, None) => amd::host::edits(&amd, Path::new("/dev"))?,
        });
    }
    if !others.is_empty() {
        edits.extend(match inventory.replayed {
            true => vulkan::host::names_only(&others),
            false => vulkan::host::edits(&others, Path::new("/dev"))?,
        });
    }
    host::with_numbers(edits)
}

fn tell_changes(before: &Inventory, now: &Inventory) {
    let withheld = |all: &Inventory| -> BTreeMap<String, Option<String>> {
        all.gpus.iter().map(|gpu| (gpu.uuid.clone(), gpu.withheld.clone())).collect()
    };
    if let Some(why) = now.silent.as_ref().filter(|_| before.silent.is_none()) {
        tracing::warn!(why, "how the GPUs are is not known");
    }
    let known = withheld(before);
    for gpu in now.gpus.iter().filter(|gpu| known.get(&gpu.uuid) != Some(&gpu.withheld)) {
        let Gpu { uuid, model, index, .. } = gpu;
        match &gpu.withheld {
            Some(why) => tracing::warn!(uuid, model, index, why, "a GPU is not offered to pods"),
            None => tracing::info!(uuid, model, index, replayed = now.replayed, "a GPU is offered to pods"),
        }
    }
}

/// What one look found.
struct Looked {
    answer: Answer,
    /// What is wrong with CDI files.
    problems: Vec<String>,
}

/// Asks the source on a thread of its own. A driver that is stuck holds that thread for ever, so it is none of the
/// runtime's, whose end would wait for it.
struct Asker {
    questions: mpsc::Sender<oneshot::Sender<Looked>>,
}

impl Asker {
    fn start(source: impl Source, cdi_folders: Vec<PathBuf>, sharing: Sharing, place: mps::Place) -> Self {
        let (questions, asked) = mpsc::channel::<oneshot::Sender<Looked>>();
        let thread = move || {
            let Ok(question) = asked.recv() else { return };
            let mut question = Some(question);
            let mut daemons = mps::Daemons::new(place);
            source.tell(&mut |answer| {
                if let Some(question) = question.take() {
                    let vendor = cdi::read(&cdi_folders);
                    let answer = answer.map(|inventory| {
                        let mut inventory = judged(inventory, &vendor);
                        sharing.apply(&mut inventory);
                        daemons.keep(&mut inventory);
                        inventory
                    });
                    let _ = question.send(Looked { answer, problems: vendor.problems().to_vec() });
                }
                question = asked.recv().ok();
                question.is_some()
            });
        };
        if let Err(error) = std::thread::Builder::new().name("gpus".to_owned()).spawn(thread) {
            tracing::error!(%error, "GPUs cannot be looked at");
        }
        Self { questions }
    }

    /// The answer comes when it comes; without a thread, an error at once.
    fn ask(&self) -> oneshot::Receiver<Looked> {
        let (question, answer) = oneshot::channel();
        let _ = self.questions.send(question);
        answer
    }
}

/// Asks again and again; while a question is not answered, no other is asked.
async fn keep_looking(
    gpus: Weak<Gpus>,
    pace: Pace,
    asker: Asker,
    mut pending: Option<oneshot::Receiver<Looked>>,
) {
    loop {
        let mut answer = match pending.take() {
            Some(late) => late,
            None => {
                let Some(is_without) = gpus.upgrade().map(|gpus| gpus.present().is_without()) else { return };
                tokio::time::sleep(if is_without { pace.every_without } else { pace.every }).await;
                asker.ask()
            }
        };
        let looked = match timeout(pace.answer, &mut answer).await {
            Ok(looked) => looked,
            Err(_) => {
                let Some(gpus) = gpus.upgrade() else { return };
                gpus.miss_answer();
                drop(gpus);
                answer.await
            }
        };
        let Some(gpus) = gpus.upgrade() else { return };
        if let Err(error) = gpus.take_in(looked) {
            tracing::debug!(%error, "the GPUs are not known");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As fast as a test may be without being surprised by a busy machine.
    const FAST: Pace = Pace {
        first: Duration::from_secs(60),
        answer: Duration::from_secs(60),
        every: Duration::from_millis(5),
        every_without: Duration::from_millis(5),
    };

    /// Nobody shares anything there.
    fn place() -> mps::Place {
        mps::Place::of(Path::new("/nowhere"))
    }

    /// Until an inventory is as it should be.
    async fn seen(gpus: &Gpus, is_it: impl Fn(&Inventory) -> bool) -> Arc<Inventory> {
        let mut inventories = gpus.subscribe();
        let found =
            timeout(Duration::from_secs(60), inventories.wait_for(|inventory| is_it(inventory))).await;
        Arc::clone(&found.expect("it becomes so").unwrap())
    }

    #[tokio::test]
    async fn a_recording_is_marked_read_again_and_refused_when_it_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gpus.json");
        let write = |text: &[u8]| {
            std::fs::write(file.with_extension("next"), text).unwrap();
            std::fs::rename(file.with_extension("next"), &file).unwrap();
        };
        let recording = || super::super::Recording(file.clone());
        assert!(matches!(
            Gpus::open(recording(), Sharing::default(), place()).await,
            Err(Unavailable::Unreadable { .. })
        ));
        write(include_bytes!("../../tests/data/h100.json"));
        let gpus = Gpus::open_at(FAST, recording(), Sharing::default(), place()).await.unwrap();
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

        write(br#"{"gpus": []}"#);
        seen(&gpus, |inventory| inventory.offered().count() == 0 && inventory.silent.is_none()).await;
        write(b"{");
        let present = seen(&gpus, |inventory| inventory.silent.is_some()).await;
        let why = present.gpus[0].withheld.as_deref().unwrap();
        assert!(why.contains("gpus.json"), "{why}");
    }

    struct Nobody;

    impl Source for Nobody {
        fn tell(&self, listener: &mut dyn FnMut(Answer) -> bool) {
            while listener(Err(Unavailable::Absent("no library".to_owned()))) {}
        }
    }

    #[tokio::test]
    async fn a_machine_without_a_driver_has_no_gpus_and_no_trouble() {
        let gpus = Gpus::open(Nobody, Sharing::default(), place()).await.unwrap();
        assert_eq!(*gpus.present(), Inventory::default());
    }

    /// Answers when the test lets it.
    struct Stuck {
        let_go: mpsc::Receiver<()>,
        asked: Arc<std::sync::atomic::AtomicUsize>,
    }

    impl Source for Stuck {
        fn tell(&self, listener: &mut dyn FnMut(Answer) -> bool) {
            loop {
                self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let answer = match self.let_go.recv() {
                    Ok(()) => Ok(Inventory {
                        replayed: true,
                        gpus: vec![Gpu { uuid: "GPU-a".to_owned(), ..Gpu::default() }],
                        ..Inventory::default()
                    }),
                    Err(_) => return,
                };
                if !listener(answer) {
                    return;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_driver_that_hangs_keeps_nobody_waiting_is_seen_and_heals() {
        let (let_go, stuck) = mpsc::channel();
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let pace = Pace { first: Duration::from_millis(20), answer: Duration::from_millis(20), ..FAST };
        let source = Stuck { let_go: stuck, asked: Arc::clone(&asked) };
        let gpus = Gpus::open_at(pace, source, Sharing::default(), place())
            .await
            .expect("the agent begins all the same");
        let present = gpus.present();
        assert!(present.gpus.is_empty() && present.silent.is_some(), "{present:?}");
        let why = gpus.edits(&["GPU-a".to_owned()]).unwrap_err();
        assert!(why.contains("does not answer"), "{why}");
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);

        let_go.send(()).unwrap();
        seen(&gpus, |inventory| inventory.offered().count() == 1).await;
        // The next question hangs.
        let present = seen(&gpus, |inventory| inventory.silent.is_some()).await;
        assert_eq!((present.gpus.len(), present.offered().count()), (1, 0));
        assert!(present.gpus[0].withheld.as_ref().unwrap().contains("the NVIDIA driver does not answer"));
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2, "nobody asks before it answered");
        let_go.send(()).unwrap();
        seen(&gpus, |inventory| inventory.offered().count() == 1 && inventory.silent.is_none()).await;
        drop(let_go);
        // A source that ends is as good as silent.
        let present = seen(&gpus, |inventory| inventory.silent.is_some()).await;
        assert_eq!(present.offered().count(), 0);
    }
}
