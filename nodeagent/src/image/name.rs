//! Names of images as people write them, read as docker reads them: `busybox` is
//! `docker.io/library/busybox:latest`.

use std::fmt;

use oci_spec::distribution::Reference;

use super::Digest;
use crate::Error;

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
        let reference: Reference = text.parse().map_err(|error| wrong(&error))?;
        let version = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Version::Digest(Digest::parse(digest).map_err(|error| wrong(&error))?),
            (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        let (mut registry, mut repository) =
            (reference.registry().to_owned(), reference.repository().to_owned());
        // Only hosts have upper-case letters, so that is what docker takes it for.
        if repository.contains(|c: char| c.is_ascii_uppercase())
            && let Some((host, path)) = repository.split_once('/')
        {
            (registry, repository) = (host.to_owned(), path.to_owned());
        }
        Ok(Self { registry, repository, version })
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
            (&format!("app:v1@sha256:{hex}"), format!("docker.io/library/app@sha256:{hex}")),
        ] {
            assert_eq!(Name::parse(written).unwrap().to_string(), whole, "{written}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_name() {
        for wrong in ["", "UPPER", "a b", "app:", "../x", "app@sha256:12", "https://reg/app", "app@md5:aa"] {
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
