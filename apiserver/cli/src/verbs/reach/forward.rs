//! `port-forward`: ports of a pod, as ports of this machine.
//!
//! Each connection that comes is one of its own to the server, and one to the pod.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use claw_client::{Hearing, ResourceRef, Speaking};
use futures::future::select_all;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::part;
use crate::verbs::{
    context::Context,
    output::print,
    pods, resources,
    session::{Session, text},
};

const PROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
const ERROR: u8 = 1;
/// Ends the channel that is named.
const CLOSE: u8 = 255;

/// The number of the port, with which each channel begins.
const PORT_BYTES: usize = 2;

const BUFFER_BYTES: usize = 32 * 1024;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// POD or TYPE/NAME, such as `svc/web`
    target: String,
    /// LOCAL:REMOTE, :REMOTE for any free local port, or one number for both
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    ports: Vec<String>,
    /// Where to listen: addresses, or localhost
    #[arg(long, default_value = "localhost", value_delimiter = ',')]
    address: Vec<String>,
}

/// A pair of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    local: u16,
    /// As it was named.
    remote: String,
}

/// A port that is listened on.
struct Listening {
    listener: TcpListener,
    local: u16,
    remote: u16,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = Arc::new(context.session()?);
    let pairs: Vec<Pair> = args.ports.iter().map(|port| pair(port)).collect::<Result<_, _>>()?;
    let (pod, service) = target(&session, &args.target).await?;
    let phase = text(&pod, "/status/phase");
    if phase != "Running" {
        bail!("unable to forward port because pod is not running. Current status={phase}");
    }
    let resource = Arc::new(part(&session, &pod, "portforward")?);
    let mut all = Vec::new();
    for pair in &pairs {
        let remote = remote(&pair.remote, &pod, service.as_ref())?;
        all.extend(listen(&args.address, pair.local, remote).await?);
    }
    let serving =
        all.into_iter().map(|one| Box::pin(serve(one, Arc::clone(&session), Arc::clone(&resource))));
    select_all(serving).await.0
}

/// `8080:80`, `:80`, `80`.
fn pair(text: &str) -> anyhow::Result<Pair> {
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let number = |local: &str| local.parse::<u16>().ok();
    let local = match local {
        "" => Some(0),
        // The name of a port is any free one here.
        name if !text.contains(':') => number(name).or(Some(0)),
        local => number(local),
    };
    match local {
        Some(local) if !remote.is_empty() => Ok(Pair { local, remote: remote.to_owned() }),
        _ => bail!("\"{text}\": write ports as LOCAL:REMOTE, :REMOTE or PORT"),
    }
}

/// The pod, and the service that it is one of, if that was named.
async fn target(session: &Session, word: &str) -> anyhow::Result<(Value, Option<Value>)> {
    if word.contains('/') {
        let (kind, name) = resources::one(&session.registry, &[word.to_owned()])?;
        if kind.kind == "Service" {
            let service = session.get(&session.object(&kind, &name)).await?;
            return Ok((pods::of_owner(session, &kind, &service).await?, Some(service)));
        }
    }
    Ok((pods::meant(session, &[word.to_owned()]).await?, None))
}

/// The port of the pod that a number or a name means, by the service if there is one.
fn remote(named: &str, pod: &Value, service: Option<&Value>) -> anyhow::Result<u16> {
    let Some(service) = service else { return port_of(pod, named) };
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let number: Option<i64> = named.parse().ok();
    let is_it = |port: &&Value| port["name"] == named || number.is_some_and(|number| port["port"] == number);
    let Some(port) = ports.into_iter().find(is_it) else {
        bail!("service {} has no port {named}", text(service, "/metadata/name"));
    };
    match &port["targetPort"] {
        Value::String(name) => port_of(pod, name),
        Value::Number(number) => port_of(pod, &number.to_string()),
        _ => port_of(pod, &port["port"].to_string()),
    }
}

fn port_of(pod: &Value, named: &str) -> anyhow::Result<u16> {
    if let Ok(number) = named.parse::<u16>() {
        return Ok(number);
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let found = ports.find(|port| port["name"] == named).and_then(|port| port["containerPort"].as_u64());
    let found = found.and_then(|number| u16::try_from(number).ok());
    found.with_context(|| format!("pod {} has no port \"{named}\"", text(pod, "/metadata/name")))
}

async fn listen(addresses: &[String], local: u16, remote: u16) -> anyhow::Result<Vec<Listening>> {
    let mut all: Vec<Listening> = Vec::new();
    for address in addresses {
        let (wanted, is_both) = match address.as_str() {
            "localhost" => (vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)], true),
            address => (vec![address.parse().with_context(|| format!("--address {address}"))?], false),
        };
        for (at, ip) in wanted.into_iter().enumerate() {
            // Of a free port the second address gets what the first one got.
            let port = all.first().map_or(local, |first| first.local);
            let listener = match TcpListener::bind(SocketAddr::new(ip, port)).await {
                Ok(listener) => listener,
                // A machine without IPv6 has one localhost.
                Err(_) if is_both && at > 0 => continue,
                Err(error) => return Err(error).with_context(|| format!("listening on {ip} port {port}")),
            };
            let local = listener.local_addr()?;
            print(&format!("Forwarding from {local} -> {remote}\n"))?;
            all.push(Listening { listener, local: local.port(), remote });
        }
    }
    Ok(all)
}

async fn serve(
    listening: Listening,
    session: Arc<Session>,
    resource: Arc<ResourceRef>,
) -> anyhow::Result<()> {
    let Listening { listener, local, remote } = listening;
    loop {
        let (connection, _) = listener.accept().await?;
        print(&format!("Handling connection for {local}\n"))?;
        let (session, resource) = (Arc::clone(&session), Arc::clone(&resource));
        tokio::spawn(async move {
            if let Err(error) = carry(&session, &resource, remote, connection).await {
                eprintln!("error: {error:#}");
            }
        });
    }
}

/// One connection, from its first byte to its last.
async fn carry(session: &Session, resource: &ResourceRef, port: u16, local: TcpStream) -> anyhow::Result<()> {
    let query = [("ports".to_owned(), port.to_string())];
    let (speaking, hearing) = session.http.channels(resource, &query, PROTOCOL).await?;
    let (reader, writer) = local.into_split();
    tokio::select! {
        heard = hear(hearing, writer) => heard,
        never = say(reader, speaking) => match never {},
    }
}

/// Never returns: who has said everything still listens.
async fn say(mut reader: OwnedReadHalf, mut speaking: Speaking) -> Infallible {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let said = match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => speaking.say(DATA, &buffer[..length]).await,
        };
        if said.is_err() {
            break;
        }
    }
    let _ = speaking.say(CLOSE, &[DATA]).await;
    std::future::pending().await
}

async fn hear(mut hearing: Hearing, mut writer: OwnedWriteHalf) -> anyhow::Result<()> {
    let mut headings = [false; 2];
    while let Some(heard) = hearing.next().await {
        let (channel, mut data) = heard?;
        if let Some(heading) = headings.get_mut(usize::from(channel))
            && !std::mem::replace(heading, true)
        {
            data = data.split_off(PORT_BYTES.min(data.len()));
        }
        match channel {
            DATA => match writer.write_all(&data).await {
                Err(error) if is_gone(&error) => return Ok(()),
                written => written?,
            },
            ERROR if !data.is_empty() => bail!("{}", String::from_utf8_lossy(&data)),
            _ => {}
        }
    }
    let _ = writer.shutdown().await;
    Ok(())
}

/// Whoever connected has hung up, which is their right.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_pairs_in_the_three_forms_of_kubectl() {
        let of = |text: &str| pair(text).map(|pair| (pair.local, pair.remote)).ok();
        assert_eq!(of("8080:80"), Some((8080, "80".to_owned())));
        assert_eq!(of(":80"), Some((0, "80".to_owned())));
        assert_eq!(of("80"), Some((80, "80".to_owned())));
        assert_eq!(of("8080:http"), Some((8080, "http".to_owned())));
        assert_eq!(of("http"), Some((0, "http".to_owned())));
        for wrong in ["", ":", "a:80", "80:", "70000:80"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_port_is_found_by_number_by_name_and_through_a_service() {
        let pod = json!({"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [
            {"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": 9000}, {"port": 82},
        ]}});
        let of = |named: &str, service| remote(named, &pod, service).ok();
        assert_eq!((of("99", None), of("http", None), of("other", None)), (Some(99), Some(8080), None));
        for (named, port) in
            [("80", Some(8080)), ("a", Some(8080)), ("b", Some(9000)), ("82", Some(82)), ("83", None)]
        {
            assert_eq!(of(named, Some(&service)), port, "{named}");
        }
    }
}
