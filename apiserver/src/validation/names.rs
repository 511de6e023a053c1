//! The grammars of names: RFC 1123 labels and subdomains, qualified names, ports, keys.
//!
//! Source: "Object Names and IDs" and "Labels and Selectors" in the Kubernetes documentation. Each function gives what
//! is wrong, as the rest of an `Invalid value` message, or nothing.

use std::net::IpAddr;

/// Longest label of a DNS name and name part of a label key, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// Longest DNS name, in bytes.
const SUBDOMAIN_BYTES_MAX: usize = 253;
/// Longest service name of RFC 6335.
const PORT_NAME_BYTES_MAX: usize = 15;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const QUALIFIED: &str = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

pub(super) type Verdict = Result<(), String>;
/// Says whether a text follows a rule.
pub(super) type Grammar = fn(&str) -> Verdict;

/// `web-1`
pub(crate) fn dns_label(name: &str) -> Verdict {
    at_most(name, LABEL_BYTES_MAX)?;
    demand(is_label(name), LABEL)
}

/// `web.example.com`
pub(crate) fn dns_subdomain(name: &str) -> Verdict {
    at_most(name, SUBDOMAIN_BYTES_MAX)?;
    demand(name.split('.').all(is_label), SUBDOMAIN)
}

/// `app`, `example.com/app`
pub(crate) fn qualified(name: &str) -> Verdict {
    let (prefix, part) = match name.split_once('/') {
        Some((prefix, part)) => (Some(prefix), part),
        None => (None, name),
    };
    if part.contains('/') {
        return Err(QUALIFIED.to_owned());
    }
    match prefix {
        Some("") => return Err("prefix part must be non-empty".to_owned()),
        Some(prefix) => dns_subdomain(prefix).map_err(|why| format!("prefix part {why}"))?,
        None => {}
    }
    demand(!part.is_empty(), "name part must be non-empty")?;
    at_most(part, LABEL_BYTES_MAX).map_err(|why| format!("name part {why}"))?;
    demand(is_label_text(part), NAME_PART)
}

/// The value of a label.
pub(crate) fn label_value(value: &str) -> Verdict {
    at_most(value, LABEL_BYTES_MAX)?;
    demand(value.is_empty() || is_label_text(value), LABEL_VALUE)
}

/// A key of a ConfigMap or a Secret, which may become a file name.
pub(crate) fn config_key(key: &str) -> Verdict {
    at_most(key, SUBDOMAIN_BYTES_MAX)?;
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    demand(!key.is_empty() && key.chars().all(sound), KEY)?;
    match key {
        "." => Err("must not be '.'".to_owned()),
        ".." => Err("must not be '..'".to_owned()),
        _ if key.starts_with("..") => Err("must not start with '..'".to_owned()),
        _ => Ok(()),
    }
}

/// The name of an environment variable.
pub(crate) fn env(name: &str) -> Verdict {
    demand(!name.is_empty() && name.chars().all(|c| matches!(c, ' '..='~') && c != '='), ENV)
}

/// The name of a port: `http`, `metrics-2`.
pub(crate) fn port(name: &str) -> Verdict {
    if name.len() > PORT_NAME_BYTES_MAX {
        return Err(format!("must be no more than {PORT_NAME_BYTES_MAX} characters"));
    }
    let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    demand(name.chars().all(sound), "must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)")?;
    demand(name.chars().any(|c| c.is_ascii_lowercase()), "must contain at least one letter (a-z)")?;
    demand(!name.contains("--"), "must not contain consecutive hyphens")?;
    demand(!name.starts_with('-') && !name.ends_with('-'), "must not begin or end with a hyphen")
}

/// The number of a port.
pub(crate) fn port_number(number: i64) -> Verdict {
    demand((1..=65535).contains(&number), "must be between 1 and 65535, inclusive")
}

/// `web-1`, but not `1-web`: names of services.
pub(crate) fn dns_label_1035(name: &str) -> Verdict {
    at_most(name, LABEL_BYTES_MAX)?;
    demand(is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()), LABEL_1035)
}

/// `*.example.com`
pub(super) fn wildcard_subdomain(name: &str) -> Verdict {
    at_most(name, SUBDOMAIN_BYTES_MAX)?;
    demand(name.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label)), WILDCARD)
}

/// Whatever can stand between two slashes of a path.
pub(super) fn path_segment(name: &str) -> Verdict {
    match name {
        "." => Err("may not be '.'".to_owned()),
        ".." => Err("may not be '..'".to_owned()),
        _ if name.contains('/') => Err("may not contain '/'".to_owned()),
        _ if name.contains('%') => Err("may not contain '%'".to_owned()),
        _ => Ok(()),
    }
}

/// `example.com/controller`
pub(super) fn domain_path(name: &str) -> Verdict {
    let sound = |(domain, path): (&str, &str)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=:/".contains(c);
        dns_subdomain(domain).is_ok() && !path.is_empty() && path.chars().all(plain)
    };
    let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
    demand(name.split_once('/').is_some_and(sound), why)
}

/// `hook.example.com`
pub(super) fn domain_of_three(name: &str) -> Verdict {
    let why = "should be a domain with at least three segments separated by dots";
    demand(name.split('.').count() >= 3, why)?;
    dns_subdomain(name)
}

/// An IP address of either kind.
pub(super) fn ip(text: &str) -> Verdict {
    demand(text.parse::<IpAddr>().is_ok(), IP)
}

/// An IP address as this server would write it.
pub(super) fn canonical_ip(text: &str) -> Verdict {
    let canonical = text.parse::<IpAddr>().is_ok_and(|ip| ip.to_string() == text);
    demand(canonical, "must be a valid IP address in canonical form")
}

/// `10.9.8.0/24`
pub(super) fn cidr(text: &str) -> Verdict {
    demand(network(text).is_some(), CIDR)
}

/// Address and prefix length of a CIDR.
pub(super) fn network(cidr: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = cidr.split_once('/')?;
    let (address, length) = (address.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?);
    let bits = if address.is_ipv4() { 32 } else { 128 };
    (length <= bits && cidr.ends_with(&format!("/{length}"))).then_some((address, length))
}

fn demand(holds: bool, otherwise: &str) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn at_most(text: &str, bytes_max: usize) -> Verdict {
    if text.len() > bytes_max { Err(format!("must be no more than {bytes_max} bytes")) } else { Ok(()) }
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks which texts a grammar takes and which it refuses.
    fn grammar(verdict: fn(&str) -> Verdict, sound: &[&str], broken: &[&str]) {
        for text in sound {
            assert_eq!(verdict(text), Ok(()), "{text}");
        }
        for text in broken {
            assert!(verdict(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_grammar_takes_what_it_documents() {
        let long = "x".repeat(64);
        let longer = "x".repeat(254);
        grammar(dns_label, &["a", "0", "a-b", "a--b"], &["", "A", "-a", "a-", "a.b", "a_b", "ä", &long]);
        grammar(dns_subdomain, &["a", "a.b-c.0", &long], &["", ".", "a.", ".a", "a..b", "a_b", &longer]);
        grammar(
            qualified,
            &["app", "App_1.x", "example.com/app"],
            &["", "/app", "a/", "a/b/c", "-a", "Example.com/app", &long],
        );
        grammar(label_value, &["", "a", "A_b.c-1"], &["-", "a b", "a/b", &long]);
        grammar(config_key, &["a", ".hidden", "a.b_C-1"], &["", ".", "..", "..a", "a/b", "a b", &longer]);
        grammar(env, &["A", "a.b", "1 x", "PATH"], &["", "A=B", "ä", "a\n"]);
        grammar(dns_label_1035, &["a", "a-1"], &["1a", "", "A", "a.b", &long]);
        grammar(wildcard_subdomain, &["*.a", "*.a.b"], &["a", "*", "*.", "*a.b", "a.*.b"]);
        grammar(path_segment, &["system:node", "a.b", "Ä"], &[".", "..", "a/b", "a%b"]);
        grammar(domain_path, &["a.io/x", "a/b/c"], &["a", "/a", "a/", "A_/b", "a/b c"]);
        grammar(domain_of_three, &["a.b.c"], &["a.b", "a.b.", "A.b.c"]);
        grammar(ip, &["10.0.0.1", "::1"], &["", "10.0.0", "010.0.0.1", "localhost"]);
        grammar(canonical_ip, &["10.0.0.1", "::1"], &["0:0::1", "x"]);
        grammar(cidr, &["10.0.0.0/8", "::/0"], &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "x/8", "::/129"]);
        grammar(port, &["http", "a-1"], &["", "80", "HTTP", "a--b", "-a", "a-", "averyveryverylongname"]);
    }

    #[test]
    fn ports_have_sixteen_bits_and_are_not_zero() {
        assert!(port_number(1).is_ok() && port_number(65535).is_ok());
        assert!(port_number(0).is_err() && port_number(65536).is_err() && port_number(-1).is_err());
    }
}
