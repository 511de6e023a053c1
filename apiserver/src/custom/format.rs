//! The formats of text that are checked. Others are taken as they come, as Kubernetes takes those it does not know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{Timestamp, civil::Date};

use crate::validation::names;

/// A format that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    DateTime,
    Date,
    Duration,
    Byte,
    Uuid,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Hostname,
    Email,
    Uri,
    ShortName,
    LongName,
}

/// The names, as schemas write them.
const FORMATS: [(&str, Format); 15] = [
    ("date-time", Format::DateTime),
    ("datetime", Format::DateTime),
    ("date", Format::Date),
    ("duration", Format::Duration),
    ("byte", Format::Byte),
    ("uuid", Format::Uuid),
    ("ipv4", Format::Ipv4),
    ("ipv6", Format::Ipv6),
    ("cidr", Format::Cidr),
    ("mac", Format::Mac),
    ("hostname", Format::Hostname),
    ("email", Format::Email),
    ("uri", Format::Uri),
    ("k8s-short-name", Format::ShortName),
    ("k8s-long-name", Format::LongName),
];

impl Format {
    /// The format of that name, if it is one that is checked.
    pub fn of(name: &str) -> Option<Self> {
        FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        FORMATS.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }

    /// Whether a text has the format.
    pub fn accepts(self, text: &str) -> bool {
        match self {
            Self::DateTime => text.parse::<Timestamp>().is_ok(),
            Self::Date => text.len() == 10 && text.parse::<Date>().is_ok(),
            Self::Duration => duration_ns(text).is_some(),
            Self::Byte => STANDARD.decode(text).is_ok(),
            Self::Uuid => uuid::Uuid::try_parse(text).is_ok(),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Cidr => is_cidr(text),
            Self::Mac => is_mac(text),
            Self::Hostname | Self::LongName => names::dns_subdomain(&text.to_ascii_lowercase()).is_ok(),
            Self::Email => {
                text.split_once('@').is_some_and(|(who, host)| !who.is_empty() && !host.is_empty())
            }
            Self::Uri => {
                text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some() || text.starts_with('/'))
            }
            Self::ShortName => names::dns_label(text).is_ok(),
        }
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.bytes().all(|byte| byte.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    matches!(parts.len(), 6 | 8)
        && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Nanoseconds of a duration in the form of Go: `1h30m`, `-1.5s`, `250ms`.
pub(super) fn duration_ns(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0_f64;
    while !rest.is_empty() || total == 0.0 {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
        let amount: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit_ns = match &rest[..unit_end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += amount * unit_ns;
        rest = &rest[unit_end..];
        if rest.is_empty() {
            break;
        }
    }
    // 2^63 ns are 292 years, which is where Go ends, too.
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    (total < 9.2e18).then_some(if negative { -(total as i64) } else { total as i64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_takes_what_it_names() {
        for (name, sound, broken) in [
            (
                "date-time",
                &["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.5+02:00"][..],
                &["2026-01-02", "now"][..],
            ),
            ("date", &["2026-01-02"], &["2026-13-01", "2026-1-2"]),
            ("duration", &["1h30m", "0", "-1.5s", "250ms", "0s"], &["", "1", "h", "1x", "1h30", "."]),
            ("byte", &["", "aGk="], &["a*"]),
            ("uuid", &["67e55044-10b1-426f-9247-bb680e5fe0c8"], &["67e5"]),
            ("ipv4", &["10.0.0.1"], &["10.0.0.256", "::1"]),
            ("ipv6", &["::1"], &["10.0.0.1"]),
            ("cidr", &["10.0.0.0/8", "fd00::/64"], &["10.0.0.0", "10.0.0.0/33", "x/1", "10.0.0.0/+8"]),
            ("mac", &["01:23:45:67:89:ab", "01-23-45-67-89-ab"], &["01:23:45", "01:23:45:67:89:zz"]),
            ("hostname", &["a.example.com"], &["a..b", "-"]),
            ("email", &["a@b.c"], &["a", "@b"]),
            ("uri", &["https://example.com/x", "/a"], &["no spaces"]),
            ("k8s-short-name", &["a-b"], &["a.b", "A"]),
        ] {
            let format = Format::of(name).unwrap();
            for text in sound {
                assert!(format.accepts(text), "{name} {text}");
            }
            for text in broken {
                assert!(!format.accepts(text), "{name} {text}");
            }
        }
        assert_eq!(Format::of("isbn"), None);
    }

    #[test]
    fn durations_count_as_in_go() {
        for (text, ns) in
            [("1h", 3_600_000_000_000), ("-2m", -120_000_000_000), ("1s500ms", 1_500_000_000), ("3us", 3000)]
        {
            assert_eq!(duration_ns(text), Some(ns), "{text}");
        }
    }
}
