//! A real server through a bad time: killed, stopped, frozen, cut off from its clients, its history forgotten. Whatever
//! happens, every client's picture ends equal to what the server has, and nobody missed a change or saw one twice.
//!
//! [`SECONDS`] says how long it lasts: two minutes in the tests, half an hour in `make soak`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod followers;
mod pictures;
mod proxy;
mod writers;

use std::{
    env,
    time::{Duration, Instant},
};

use claw_e2e::{
    Cluster, Options,
    dice::Dice,
    http::{Credentials, Http},
    wait::{LATER, SOON, until_async},
};
use nix::sys::signal::Signal;
use tokio::time::sleep;

use self::{followers::Followers, pictures::Pictures, proxy::Proxy, writers::Writers};

/// How long the bad time lasts.
const SECONDS: &str = "SOAK_SECONDS";
const SECONDS_DEFAULT: u64 = 120;
/// Draws the same faults again, though not at the same moments.
const SEED: &str = "SOAK_SEED";

const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The server is killed, and started again.
    Kill,
    /// The server is stopped in order, and started again.
    Restart,
    /// The server does nothing for a while.
    Freeze,
    /// All connections of the clients break.
    Cut,
    /// Nothing passes between the server and the clients for a while.
    Hold,
    /// The same, while so much changes that the server forgets what the clients have not heard.
    Forget,
}

const FAULTS: [Fault; 6] =
    [Fault::Kill, Fault::Restart, Fault::Freeze, Fault::Cut, Fault::Hold, Fault::Forget];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_every_client_ends_with_what_the_server_has() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let lasts = Duration::from_secs(number(SECONDS).unwrap_or(SECONDS_DEFAULT));
    let seed = number(SEED).unwrap_or_else(|| u64::from(std::process::id()));
    println!("soak for {} s, {SEED}={seed}", lasts.as_secs());

    let dice = Dice::new(seed);
    let mut cluster = Cluster::start(Options::server());
    let proxy = Proxy::in_front_of(cluster.address()).await;
    let direct = Http::admin(&cluster);
    let http = Http::to(&proxy.url(), &Credentials::of(&cluster));
    let mut followers = Followers::start(&direct, &http);
    let pictures = Pictures::start(&cluster, &proxy).await;
    let mut writers = Writers::start(&http, &dice);

    let start = Instant::now();
    // Each kind of fault once in every round, in an order of its own.
    let mut round: Vec<Fault> = Vec::new();
    while start.elapsed() < lasts {
        sleep(Duration::from_millis(dice.between(500, 2_500))).await;
        if round.is_empty() {
            round.extend(FAULTS);
        }
        let next = usize::try_from(dice.below(round.len() as u64)).unwrap();
        let fault = round.swap_remove(next);
        println!("{:>5} s: {fault:?}", start.elapsed().as_secs());
        befall(fault, &mut cluster, &proxy, &direct, &dice).await;
        followers.are_well();
        writers.are_well();
    }
    let written = writers.stop().await;
    let list = direct.get(PATH).await.unwrap();
    written.are_in(&list).unwrap_or_else(|broken| panic!("{broken}"));
    until_async("every cache shows what is there", LATER, || std::future::ready(pictures.show(&list))).await;
    let (relists, told) = followers.end(&list).await;
    println!(
        "{} promises kept, {told} changes told, {relists} lists because of lost history",
        written.count()
    );
    assert!(relists > 0 || lasts < Duration::from_secs(60), "history was never lost: this proves too little");
}

async fn befall(fault: Fault, cluster: &mut Cluster, proxy: &Proxy, direct: &Http, dice: &Dice) {
    match fault {
        Fault::Kill => {
            cluster.kill();
            cluster.restart();
        }
        Fault::Restart => {
            assert_eq!(cluster.stop(), 0, "the server stops in order");
            cluster.restart();
        }
        Fault::Freeze => {
            cluster.signal(Signal::SIGSTOP);
            sleep(Duration::from_millis(dice.between(500, 4_000))).await;
            cluster.signal(Signal::SIGCONT);
        }
        Fault::Cut => proxy.cut(),
        Fault::Hold => {
            proxy.hold();
            sleep(Duration::from_millis(dice.between(500, 4_000))).await;
            proxy.release();
        }
        Fault::Forget => {
            proxy.hold();
            tokio::time::timeout(SOON, writers::outgrow_history(direct)).await.unwrap();
            proxy.release();
        }
    }
}
