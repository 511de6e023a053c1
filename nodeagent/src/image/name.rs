//! Names of images as people write them, read as docker reads them: `busybox` is
//! `docker.io/library/busybox:latest`.
//!
//! Read by hand: the expression that says the same took 7 MB, for as long as the agent lived.

use std::fmt;

use super::Digest;
use crate::Error;

/// Where names without a host are, and what it was called once.
const HUB: &str = "docker.io";
const HUB_LEGACY: &str = "index.docker.io";

/// Docker's figures.
const REPOSITORY_MAX: usize = 255;
const TAG_MAX: usize = 128;

const NO_FORM: &str = "invalid reference format";

/// A whole name. One with a digest means that content, whatever tag stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    registry: String,
    repository: String,
    version: Version,
}

/// Which of a repository's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// Whatever has this tag now.
    Tag(String),
    /// This one.
    Digest(Digest),
}

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// When it is none; in docker's words.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong =
            |why: &dyn fmt::Display| Error::Image(format!("couldn't parse image name \"{text}\": {why}"));
        let (tagged, digest) = match text.split_once('@') {
            Some((tagged, digest)) => (tagged, Some(Digest::parse(digest).map_err(|error| wrong(&error))?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(tagged);
        let (registry, repository) = split_host(name);
        let is_right = is_host(registry) && tag.is_none_or(is_tag);
        if let Some(why) = fault(repository).or((!is_right).then_some(NO_FORM)) {
            return Err(wrong(&why));
        }
        let registry = if registry == HUB_LEGACY { HUB } else { registry };
        let is_official = registry == HUB && !repository.contains('/');
        Ok(Self {
            registry: registry.to_owned(),
            repository: if is_official { format!("library/{repository}") } else { repository.to_owned() },
            version: digest.map_or_else(|| Version::Tag(tag.unwrap_or("latest").to_owned()), Version::Digest),
        })
    }

    /// Host, and port if it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path of the image on its registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Which of the repository's images.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Another image of the same repository.
    #[must_use]
    pub fn at(&self, digest: &Digest) -> Self {
        Self { version: Version::Digest(digest.clone()), ..self.clone() }
    }

    /// The same on another registry.
    #[must_use]
    pub(super) fn on(&self, registry: &str) -> Self {
        Self { registry: registry.to_owned(), ..self.clone() }
    }

    /// As it is asked for on the registry.
    pub(super) fn reference(&self) -> String {
        match &self.version {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digest) => digest.to_string(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (registry, repository) = (&self.registry, &self.repository);
        match &self.version {
            Version::Tag(tag) => write!(f, "{registry}/{repository}:{tag}"),
            Version::Digest(digest) => write!(f, "{registry}/{repository}@{digest}"),
        }
    }
}

/// A colon before a slash belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// The first part is a host if nothing else could be written so.
fn split_host(name: &str) -> (&str, &str) {
    let looks_like_host = |first: &str| {
        first == "localhost" || first.contains(['.', ':']) || first.contains(|c: char| c.is_ascii_uppercase())
    };
    name.split_once('/').filter(|(first, _)| looks_like_host(first)).unwrap_or((HUB, name))
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.split('.').all(is_label) && !port.is_empty() && port.chars().all(|c| c.is_ascii_digit())
}

fn is_tag(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    !text.is_empty() && text.len() <= TAG_MAX && !text.starts_with(['.', '-']) && text.chars().all(is_inner)
}

/// What is wrong with the path of an image on its registry.
fn fault(repository: &str) -> Option<&'static str> {
    if repository.is_empty() {
        return Some("repository name must have at least one component");
    }
    if repository.len() > REPOSITORY_MAX {
        return Some("repository name must not be more than 255 characters");
    }
    if repository.contains(|c: char| c.is_ascii_uppercase()) {
        return Some("repository name must be lowercase");
    }
    (!repository.split('/').all(is_component)).then_some(NO_FORM)
}

/// Lower-case letters and digits, between which stand a period, one underscore or two, or any number of hyphens.
fn is_component(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |part: &str| matches!(part, "" | "." | "_" | "__") || part.chars().all(|c| c == '-');
    text.starts_with(is_plain) && text.ends_with(is_plain) && text.split(is_plain).all(is_separator)
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Every time; what is here already is not fetched again.
    Always,
    /// If no image of that name is here.
    IfNotPresent,
    /// Never.
    Never,
}

impl Policy {
    /// What a container says, or what follows from its image's tag.
    pub fn of(said: Option<&str>, name: &Name) -> Self {
        match said {
            Some("Always") => Self::Always,
            Some("IfNotPresent") => Self::IfNotPresent,
            Some("Never") => Self::Never,
            _ if *name.version() == Version::Tag("latest".to_owned()) => Self::Always,
            _ => Self::IfNotPresent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_completes_them() {
        let hex = "0".repeat(64);
        for (written, whole) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1.36", "docker.io/library/busybox:1.36".to_owned()),
            ("nvidia/cuda", "docker.io/nvidia/cuda:latest".to_owned()),
            ("index.docker.io/library/busybox", "docker.io/library/busybox:latest".to_owned()),
            ("localhost/app:1", "localhost/app:1".to_owned()),
            ("localhost:5000/app", "localhost:5000/app:latest".to_owned()),
            ("reg.example.com:5000/team/app:v1", "reg.example.com:5000/team/app:v1".to_owned()),
            ("HOST/app", "HOST/app:latest".to_owned()),
            ("host:5000", "docker.io/library/host:5000".to_owned()),
            ("foo_bar.com:8080", "docker.io/library/foo_bar.com:8080".to_owned()),
            ("lowercase:Uppercase", "docker.io/library/lowercase:Uppercase".to_owned()),
            ("sub-dom1.foo.com/a/b__c/d--e.f:tag", "sub-dom1.foo.com/a/b__c/d--e.f:tag".to_owned()),
            (&format!("app:v1@sha256:{hex}"), format!("docker.io/library/app@sha256:{hex}")),
        ] {
            assert_eq!(Name::parse(written).unwrap().to_string(), whole, "{written}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_name() {
        let (long_name, long_tag) = ("a".repeat(256), format!("app:{}", "t".repeat(129)));
        for wrong in [
            "",
            "UPPER",
            "a b",
            "app:",
            "../x",
            "app@sha256:12",
            "https://reg/app",
            "app@md5:aa",
            ":tag",
            "a//b",
            "a/",
            "a.-b",
            "a___b",
            "-a",
            "a_",
            "app:.tag",
            "app:t\u{e4}g",
            "host:port/app",
            "-host.com/app",
            "a..com/app",
            "host.com/App",
            "host.com:/app",
            "@sha256:12",
            &long_name,
            &long_tag,
        ] {
            let error = Name::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("couldn't parse image name \"{wrong}\"")), "{error}");
        }
    }

    #[test]
    fn the_tag_decides_when_the_container_says_nothing() {
        let policy = |said, name: &str| Policy::of(said, &Name::parse(name).unwrap());
        assert_eq!(policy(None, "app"), Policy::Always);
        assert_eq!(policy(None, "app:v1"), Policy::IfNotPresent);
        assert_eq!(policy(None, &format!("app@sha256:{}", "0".repeat(64))), Policy::IfNotPresent);
        assert_eq!(policy(Some("Never"), "app"), Policy::Never);
    }
}
