//! The cluster's certificates: one authority, and what it issues to the server, the administrator and nodes.
//!
//! Everything lives in `DIR/pki`, keys with mode 0600. What is missing is made, what is about to expire
//! or no longer fits (a new host name or address) is issued again; the authority itself is never
//! replaced behind the operator's back, because every node would have to join again.
//!
//! Must never know: HTTP, the store, which requests are allowed.

mod authority;
mod facts;
mod files;
mod kubeconfig;
mod leaf;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use authority::{Authority, LEAF_LIFE};
pub use facts::{Facts, organizations_of_request};
pub use kubeconfig::CONTEXT;
pub use leaf::Leaf;

use crate::error::Error;

/// User name of the administrator's certificate.
pub const ADMIN_USER: &str = "kubernetes-admin";

/// Group whose members may do everything.
pub const ADMIN_GROUP: &str = "system:masters";

/// Leaves are issued again when they have less than this left. The authority lives ten years, leaves one: a
/// server that is restarted (or checks, see [`Pki::refresh`]) once a month never serves an expired one.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Random bytes of the administrator's bearer token: 256 bits cannot be guessed.
const ADMIN_TOKEN_BYTES: usize = 32;

/// The files of `DIR/pki` and what they hold.
pub struct Pki {
    folder: PathBuf,
    authority: Arc<Authority>,
    server: Leaf,
    admin: Leaf,
    admin_token: String,
    token_key: String,
}

impl Pki {
    /// Opens or makes the certificates of a data folder.
    ///
    /// # Errors
    /// When files cannot be read or written, or do not belong together.
    pub fn open(data_dir: &Path, names: &BTreeSet<String>) -> Result<Self, Error> {
        Self::open_at(data_dir, names, SystemTime::now())
    }

    fn open_at(data_dir: &Path, names: &BTreeSet<String>, now: SystemTime) -> Result<Self, Error> {
        let folder = data_dir.join("pki");
        files::private_folder(&folder)?;
        let authority = Arc::new(Authority::open(&folder, now)?);
        let server = leaf::server(&folder, &authority, names, now)?;
        let admin = leaf::client(&folder, "admin", &authority, ADMIN_USER, ADMIN_GROUP, now)?;
        let admin_token = admin_token(&data_dir.join("admin.token"))?;
        let token_key = leaf::bare_key(&folder, "service-accounts")?;
        Ok(Self { folder, authority, server, admin, admin_token, token_key })
    }

    /// Issues the server's certificate again if it is time to, and says whether it did.
    ///
    /// # Errors
    /// When it could not be issued or written.
    pub fn refresh(&mut self, names: &BTreeSet<String>) -> Result<bool, Error> {
        let before = self.server.certificate.clone();
        self.server = leaf::server(&self.folder, &self.authority, names, SystemTime::now())?;
        Ok(before != self.server.certificate)
    }

    /// The authority.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// The server's certificate and key.
    pub fn server(&self) -> &Leaf {
        &self.server
    }

    /// The administrator's certificate and key.
    pub fn admin(&self) -> &Leaf {
        &self.admin
    }

    /// The administrator's bearer token.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The key that signs tokens of service accounts, PEM.
    pub fn token_key(&self) -> &str {
        &self.token_key
    }

    /// Where that key is.
    pub fn token_key_path(&self) -> PathBuf {
        self.folder.join("service-accounts.key")
    }

    /// Writes a kubeconfig for the administrator, with everything embedded.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path, server_url: &str) -> Result<(), Error> {
        let text = kubeconfig::render(server_url, self.authority.certificate(), &self.admin);
        files::write_if_changed(path, text.as_bytes(), files::PRIVATE)
    }
}

/// Every name and address under which clients may know this server.
pub fn server_names(listen: SocketAddr, advertise: Option<&str>) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned)
    .into();
    if !listen.ip().is_unspecified() {
        names.insert(listen.ip().to_string());
    }
    names.extend(advertise.map(|address| host_of(address).to_owned()));
    names.extend(host_name());
    names
}

/// The host of `host`, `host:port` or `[v6]:port`.
pub(crate) fn host_of(address: &str) -> &str {
    if address.parse::<IpAddr>().is_ok() {
        return address;
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The kernel's name for this machine, if it can stand in a certificate.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim().to_ascii_lowercase();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!name.is_empty() && name.chars().all(fits)).then_some(name)
}

fn admin_token(path: &Path) -> Result<String, Error> {
    if let Some(text) = files::read_if_there(path)? {
        let token = text.trim();
        if token.len() >= 2 * ADMIN_TOKEN_BYTES {
            return Ok(token.to_owned());
        }
        return Err(Error::Certificate {
            path: path.to_owned(),
            problem: "holds no usable token; delete the file and a new one is made at the next start"
                .to_owned(),
        });
    }
    let token = crate::auth::random_hex(ADMIN_TOKEN_BYTES).map_err(Error::Random)?;
    files::write(path, format!("{token}\n").as_bytes(), files::PRIVATE)?;
    Ok(token)
}

#[cfg(test)]
mod tests;
