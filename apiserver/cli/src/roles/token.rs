//! `clawbernetes token`: passes for machines that want to join.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use claw_apiserver::auth::new_join_token;
use claw_client::{Client, ResourceRef, Verb, endpoint::Trust};
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};

use crate::verbs::{Global, print};

/// Long enough to walk over to the machine, short enough to forget about.
const VALID_MINUTES: u64 = 60;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a token with which one machine can join once, and print the command that uses it
    Create(Create),
}

#[derive(Debug, clap::Args)]
pub struct Create {
    /// Minutes until the token expires
    #[arg(long, value_name = "MINUTES", default_value_t = VALID_MINUTES, value_parser = clap::value_parser!(u64).range(1..))]
    ttl: u64,
}

/// Makes a token and prints the whole command to type on the machine that joins.
pub async fn create(options: Create, global: Global) -> anyhow::Result<()> {
    let selected = global.select()?;
    let Trust::Roots(ca) = &selected.endpoint.trust else {
        bail!(
            "context \"{}\" has no certificate-authority, so there is nothing a joining machine could check the \
             server by; use the server's own admin.kubeconfig",
            selected.context
        );
    };
    let hash = authority_hash(ca)?;
    let ttl = Duration::from_secs(options.ttl.saturating_mul(60));
    let (token, secret) = new_join_token(ttl, Timestamp::now())?;
    let client = Client::connect(&selected.endpoint, "clawbernetes-token")?;
    let secrets = ResourceRef::collection("", "v1", "secrets").in_namespace("kube-system");
    let body = Bytes::from(secret.to_string());
    client
        .call(secrets, Verb::Create { body, options: client.write_options() })
        .await
        .context("the token cannot be stored")?;
    eprintln!("On the machine that joins, as root, within {} minutes:", options.ttl);
    let server = &selected.endpoint.server;
    if is_loopback(server) {
        eprintln!(
            "Only this machine reaches {server}: for others, start the server with --listen 0.0.0.0:6443 and \
             --advertise NAME_OR_ADDRESS."
        );
    }
    Ok(print(&format!("clawbernetes node --server {server} --token {token} --ca-hash {hash}\n"))?)
}

/// Whether a server's URL leads to the machine that asks.
fn is_loopback(server: &str) -> bool {
    let authority = server.split_once("://").map_or(server, |(_, rest)| rest);
    authority.starts_with("127.") || authority.starts_with("localhost") || authority.starts_with("[::1]")
}

/// `sha256:HEX` of the authority's certificate.
fn authority_hash(pem: &[u8]) -> anyhow::Result<String> {
    let certificate =
        CertificateDer::from_pem_slice(pem).context("the kubeconfig's certificate-authority")?;
    let digest = Sha256::digest(&certificate);
    Ok(digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}
