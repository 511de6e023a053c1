//! What a registry answers to who is nobody yet: `WWW-Authenticate: Bearer realm="…",service="…"`. Source: RFC 9110.

use std::collections::BTreeMap;

/// One way to become somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// In lower case: `bearer`, `basic`.
    pub scheme: String,
    /// Names in lower case.
    pub parameters: BTreeMap<String, String>,
}

/// Reads a header, which may hold several.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let after = after.trim_start();
        if let Some(value) = after.strip_prefix('=') {
            let (value, after) = value_of(value.trim_start());
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.insert(word.to_lowercase(), value);
            }
            rest = after;
        } else {
            challenges.push(Challenge { scheme: word.to_lowercase(), parameters: BTreeMap::new() });
            rest = after;
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    challenges
}

fn token(text: &str) -> (&str, &str) {
    let ends = |c: char| matches!(c, ' ' | '\t' | ',' | '=' | '"');
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Challenge { scheme: scheme.to_owned(), parameters: parameters.collect() }
    }

    #[test]
    fn challenges_are_read_with_their_quotes_and_commas() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let expected = [
            ("realm", "https://auth.docker.io/token"),
            ("service", "registry.docker.io"),
            ("scope", "repository:a/b:pull,push"),
        ];
        assert_eq!(parse(hub), [challenge("bearer", &expected)]);
        assert_eq!(
            parse(r#"Basic realm="a \"b\"", BEARER Realm=x , service=y"#),
            [
                challenge("basic", &[("realm", "a \"b\"")]),
                challenge("bearer", &[("realm", "x"), ("service", "y")])
            ]
        );
        assert!(parse("").is_empty());
        assert!(parse("realm=x").is_empty());
        assert_eq!(parse(r#"Bearer realm="open"#), [challenge("bearer", &[("realm", "open")])]);
        assert!(parse("\"\"==").is_empty());
    }
}
