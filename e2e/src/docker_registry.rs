//! Debian's docker-registry on the loopback address, and pushes to it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use claw_nodeagent::image::Digest;

use crate::wait;

/// Of `sesame`, as htpasswd keeps it.
const SESAME: &str = "app:$2b$04$kUT3ZG7oT6mOToPHxcuQq.vm/aStmPCWvltJgqhd0TPr.hpSCXGWG\n";

/// The process; killed with it.
pub struct DockerRegistry {
    /// `127.0.0.1:PORT`
    pub host: String,
    child: Child,
    authorization: String,
}

impl DockerRegistry {
    /// One that anybody may read and write.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        Self::start(folder, "")
    }

    /// One that wants a password: `app` and `sesame`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn closed(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("the folder is writable");
        let passwords = folder.join("htpasswd");
        fs::write(&passwords, SESAME).expect("the folder is writable");
        let auth = format!("auth:\n  htpasswd:\n    realm: story\n    path: {}\n", passwords.display());
        let mut registry = Self::start(folder, &auth);
        // `app:sesame`
        registry.authorization = "authorization: Basic YXBwOnNlc2FtZQ==\r\n".to_owned();
        registry
    }

    fn start(folder: &Path, more: &str) -> Self {
        fs::create_dir_all(folder).expect("the folder is writable");
        let config = folder.join("config.yml");
        let data = folder.join("data");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{more}",
            data.display()
        );
        fs::write(&config, text).expect("the folder is writable");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("docker-registry starts");
        let said = BufReader::new(child.stderr.take().expect("it is piped"));
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                if let Some(rest) = line.split("listening on ").nth(1) {
                    let host = rest.split(['"', ' ', ',']).next().unwrap_or_default().to_owned();
                    let _ = sender.send(host);
                }
            }
        });
        let host = receiver.recv_timeout(wait::SOON).expect("docker-registry says where it listens");
        Self { host, child, authorization: String::new() }
    }

    /// Puts an image under `REPOSITORY:TAG`, and gives its whole name.
    ///
    /// # Panics
    /// When the registry does not take it.
    pub fn push<'a>(
        &self,
        name: &str,
        (media_type, manifest): (&str, &[u8]),
        blobs: impl IntoIterator<Item = &'a [u8]>,
    ) -> String {
        let (repository, tag) = name.split_once(':').expect("a name has a tag");
        for blob in blobs {
            self.push_blob(repository, blob);
        }
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, headers, body) = self.ask("PUT", &path, media_type, manifest);
        assert_eq!(status, 201, "{headers}{body}");
        format!("{}/{name}", self.host)
    }

    fn push_blob(&self, repository: &str, blob: &[u8]) {
        let (status, headers, _) = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
        assert_eq!(status, 202, "{headers}");
        let location = headers.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("location").then(|| value.trim())
        });
        let location = location.expect("an upload has a place");
        let path =
            location.split_once("://").map_or(location, |(_, rest)| &rest[rest.find('/').unwrap_or(0)..]);
        let path = format!("{path}&digest={}", Digest::of(blob));
        let (status, headers, _) = self.ask("PUT", &path, "application/octet-stream", blob);
        assert_eq!(status, 201, "{headers}");
    }

    fn ask(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.host).expect("docker-registry listens");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: {media_type}\r\n\
             content-length: {}\r\n{}\r\n",
            self.host,
            body.len(),
            self.authorization
        );
        stream.write_all(&[head.as_bytes(), body].concat()).expect("docker-registry reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("docker-registry answers");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, head.to_owned(), body.to_owned())
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
