//! What people type to name objects: `pods`, `deploy/web`, `pod a b`, `deploy,rs`, `all`.

use std::sync::Arc;

use anyhow::bail;
use claw_schemas::{Descriptor, Registry};

/// A kind, and the names asked for; none means the whole collection.
#[derive(Debug)]
pub struct Wanted {
    pub kind: Arc<Descriptor>,
    pub names: Vec<String>,
}

/// Reads the words after a verb. Equal kinds next to each other are joined.
pub fn parse(registry: &Registry, words: &[String]) -> anyhow::Result<Vec<Wanted>> {
    let Some(first) = words.first() else {
        bail!("name what you mean: a TYPE, TYPE NAME or TYPE/NAME, such as `pods` or `deploy/web`");
    };
    if words.iter().any(|word| word.contains('/')) {
        return slashed(registry, words);
    }
    let names = &words[1..];
    if let Some(empty) = names.iter().find(|name| name.is_empty()) {
        bail!("a name may not be empty: {empty:?}");
    }
    let mut wanted = Vec::new();
    for word in first.split(',').filter(|word| !word.is_empty()) {
        for kind in kinds(registry, word)? {
            wanted.push(Wanted { kind, names: names.to_vec() });
        }
    }
    Ok(wanted)
}

/// The one kind and name that a verb works on.
pub fn one(registry: &Registry, words: &[String]) -> anyhow::Result<(Arc<Descriptor>, String)> {
    let wanted = parse(registry, words)?;
    match wanted.as_slice() {
        [Wanted { kind, names }] if names.len() == 1 => Ok((Arc::clone(kind), names[0].clone())),
        _ => bail!("name exactly one object, as TYPE/NAME, such as `deploy/web`"),
    }
}

/// Objects by name alone: a collection is refused.
pub fn named(registry: &Registry, words: &[String]) -> anyhow::Result<Vec<Wanted>> {
    let wanted = parse(registry, words)?;
    if let Some(bare) = wanted.iter().find(|wanted| wanted.names.is_empty()) {
        bail!("name the {} you mean, as TYPE/NAME, such as `{}/web`", bare.kind.plural, bare.kind.singular);
    }
    Ok(wanted)
}

fn slashed(registry: &Registry, words: &[String]) -> anyhow::Result<Vec<Wanted>> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for word in words {
        let Some((kind, name)) = word.split_once('/') else {
            bail!("\"{word}\" has no name beside others that do: write all as TYPE/NAME");
        };
        if name.is_empty() || name.contains('/') {
            bail!("\"{word}\" is not of the form TYPE/NAME");
        }
        let kind = lookup(registry, kind)?;
        match wanted.last_mut().filter(|last| Arc::ptr_eq(&last.kind, &kind)) {
            Some(last) => last.names.push(name.to_owned()),
            None => wanted.push(Wanted { kind, names: vec![name.to_owned()] }),
        }
    }
    Ok(wanted)
}

/// The kinds of a category such as `all`, or the one kind of that name.
fn kinds(registry: &Registry, word: &str) -> anyhow::Result<Vec<Arc<Descriptor>>> {
    // Each object once, however many versions show it.
    let of_category: Vec<_> = registry
        .stored()
        .filter(|kind| kind.categories.iter().any(|category| category == word))
        .cloned()
        .collect();
    if of_category.is_empty() { Ok(vec![lookup(registry, word)?]) } else { Ok(of_category) }
}

fn lookup(registry: &Registry, word: &str) -> anyhow::Result<Arc<Descriptor>> {
    registry.named(word).cloned().ok_or_else(|| {
        anyhow::anyhow!(
            "the server doesn't have a resource type \"{word}\"; see `clawbernetes api-resources` for those it has"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> anyhow::Result<Vec<String>> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let wanted = parse(&Registry::builtin(), &words)?;
        Ok(wanted.iter().map(|w| format!("{} {}", w.kind.plural, w.names.join("+"))).collect())
    }

    #[test]
    fn every_way_to_name_objects_is_understood() {
        for (words, expected) in [
            ("po", vec!["pods "]),
            ("Deployment web db", vec!["deployments web+db"]),
            ("pod/a pod/b deploy/c", vec!["pods a+b", "deployments c"]),
            ("deploy,rs.apps", vec!["deployments ", "replicasets "]),
        ] {
            assert_eq!(read(words).unwrap(), expected, "{words}");
        }
        let all = read("all").unwrap();
        let mut once = all.clone();
        once.sort();
        once.dedup();
        assert!(all.len() > 2 && once.len() == all.len(), "{all:?}");
        assert_eq!(one(&Registry::builtin(), &["hpa/a".to_owned()]).unwrap().0.version, "v2");
    }

    #[test]
    fn what_is_not_understood_says_why() {
        for (words, expected) in [
            ("podz", "doesn't have a resource type \"podz\""),
            ("pod/a b", "\"b\" has no name"),
            ("pod/", "is not of the form TYPE/NAME"),
            ("pod/a/b", "is not of the form TYPE/NAME"),
        ] {
            let error = read(words).unwrap_err().to_string();
            assert!(error.contains(expected), "{words}: {error}");
        }
        assert!(parse(&Registry::builtin(), &[]).is_err());
        assert!(one(&Registry::builtin(), &["pods".to_owned()]).is_err());
        assert!(named(&Registry::builtin(), &["pods".to_owned()]).is_err());
    }
}
