//! What of a driver's answers speaks against giving a GPU to a pod, and what is only told. Pure.
//!
//! Xid errors are the driver's numbers for what went wrong on a GPU. Which of them are an application's own doing follows
//! NVIDIA's device plugin for Kubernetes (`internal/rm/health.go`); which leave the GPU usable, NVIDIA's "Xid Errors" and
//! "GPU Memory Error Management". All others speak against the GPU, those that nobody knows yet included.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Gpu;

/// A program did something wrong, or was ended for what another error did: engine exception, page fault, stopped
/// processing, cleanup, video exception, context switch that took too long.
const XIDS_OF_APPLICATIONS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// A row of memory was replaced (63); an error was contained to the program that met it (94).
const XIDS_CONTAINED: [u64; 2] = [63, 94];

/// Looks in a row at which the hardware holds clocks back until that speaks against a GPU: five minutes.
const SLOWED_LOOKS_MAX: u32 = 60;

/// For how many looks more it is told that clocks were held back: it comes and goes by the second.
const SLOWED_LOOKS_TOLD: u32 = 60;

/// Why a GPU is not for everybody, also as the taint of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `xid`, `ecc` and so on.
    pub kind: &'static str,
    /// Which one, where there are several of a kind.
    pub value: Option<String>,
    /// In words. Says nothing that grows, so that a fault is told once.
    pub why: String,
}

/// What holds clocks back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Throttle {
    /// The hardware, for heat.
    HardwareHeat,
    /// The hardware, because the power supply asks for it.
    PowerBrake,
    /// The hardware, and it does not say why.
    Hardware,
    /// The driver, for heat.
    Heat,
}

/// Rows of memory that were, or are to be, replaced by spare ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remapping {
    /// Rows that were replaced for errors that were corrected.
    pub corrected: u32,
    /// Rows that were replaced for errors that were not.
    pub uncorrected: u32,
    /// One waits for the next reset to be replaced.
    pub pending: bool,
    /// One could not be replaced.
    pub failed: bool,
}

/// How clocks were held back, over looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slowed {
    /// Looks in a row at which the hardware did it.
    by_hardware: u32,
    /// What did it, and how many looks ago.
    by: BTreeMap<Throttle, u32>,
}

impl Slowed {
    /// After one look more.
    #[must_use]
    pub fn next(&self, now: &BTreeSet<Throttle>) -> Self {
        let is_hard = now.iter().any(|throttle| *throttle != Throttle::Heat);
        let earlier = self.by.iter().map(|(throttle, looks)| (*throttle, looks + 1));
        let mut by: BTreeMap<_, _> = earlier.filter(|(_, looks)| *looks <= SLOWED_LOOKS_TOLD).collect();
        by.extend(now.iter().map(|throttle| (*throttle, 0)));
        Self { by_hardware: if is_hard { self.by_hardware.saturating_add(1) } else { 0 }, by }
    }
}

impl Fault {
    fn new(kind: &'static str, why: impl Into<String>) -> Self {
        Self { kind, value: None, why: why.into() }
    }

    /// Of a GPU that the driver reaches no more.
    pub fn lost() -> Self {
        Self::new("lost", "it has fallen off the bus")
    }

    /// Of one that is not among those that the driver knows.
    pub fn gone() -> Self {
        Self::new("lost", "it no longer answers")
    }

    /// Of all, while the driver says nothing.
    pub fn silent(why: &str) -> Self {
        Self::new("silent", why)
    }
}

/// The gravest that speaks against a GPU.
pub fn fault(gpu: &Gpu) -> Option<Fault> {
    if gpu.lost {
        return Some(Fault::lost());
    }
    if gpu.reset_required {
        return Some(Fault::new("reset", "it must be reset before it can be used"));
    }
    if let Some(xid) = gpu.xids.iter().find(|xid| is_fatal(**xid)) {
        let why = format!("Xid {xid}{}", meaning(*xid));
        return Some(Fault { value: Some(xid.to_string()), ..Fault::new("xid", why) });
    }
    if gpu.remapping.is_some_and(|remapping| remapping.failed) {
        return Some(Fault::new("row-remap", "a row of its memory could not be replaced"));
    }
    if gpu.ecc.and_then(|ecc| ecc.uncorrected).is_some_and(|errors| errors > 0) {
        // AMD's counts are of all its blocks.
        let what = if gpu.amd.is_some() { "errors" } else { "memory errors" };
        return Some(Fault::new("ecc", format!("uncorrected {what} since the driver was loaded")));
    }
    if gpu.amd.is_some() && gpu.memory_bytes == 0 {
        return Some(Fault::new("memory", "the size of its memory cannot be read"));
    }
    let is_slow = gpu.slowed.by_hardware >= SLOWED_LOOKS_MAX;
    is_slow.then(|| Fault::new("slowdown", "the hardware has held its clocks back for minutes"))
}

/// What is worth telling of a GPU that goes on.
pub fn remarks(gpu: &Gpu) -> Vec<String> {
    let mut remarks = Vec::new();
    let contained: Vec<String> =
        gpu.xids.iter().filter(|xid| XIDS_CONTAINED.contains(xid)).map(u64::to_string).collect();
    if !contained.is_empty() {
        remarks.push(format!("Xid {}: memory errors that it dealt with", contained.join(", ")));
    }
    if gpu.remapping.is_some_and(|remapping| remapping.pending) {
        remarks.push("a row of its memory is replaced at the next reset".to_owned());
    }
    if !gpu.slowed.by.is_empty() {
        let by: Vec<&str> = gpu.slowed.by.keys().map(|throttle| throttle.words()).collect();
        remarks.push(format!("its clocks are held back by {}", by.join(", ")));
    }
    remarks
}

impl Throttle {
    fn words(self) -> &'static str {
        match self {
            Self::HardwareHeat => "heat (the hardware)",
            Self::PowerBrake => "the power brake",
            Self::Hardware => "the hardware",
            Self::Heat => "heat",
        }
    }
}

fn is_fatal(xid: u64) -> bool {
    !XIDS_OF_APPLICATIONS.contains(&xid) && !XIDS_CONTAINED.contains(&xid)
}

/// Of those that people look up most.
fn meaning(xid: u64) -> &'static str {
    match xid {
        48 => ": an uncorrected memory error",
        64 => ": a row of its memory could not be replaced",
        74 => ": an NVLink failed",
        79 => ": it has fallen off the bus",
        95 => ": a memory error that was not contained",
        119 | 120 => ": its system processor does not answer",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::inventory::Ecc;

    fn with_xids(xids: &[u64]) -> Gpu {
        Gpu { xids: xids.iter().copied().collect(), ..Gpu::default() }
    }

    #[test]
    fn an_xid_speaks_against_a_gpu_unless_it_is_an_applications_or_was_contained() {
        assert_eq!(fault(&with_xids(&XIDS_OF_APPLICATIONS)), None);
        assert_eq!(remarks(&with_xids(&XIDS_OF_APPLICATIONS)), [""; 0]);
        assert_eq!(fault(&with_xids(&[63, 94])), None);
        assert_eq!(remarks(&with_xids(&[94, 63])), ["Xid 63, 94: memory errors that it dealt with"]);
        for xid in [48, 62, 64, 74, 79, 95, 119, 154, 9_999] {
            let fault = fault(&with_xids(&[13, xid])).unwrap();
            assert_eq!((fault.kind, fault.value.unwrap()), ("xid", xid.to_string()));
        }
    }

    #[test]
    fn the_gravest_is_told_and_nothing_that_grows() {
        let ecc =
            |uncorrected| Some(Ecc { enabled: true, uncorrected, corrected: Some(9), ..Ecc::default() });
        assert_eq!(fault(&Gpu { ecc: ecc(Some(0)), ..Gpu::default() }), None);
        assert_eq!(fault(&Gpu { ecc: ecc(None), ..Gpu::default() }), None);
        let one = Gpu { ecc: ecc(Some(1)), ..Gpu::default() };
        assert_eq!(fault(&one), fault(&Gpu { ecc: ecc(Some(2)), ..Gpu::default() }));
        assert_eq!(fault(&one).unwrap().kind, "ecc");
        let remapping = Some(Remapping { failed: true, pending: true, ..Remapping::default() });
        assert_eq!(fault(&Gpu { remapping, ..one.clone() }).unwrap().kind, "row-remap");
        assert_eq!(fault(&Gpu { lost: true, remapping, ..with_xids(&[79]) }).unwrap().kind, "lost");
        let pending = Some(Remapping { pending: true, ..Remapping::default() });
        let pending = Gpu { remapping: pending, ..Gpu::default() };
        assert_eq!((fault(&pending), remarks(&pending).len()), (None, 1));
    }

    #[test]
    fn clocks_that_are_held_back_are_told_and_speak_against_a_gpu_when_the_hardware_goes_on_doing_it() {
        let looks = |slowed: &Slowed, now: &[Throttle], times: u32| {
            let now = now.iter().copied().collect();
            (0..times).fold(slowed.clone(), |slowed, _| slowed.next(&now))
        };
        let gpu = |slowed: Slowed| Gpu { slowed, ..Gpu::default() };
        let hot = looks(&Slowed::default(), &[Throttle::Heat], SLOWED_LOOKS_MAX * 2);
        assert_eq!(fault(&gpu(hot.clone())), None, "the driver may do it for as long as it likes");
        assert_eq!(remarks(&gpu(hot)), ["its clocks are held back by heat"]);
        let braked = looks(&Slowed::default(), &[Throttle::PowerBrake], SLOWED_LOOKS_MAX - 1);
        assert_eq!(fault(&gpu(braked.clone())), None);
        let longer = looks(&braked, &[Throttle::PowerBrake], 1);
        assert_eq!(fault(&gpu(longer.clone())).unwrap().kind, "slowdown");
        let better = looks(&longer, &[], 1);
        assert_eq!(fault(&gpu(better.clone())), None, "healed");
        assert_eq!(remarks(&gpu(better.clone())).len(), 1, "and told for a while");
        assert!(remarks(&gpu(looks(&better, &[], SLOWED_LOOKS_TOLD))).is_empty());
    }
}
