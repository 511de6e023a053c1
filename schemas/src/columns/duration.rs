//! Durations for people: two significant units at most, as `kubectl` prints them.

use jiff::Timestamp;
use serde_json::Value;

use super::UNKNOWN;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// How long ago a timestamp of the API was; `<unknown>` where there is none.
pub fn age(timestamp: &Value, now: Timestamp) -> String {
    timestamp
        .as_str()
        .and_then(|text| text.parse::<Timestamp>().ok())
        .map_or_else(|| UNKNOWN.to_owned(), |then| human_duration(now.as_second() - then.as_second()))
}

/// `42s`, `2m5s`, `5d2h`, `3y`: exact while it is short, coarse when it is long.
pub fn human_duration(seconds: i64) -> String {
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(seconds, MINUTE, "m", 1, "s"),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(seconds, HOUR, "h", MINUTE, "m"),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(seconds, DAY, "d", HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(seconds, YEAR, "y", DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// In a large and a small unit; the small one is left out when it is zero.
fn two(seconds: i64, large: i64, large_name: &str, small: i64, small_name: &str) -> String {
    let (whole, rest) = (seconds / large, seconds % large / small);
    if rest == 0 { format!("{whole}{large_name}") } else { format!("{whole}{large_name}{rest}{small_name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_prints_them() {
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (63, "63s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (439_200, "5d2h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (63_500_000, "2y4d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn a_missing_timestamp_has_no_age() {
        assert_eq!(age(&Value::Null, Timestamp::UNIX_EPOCH), "<unknown>");
        assert_eq!(age(&"nonsense".into(), Timestamp::UNIX_EPOCH), "<unknown>");
        assert_eq!(age(&"1970-01-01T00:00:00Z".into(), Timestamp::UNIX_EPOCH), "0s");
    }
}
