//! Devices that are broken in one way each, and what is found of them.

use super::*;
use crate::backend::{Backend, Fault, Properties, Step};
use crate::memory::{Buffer, Lease, View};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A processor that is broken in one way.
struct Broken {
    sound: crate::cpu::Cpu,
    steps: AtomicUsize,
    how: How,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    /// The n-th step that draws integers leaves a bit of them wrong, and so does each n-th after it.
    Memory(usize),
    /// Each n-th product does.
    Product(usize),
    /// All products do, always in the same way.
    Products,
}

impl Broken {
    fn device(how: How) -> Device {
        Device::with(Arc::new(Self { sound: crate::cpu::Cpu::new(), steps: AtomicUsize::new(0), how }))
            .limited_to(64 << 20)
    }

    fn breaks(&self, step: &Step) -> bool {
        match (self.how, step) {
            (How::Memory(n), Step::Random { .. }) | (How::Product(n), Step::MatMul) => {
                self.steps.fetch_add(1, Ordering::Relaxed) % n == n - 1
            }
            (How::Products, Step::MatMul) => true,
            _ => false,
        }
    }
}

impl Backend for Broken {
    fn properties(&self) -> &Properties {
        self.sound.properties()
    }

    fn allocate(&self, bytes: usize, lease: Lease) -> Result<Buffer> {
        self.sound.allocate(bytes, lease)
    }

    fn upload(&self, bytes: &[u8], lease: Lease) -> Result<Buffer> {
        self.sound.upload(bytes, lease)
    }

    fn download(&self, buffer: &Buffer, bytes: usize) -> Result<Vec<u8>> {
        self.sound.download(buffer, bytes)
    }

    fn start(&self, step: &Step, operands: &[View], results: &[View], fault: Option<&Fault>) -> Result<()> {
        self.sound.start(step, operands, results, fault)?;
        if self.breaks(step) {
            crate::cpu::flip_a_bit(&results[0]);
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        self.sound.finish()
    }
}

fn finding(check: Check, how: How) -> Finding {
    let run = CHECKS.iter().find(|(known, _)| *known == check).expect("it is one of them").1;
    run(&Broken::device(how), Level::Quick, &mut |_, _| ()).expect("it answers")
}

#[test]
fn a_sound_device_passes_and_is_measured() {
    let device = Device::cpu().limited_to(256 << 20);
    let mut told = Vec::new();
    let found = qualify(&device, Level::Quick, &mut |_, words| told.push(words.to_owned()));
    assert!(found.passed(), "{found:#?}");
    let checks: Vec<Check> = found.findings.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, CHECKS.map(|(check, _)| check));
    for rate in [
        "copyBytesPerSecond",
        "uploadBytesPerSecond",
        "matmulF32FlopsPerSecond",
        "matmulBf16FlopsPerSecond",
        "soakFlopsPerSecond",
    ] {
        let value = found.findings.iter().find_map(|finding| finding.figures.get(rate));
        assert!(value.is_some_and(|rate| *rate > 1e6), "{rate}: {value:?}");
    }
    assert!(told.iter().any(|words| words.starts_with("load: ")), "{told:?}");
}

#[test]
fn memory_that_forgets_a_bit_is_found_and_the_pattern_is_named() {
    let found = finding(Check::Memory, How::Memory(5));
    assert!(!found.passed && found.words.contains("1 words are not the "), "{}", found.words);
}

/// A card, played by processors: of its memory others have some, and its driver takes pages of sixteen pieces, never to give them back.
struct Card {
    sound: crate::cpu::Cpu,
    properties: Properties,
    others: u64,
    tells: bool,
    used: AtomicU64,
}

/// Bytes of its memory.
const CARD: u64 = 320 << 20;
/// Bytes of a page: with [`CARD`] bytes a piece has 2 MiB.
const PAGE: u64 = 32 << 20;

impl Card {
    fn memory_found(others: u64, tells: bool, level: Level) -> u64 {
        let sound = crate::cpu::Cpu::new();
        let properties = Properties {
            id: "card:0".to_owned(),
            memory_bytes: Some(CARD),
            is_cpu: false,
            shares_memory: false,
            ..sound.properties().clone()
        };
        let used = AtomicU64::new(0);
        let device = Device::with(Arc::new(Self { sound, properties, others, tells, used }));
        let found = memory::memory(&device, level, &mut |_, _| ()).expect("it answers");
        assert!(found.passed, "{}", found.words);
        found.figures["memoryBytes"] as u64
    }
}

impl Backend for Card {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn memory_free_bytes(&self) -> Option<u64> {
        self.tells.then(|| CARD - self.others - self.used.load(Ordering::Relaxed))
    }

    fn allocate(&self, bytes: usize, lease: Lease) -> Result<Buffer> {
        let pages = (CARD - lease.room()).next_multiple_of(PAGE);
        assert!(pages + self.others <= CARD, "a driver that has no memory left takes the process along");
        self.used.fetch_max(pages, Ordering::Relaxed);
        self.sound.allocate(bytes, lease)
    }

    fn upload(&self, bytes: &[u8], lease: Lease) -> Result<Buffer> {
        self.sound.upload(bytes, lease)
    }

    fn download(&self, buffer: &Buffer, bytes: usize) -> Result<Vec<u8>> {
        self.sound.download(buffer, bytes)
    }

    fn start(&self, step: &Step, operands: &[View], results: &[View], fault: Option<&Fault>) -> Result<()> {
        self.sound.start(step, operands, results, fault)
    }

    fn finish(&self) -> Result<()> {
        self.sound.finish()
    }
}

#[test]
fn all_that_is_free_is_looked_at_and_not_more() {
    for (others, tells, expected) in [
        // A tenth is left alone, and the last page may not be whole.
        (0, true, (CARD * 8 / 10)..=(CARD * 9 / 10)),
        (CARD / 2, true, (CARD * 3 / 10)..=(CARD * 4 / 10)),
        // Who does not know takes half.
        (0, false, (CARD / 2 - PAGE)..=(CARD / 2)),
    ] {
        let found = Card::memory_found(others, tells, Level::Full);
        assert!(
            expected.contains(&found),
            "{others} bytes of others, told: {tells}: {found} of {expected:?}"
        );
    }
    // A quick look would be content with less than this card has, if it were larger.
    assert_eq!(Card::memory_found(0, true, Level::Quick), Card::memory_found(0, true, Level::Full));
}

#[test]
fn a_product_that_is_wrong_now_and_then_is_found_by_its_repetition() {
    let found = finding(Check::Determinism, How::Product(7));
    assert!(!found.passed && found.words.contains("differ from the first"), "{}", found.words);
}

#[test]
fn products_that_are_always_wrong_are_found_by_the_theorem() {
    assert!(finding(Check::Determinism, How::Products).passed, "always the same");
    let found = finding(Check::Matrix, How::Products);
    assert!(!found.passed && found.words.contains("WRONG"), "{}", found.words);
}

#[test]
fn what_a_device_refuses_is_a_finding() {
    let found = qualify(&Device::cpu().limited_to(1 << 10), Level::Quick, &mut |_, _| ());
    let objection = found.objection().expect("a kibibyte is too little");
    assert!(objection.words.contains("bytes more are needed"), "{}", objection.words);
}
