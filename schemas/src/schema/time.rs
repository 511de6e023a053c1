//! Times, in the one form in which clients in Go read them.
//!
//! RFC 3339 allows more than they take, and most parsers more than RFC 3339: an object with such a time could be stored,
//! and then no client could read the list that it is in.

use jiff::Timestamp;

/// `2006-01-02T15:04:05`
const CLOCK: &[u8] = b"0000-00-00T00:00:00";

/// Reads a time of the years 0 to 9999: `T` between date and time, upper case, `Z` or an offset at the end.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    let (clock, rest) = text.as_bytes().split_at_checked(CLOCK.len())?;
    let at_most = |at: usize, most: &[u8; 2]| clock[at..at + 2] <= most[..];
    let is_clock = is_like(clock, CLOCK) && at_most(11, b"23") && at_most(14, b"59") && at_most(17, b"59");
    if !is_clock || !is_zone(after_fraction(rest)?) {
        return None;
    }
    let time: Timestamp = text.parse().ok()?;
    // An offset may lead out of the years that can be written.
    in_seconds(time).starts_with(|first: char| first.is_ascii_digit()).then_some(time)
}

/// In whole seconds of UTC: a `Time`.
pub fn in_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// In microseconds of UTC, all of them: a `MicroTime`.
pub(super) fn in_micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Whether there is a digit where the pattern has one, and otherwise what it has.
fn is_like(text: &[u8], pattern: &[u8]) -> bool {
    let fits =
        |(found, wanted): (&u8, &u8)| if *wanted == b'0' { found.is_ascii_digit() } else { found == wanted };
    text.len() == pattern.len() && text.iter().zip(pattern).all(fits)
}

/// What follows a fraction of a second, if there is one.
fn after_fraction(rest: &[u8]) -> Option<&[u8]> {
    let Some(fraction) = rest.strip_prefix(b".") else { return Some(rest) };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (1..=9).contains(&digits).then(|| &fraction[digits..])
}

fn is_zone(zone: &[u8]) -> bool {
    let is_offset =
        |offset: &[u8]| is_like(offset, b"00:00") && offset[..2] <= b"23"[..] && offset[3..] <= b"59"[..];
    match zone.split_first() {
        Some((b'Z', rest)) => rest.is_empty(),
        Some((b'+' | b'-', offset)) => is_offset(offset),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_one_way_however_it_was_said() {
        for (said, seconds, micros) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"),
            ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456Z"),
            ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z", "2026-01-02T01:04:05.000000Z"),
            ("2026-01-02T03:04:05.5-00:30", "2026-01-02T03:34:05Z", "2026-01-02T03:34:05.500000Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
            ("1969-12-31T23:59:58.5Z", "1969-12-31T23:59:58Z", "1969-12-31T23:59:58.500000Z"),
        ] {
            let time = read(said).expect(said);
            assert_eq!((in_seconds(time).as_str(), in_micros(time).as_str()), (seconds, micros), "{said}");
        }
    }

    #[test]
    fn a_time_that_go_cannot_read_is_none() {
        for text in [
            "",
            "2026-01-02",
            "2026-01-02T03:04Z",
            "2026-01-02 03:04:05Z",
            "2026-01-02t03:04:05z",
            "20260102T030405Z",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05[Europe/Berlin]",
            "2026-01-02T03:04:05+02:00[Europe/Berlin]",
            "2026-01-02T03:04:05+02",
            "2026-01-02T03:04:05+0200",
            "2026-01-02T03:04:05,5Z",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:60Z",
            "2026-01-02T24:00:00Z",
            "2026-02-30T03:04:05Z",
            "2026-13-01T03:04:05Z",
            "-000001-01-02T03:04:05Z",
            "+002026-01-02T03:04:05Z",
            "0000-01-01T00:00:00+01:00",
            "2026-01-02T03:04:05ZZ",
            "2026-01-02T03:04:05+24:00",
            " 2026-01-02T03:04:05Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
