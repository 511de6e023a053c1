//! One agent after the other, and the holder in a thread in place of a process.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use super::*;

const NETWORK: &str = "4026531840";

pub(super) fn start(folder: &Path, network: &str) -> Result<Holder, Error> {
    Ok(begin(folder, network, Duration::from_secs(3_600)).0)
}

fn begin(folder: &Path, network: &str, away_limit: Duration) -> (Holder, thread::JoinHandle<()>) {
    let (wire, theirs) = wire::pair().unwrap();
    let holder = holder::Holder::begin(theirs, folder, network, away_limit).unwrap();
    (Holder { wire, process: None }, thread::spawn(|| holder.run().unwrap()))
}

fn listen() -> Result<OwnedFd, Error> {
    Ok(TcpListener::bind("127.0.0.1:0").unwrap().into())
}

fn never() -> Result<OwnedFd, Error> {
    panic!("there is one")
}

fn address(socket: OwnedFd) -> SocketAddr {
    TcpListener::from(socket).local_addr().unwrap()
}

#[test]
fn who_calls_while_no_agent_is_there_is_answered_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let first = Sockets::new(folder.path(), NETWORK.to_owned());
    let door = address(first.get("door", listen).unwrap());
    let port = address(first.get("port", listen).unwrap());
    drop(first);

    let mut caller = TcpStream::connect(door).unwrap();
    caller.write_all(b"who is there").unwrap();
    caller.shutdown(std::net::Shutdown::Write).unwrap();
    let second = Sockets::new(folder.path(), NETWORK.to_owned());
    let listener = TcpListener::from(second.get("door", never).unwrap());
    let mut said = String::new();
    listener.accept().unwrap().0.read_to_string(&mut said).unwrap();
    assert_eq!(said, "who is there");

    assert!(TcpStream::connect(port).is_ok(), "somebody may ask for it yet");
    second.close_unused();
    drop(second);
    let third = Sockets::new(folder.path(), NETWORK.to_owned());
    third.get("door", never).unwrap();
    assert!(TcpStream::connect(port).is_err(), "nobody wanted it");
    drop(listener);
    third.close("door");
    third.get("another", listen).unwrap();
    third.close_all();
    assert!(TcpStream::connect(door).is_err());
    assert!(wire::connect(folder.path(), SOCKET).is_err(), "the holder is gone");
}

#[test]
fn an_agent_that_stays_away_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let sockets = Sockets::new(folder.path(), NETWORK.to_owned());
    let (holder, running) = begin(folder.path(), NETWORK, Duration::ZERO);
    holder.join(NETWORK, &mut sockets.state.lock()).unwrap();
    let door = address(sockets.get("door", listen).unwrap());
    assert!(TcpStream::connect(door).is_ok());
    drop(sockets);
    running.join().unwrap();
    assert!(TcpStream::connect(door).is_err(), "who calls is refused");
}

#[test]
fn sockets_of_a_network_that_is_gone_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let first = Sockets::new(folder.path(), NETWORK.to_owned());
    let door = address(first.get("door", listen).unwrap());
    drop(first);
    let other = Sockets::new(folder.path(), "4026532000".to_owned());
    assert_ne!(address(other.get("door", listen).unwrap()), door);
    assert!(TcpStream::connect(door).is_err());
}

#[tokio::test]
async fn a_holder_that_was_killed_is_replaced_and_given_everything() {
    let folder = tempfile::tempdir().unwrap();
    let first = Sockets::new(folder.path(), NETWORK.to_owned());
    let door = address(first.get("door", listen).unwrap());
    let wire = first.state.lock().holder.as_ref().unwrap().wire.try_clone().unwrap();
    wire::send(&wire, &Message::End, None).unwrap();
    first.tend().await;
    drop(first);
    let second = Sockets::new(folder.path(), NETWORK.to_owned());
    assert_eq!(address(second.get("door", never).unwrap()), door);
}
