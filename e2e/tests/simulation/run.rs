//! One run: hosts, a time of faults, a time of quiet, and the questions at the end.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use claw_apiserver::pki::Pki;
use claw_e2e::dice::Dice;
use turmoil::{Builder, Sim};

use super::{
    checks, cluster, deployers,
    disk::Sabotage,
    electors,
    faults::{Faults, LATENCY_MS_MAX},
    net::{SERVER, Wire},
    os,
    server::{self, NODE_PREFIX},
    watchers,
    world::World,
    writers,
};

/// Every host runs for so long, then the next one; messages arrive between two steps. Shorter is closer to life, and costs more
/// than all that happens.
const TICK: Duration = Duration::from_millis(20);

/// How long things go wrong.
const FAULTS_MS: u64 = 12_000;

/// How long it may take after that until everybody knows everything: two pings that find a dead connection, the longest
/// pause of whoever tries again, and a watch that has to be opened anew.
const SETTLE_MS: u64 = 120_000;

/// How often it is looked whether everybody does.
const LOOK_MS: u64 = 500;

/// Segments a connection has room for, and connections a port.
const TCP_ROOM: usize = 1024;

/// What a client does.
#[derive(Clone, Copy, Debug)]
enum Part {
    Elector,
    Watcher,
    Cache,
    Writer,
    Deployer,
}

/// Twenty clients, two on a host: what the simulation of a network costs grows with the square of its hosts.
const CLIENTS: [[Part; 2]; 10] = [
    [Part::Elector, Part::Watcher],
    [Part::Elector, Part::Watcher],
    [Part::Elector, Part::Cache],
    [Part::Watcher, Part::Cache],
    [Part::Writer, Part::Writer],
    [Part::Writer, Part::Writer],
    [Part::Writer, Part::Writer],
    [Part::Writer, Part::Writer],
    [Part::Writer, Part::Deployer],
    [Part::Deployer, Part::Deployer],
];

/// Processes of controllers, of which one leads.
const CONTROLLERS: usize = 2;

const NODES: usize = 5;

/// How a run went.
pub struct Report {
    pub seed: u64,
    pub violations: Vec<String>,
    pub events: u64,
    pub fingerprint: u64,
    pub answers: usize,
    pub took_ms: u64,
    pub tail: String,
}

/// Runs a seed. The thread must have [`os::enter`]ed the simulation.
pub fn run(seed: u64, pki: Arc<Pki>, sabotage: Sabotage) -> Report {
    let world = World::new(seed, pki, sabotage);
    let dice = Dice::new(seed);
    let mut sim = Builder::new()
        .rng_seed(dice.throw())
        .enable_random_order()
        .epoch(std::time::SystemTime::now())
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(24 * 3600))
        .max_message_latency(Duration::from_millis(LATENCY_MS_MAX))
        .tcp_capacity(TCP_ROOM)
        .build();
    let hosts = populate(&mut sim, &world, &dice);
    let mut faults = Faults::new(dice.fork());
    let mut driver = Driver { sim, world: world.clone(), now_ms: 0 };
    driver.until(FAULTS_MS, |driver| {
        faults.step(&mut driver.sim, &driver.world, &hosts, driver.now_ms);
        false
    });
    let lost = faults.mend_all(&mut driver.sim, &world);
    world.be_quiet();
    let settled = driver.until(FAULTS_MS + SETTLE_MS, |driver| {
        driver.now_ms.is_multiple_of(LOOK_MS) && checks::unsettled(&driver.world, lost.as_deref()).is_none()
    });
    if !settled && let Some(problem) = checks::unsettled(&world, lost.as_deref()) {
        world.violated(format!("{SETTLE_MS} ms after the last fault {problem}"));
    }
    checks::check(&world);
    let took_ms = driver.now_ms;
    drop(driver);
    if os::panics() > 0 {
        world.violated(format!("{} tasks panicked", os::panics()));
    }
    report(&world, took_ms)
}

fn report(world: &World, took_ms: u64) -> Report {
    let (events, fingerprint) = world.trace.sum();
    let (violations, answers) = world.note(|notes| (notes.violations.clone(), notes.promises.len()));
    Report { seed: world.seed, violations, events, fingerprint, answers, took_ms, tail: world.trace.tail() }
}

struct Driver<'a> {
    sim: Sim<'a>,
    world: Arc<World>,
    now_ms: u64,
}

impl Driver<'_> {
    /// Steps until `done`, or until a moment; says whether it was done. Stops early at the first violation.
    fn until(&mut self, end_ms: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        while self.now_ms < end_ms {
            os::set_time(self.sim.elapsed());
            self.now_ms = u64::try_from(self.sim.elapsed().as_millis()).expect("hours, not centuries");
            self.world.trace.set_time(self.now_ms);
            if done(self) {
                return true;
            }
            if let Err(error) = self.sim.step() {
                self.world.violated(format!("a host failed: {error}"));
            }
            if self.world.note(|notes| !notes.violations.is_empty()) || os::panics() > 0 {
                return false;
            }
        }
        false
    }
}

/// Adds the server and the others; names those, which faults may befall too.
fn populate(sim: &mut Sim<'_>, world: &Arc<World>, dice: &Dice) -> Vec<(String, Wire)> {
    let serving = world.clone();
    sim.host(SERVER, move || server::run(serving.clone()));
    let mut hosts = Vec::new();
    for (number, parts) in CLIENTS.into_iter().enumerate() {
        let (name, wire) = (format!("clients-{number}"), *dice.pick(&[Wire::Http1, Wire::Http2, Wire::Grpc]));
        let (world, own, dice) = (world.clone(), name.clone(), dice.fork());
        sim.host(name.as_str(), move || {
            let [first, second] = parts;
            let client =
                |part, letter| client(part, world.clone(), format!("{own}{letter}"), wire, dice.fork());
            let both = futures::future::try_join(client(first, 'a'), client(second, 'b'));
            async move { both.await.map(drop) }
        });
        hosts.push((name, wire));
    }
    for number in 0..CONTROLLERS {
        let (name, dice) = (format!("controllers-{number}"), dice.fork());
        let own = name.clone();
        sim.host(name.as_str(), move || cluster::controllers(own.clone(), dice.fork()));
        hosts.push((name, Wire::Http2));
    }
    for number in 0..NODES {
        let name = format!("{NODE_PREFIX}{number}");
        let own = name.clone();
        sim.host(name.as_str(), move || cluster::node(own.clone()));
        hosts.push((name, Wire::Http2));
    }
    hosts
}

type Software = Pin<Box<dyn Future<Output = turmoil::Result>>>;

fn client(part: Part, world: Arc<World>, name: String, wire: Wire, dice: Dice) -> Software {
    match part {
        Part::Elector => Box::pin(electors::run(world, name, wire, dice)),
        Part::Watcher => Box::pin(watchers::by_hand(world, name, wire, dice)),
        Part::Cache => Box::pin(watchers::with_a_cache(world, name, wire)),
        Part::Writer => Box::pin(writers::run(world, name, wire, dice)),
        Part::Deployer => Box::pin(deployers::run(world, name, wire, dice)),
    }
}
