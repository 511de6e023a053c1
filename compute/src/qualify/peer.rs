//! Whether two GPUs of a machine reach each other's memory, and how quickly.

use super::Tell;
use claw_graph::qualification::{Check, Finding};

/// Bytes that are copied: many times what links hold on their way.
#[cfg(feature = "cuda")]
const BYTES: usize = 256 << 20;
#[cfg(feature = "cuda")]
const TURNS: usize = 5;

/// What is found of two devices, by their names. Nothing of those that do not reach each other, and of others than NVIDIA's.
pub fn peer(names: [&str; 2], tell: Tell<'_>) -> Option<Finding> {
    let words = format!("peers: {} to {} and back", names[0], names[1]);
    tell(Check::Peer, &words);
    found(names)
}

#[cfg(feature = "cuda")]
fn found(names: [&str; 2]) -> Option<Finding> {
    let number = |name: &str| name.strip_prefix("cuda:")?.parse::<usize>().ok();
    let numbers = [number(names[0])?, number(names[1])?];
    judged(names, crate::cube::peer::copied(numbers, &content(), TURNS))
}

#[cfg(not(feature = "cuda"))]
fn found(_: [&str; 2]) -> Option<Finding> {
    None
}

/// Bytes that are not the same anywhere, so that two places that are taken for each other are seen.
#[cfg(feature = "cuda")]
fn content() -> Vec<u8> {
    // Weyl's sequence, by the golden ratio.
    let word = |number: u64| (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    (0..BYTES as u64 / 8).flat_map(word).collect()
}

#[cfg(feature = "cuda")]
fn judged(
    [one, other]: [&str; 2],
    copied: Result<Option<crate::cube::peer::Copied>, String>,
) -> Option<Finding> {
    let copied = match copied {
        Ok(copied) => copied?,
        Err(why) => {
            let words = format!("{one} to {other}: {why}");
            return Some(Finding { check: Check::Peer, passed: false, words, figures: [].into() });
        }
    };
    let [there, back] = [copied.seconds_there, copied.seconds_back].map(|seconds| BYTES as f64 / seconds);
    let mut words = format!("{one} to {other} {:.1} GB/s, back {:.1} GB/s", there / 1e9, back / 1e9);
    if !copied.is_right {
        words.push_str("; what arrived is not what was sent");
    }
    let figures =
        [("peerBytesPerSecond".to_owned(), there), ("peerBackBytesPerSecond".to_owned(), back)].into();
    Some(Finding { check: Check::Peer, passed: copied.is_right, words, figures })
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use super::*;
    use crate::cube::peer::Copied;

    #[test]
    fn a_link_is_judged_by_what_arrives() {
        let copied = Copied { seconds_there: 0.001, seconds_back: 0.002, is_right: true };
        let judged = |copied| judged(["cuda:0", "cuda:1"], copied);
        let good = judged(Ok(Some(copied))).expect("they reach each other");
        assert_eq!(
            (good.passed, good.words.as_str()),
            (true, "cuda:0 to cuda:1 268.4 GB/s, back 134.2 GB/s")
        );
        let bad = judged(Ok(Some(Copied { is_right: false, ..copied }))).expect("they reach each other");
        assert!(!bad.passed && bad.words.ends_with("not what was sent"), "{}", bad.words);
        let failed = judged(Err("Xid 74".to_owned())).expect("a failure is a finding");
        assert!(!failed.passed && failed.words.ends_with("Xid 74"), "{}", failed.words);
        assert_eq!(judged(Ok(None)), None, "nothing is said of those that do not");
        let content = content();
        assert_eq!(content.len(), BYTES);
        assert_ne!(content[..8], content[8..16]);
    }

    #[test]
    fn only_gpus_of_nvidia_are_peers_and_a_driver_that_is_missing_is_told() {
        assert_eq!(peer(["vulkan:0", "vulkan:1"], &mut |_, _| ()), None);
        if crate::cube::cuda::count() == 0 {
            let found = peer(["cuda:0", "cuda:1"], &mut |_, _| ()).expect("it is a failure");
            assert!(
                !found.passed && found.words.contains("cuda:0 to cuda:1: there is no lib"),
                "{}",
                found.words
            );
        }
    }
}
