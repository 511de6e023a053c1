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

/// Every host runs for so long, then the next one; messages arrive between two steps.
const TICK: Duration = Duration::from_millis(10);

/// How long things go wrong.
const FAULTS_MS: u64 = 20_000;

/// How long it may take after that until everybody knows everything: two pings that find a dead connection, the longest
/// pause of whoever tries again, and a watch that has to be opened anew.
const SETTLE_MS: u64 = 120_000;

/// How often it is looked whether everybody does.
const LOOK_MS: u64 = 500;

/// Segments a connection has room for, and connections a port.
const TCP_ROOM: usize = 1024;

/// What a host does, beside the server.
#[derive(Clone, Copy, Debug)]
enum Part {
    Elector,
    Watcher,
    Cache,
    Writer,
    Deployer,
    Controllers,
    Node,
}

/// Twenty clients, two processes of controllers, five nodes.
const HOSTS: [(Part, usize); 7] = [
    (Part::Elector, 3),
    (Part::Watcher, 3),
    (Part::Cache, 2),
    (Part::Writer, 9),
    (Part::Deployer, 3),
    (Part::Controllers, 2),
    (Part::Node, 5),
];

/// How a run went.
pub struct Report {
    pub seed: u64,
    pub violations: Vec<String>,
    pub events: u64,
    pub fingerprint: u64,
    pub answers: usize,
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
    drop(driver);
    if os::panics() > 0 {
        world.violated(format!("{} tasks panicked", os::panics()));
    }
    report(&world)
}

fn report(world: &World) -> Report {
    let (events, fingerprint) = world.trace.sum();
    let (violations, answers) = world.note(|notes| (notes.violations.clone(), notes.promises.len()));
    Report { seed: world.seed, violations, events, fingerprint, answers, tail: world.trace.tail() }
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
    let parts = HOSTS.iter().flat_map(|(part, count)| std::iter::repeat_n(*part, *count));
    let mut hosts = Vec::new();
    for (number, part) in parts.enumerate() {
        let (name, wire) = match part {
            Part::Node => (format!("{NODE_PREFIX}{number}"), Wire::Http2),
            Part::Controllers => (format!("controllers-{number}"), Wire::Http2),
            _ => (format!("client-{number}"), *dice.pick(&[Wire::Http1, Wire::Http2, Wire::Grpc])),
        };
        let (world, own, dice) = (world.clone(), name.clone(), dice.fork());
        sim.host(name.as_str(), move || host(part, world.clone(), own.clone(), wire, dice.fork()));
        hosts.push((name, wire));
    }
    hosts
}

type Software = Pin<Box<dyn Future<Output = turmoil::Result>>>;

fn host(part: Part, world: Arc<World>, name: String, wire: Wire, dice: Dice) -> Software {
    match part {
        Part::Elector => Box::pin(electors::run(world, name, wire, dice)),
        Part::Watcher => Box::pin(watchers::by_hand(world, name, wire, dice)),
        Part::Cache => Box::pin(watchers::with_a_cache(world, name, wire)),
        Part::Writer => Box::pin(writers::run(world, name, wire, dice)),
        Part::Deployer => Box::pin(deployers::run(world, name, wire, dice)),
        Part::Controllers => Box::pin(cluster::controllers(name, dice)),
        Part::Node => Box::pin(cluster::node(name)),
    }
}
