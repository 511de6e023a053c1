//! What goes wrong, by the throw of dice: hosts crash and come back, links are held up, cut and slow, and somebody sets the
//! clock.
//!
//! A link that is held up delivers late what TCP would have sent again. A link that is cut loses what is on its way, and
//! the simulated TCP never sends anything twice: connections over it are dead without knowing. HTTP/2 pings find that
//! out; on HTTP/1.1 it is the kernel that would, which is not simulated, so those links are only held up.

use std::{collections::BTreeMap, time::Duration};

use claw_apiserver::store::Store as _;
use claw_e2e::dice::Dice;
use futures::FutureExt as _;
use turmoil::Sim;

use super::{
    net::{SERVER, Wire},
    os,
    server::NODE_PREFIX,
    trace::What,
    world::World,
};

/// Between two faults.
const PAUSE_MS: (u64, u64) = (50, 1200);

/// How many of a hundred faults befall the server. Each makes everybody list and watch anew, which is most of what a run costs.
const SERVER_PERCENT: u64 = 10;

/// How long a fault lasts. The longest outlast a lease, and the patience of pings.
const LASTS_MS: [(u64, u64); 3] = [(20, 300), (300, 3000), (3000, 25_000)];

/// The slowest link: slower than a client waits for an answer.
const SLOW_MS: (u64, u64) = (100, 5000);

/// As fast as links usually are.
pub const LATENCY_MS_MAX: u64 = 30;

/// One thing that is broken.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Down,
    Held,
    Cut,
    CutFrom,
    CutTo,
    Slow,
}

/// Breaks and mends.
pub struct Faults {
    dice: Dice,
    next_ms: u64,
    /// What is broken at a host, and until when.
    broken: BTreeMap<String, (Fault, u64)>,
}

impl Faults {
    pub fn new(dice: Dice) -> Self {
        Self { dice, next_ms: 0, broken: BTreeMap::new() }
    }

    /// Does what is due.
    pub fn step(&mut self, sim: &mut Sim<'_>, world: &World, hosts: &[(String, Wire)], now_ms: u64) {
        let due: Vec<_> =
            self.broken.iter().filter(|(_, (_, until))| *until <= now_ms).map(|(h, _)| h.clone()).collect();
        due.iter().for_each(|host| self.mend(sim, world, host));
        if now_ms < self.next_ms {
            return;
        }
        self.next_ms = now_ms + self.dice.between(PAUSE_MS.0, PAUSE_MS.1);
        if self.dice.percent(3) {
            let hours = self.dice.between(1, 100);
            os::set_wall_clock_ahead(Duration::from_secs(hours * 3600));
            return world.trace.add(What::Fault(format!("the clock is set {hours} h ahead")));
        }
        let (host, wire) = match self.dice.percent(SERVER_PERCENT) {
            true => (SERVER.to_owned(), Wire::Http1),
            false => self.dice.pick(hosts).clone(),
        };
        if !self.broken.contains_key(&host) {
            let (low, high) = *self.dice.pick(&LASTS_MS);
            let until = now_ms + self.dice.between(low, high);
            self.break_something(sim, world, host, wire, until);
        }
    }

    /// Mends everything. A node that is down then stays away for good, now and then; says which.
    pub fn mend_all(&mut self, sim: &mut Sim<'_>, world: &World) -> Option<String> {
        let is_lost =
            |host: &str, fault: Fault| host.starts_with(NODE_PREFIX) && matches!(fault, Fault::Down);
        let mut lost = None;
        let broken: Vec<_> = self.broken.iter().map(|(host, (fault, _))| (host.clone(), *fault)).collect();
        for (host, fault) in broken {
            if lost.is_none() && is_lost(&host, fault) && self.dice.percent(50) {
                world.trace.add(What::Fault(format!("{host} is lost")));
                lost = Some(host);
            } else {
                self.mend(sim, world, &host);
            }
        }
        lost
    }

    fn break_something(&mut self, sim: &mut Sim<'_>, world: &World, host: String, wire: Wire, until: u64) {
        let faults: &[Fault] = match wire {
            _ if host == SERVER => &[Fault::Down],
            Wire::Http1 => &[Fault::Down, Fault::Held, Fault::Slow],
            Wire::Http2 | Wire::Grpc => {
                &[Fault::Down, Fault::Held, Fault::Slow, Fault::Cut, Fault::CutFrom, Fault::CutTo]
            }
        };
        let fault = *self.dice.pick(faults);
        // A server that is away for long only makes the run boring.
        let until = if host == SERVER { until.min(self.next_ms + 3000) } else { until };
        let name = host.as_str();
        match fault {
            Fault::Down => sim.crash(name),
            Fault::Held => sim.hold(name, SERVER),
            Fault::Cut => sim.partition(name, SERVER),
            Fault::CutFrom => sim.partition_oneway(name, SERVER),
            Fault::CutTo => sim.partition_oneway(SERVER, name),
            Fault::Slow => {
                let slow = Duration::from_millis(self.dice.between(SLOW_MS.0, SLOW_MS.1));
                sim.set_link_max_message_latency(name, SERVER, slow);
            }
        }
        world.trace.add(What::Fault(format!("{host}: {fault:?} until {until} ms")));
        self.broken.insert(host, (fault, until));
    }

    fn mend(&mut self, sim: &mut Sim<'_>, world: &World, host: &str) {
        let Some((fault, _)) = self.broken.remove(host) else { return };
        match fault {
            Fault::Down => {
                if host == SERVER && self.dice.percent(40) {
                    forget_history(world);
                }
                sim.bounce(host);
            }
            Fault::Held => sim.release(host, SERVER),
            Fault::Cut => sim.repair(host, SERVER),
            Fault::CutFrom => sim.repair_oneway(host, SERVER),
            Fault::CutTo => sim.repair_oneway(SERVER, host),
            Fault::Slow => {
                sim.set_link_max_message_latency(host, SERVER, Duration::from_millis(LATENCY_MS_MAX));
            }
        }
        world.trace.add(What::Fault(format!("{host}: no longer {fault:?}")));
    }
}

/// What a server that was away comes back without: watches cannot go on from before.
fn forget_history(world: &World) {
    let revision = world.disk.revision();
    let compacted = world.disk.compact(revision).now_or_never();
    compacted.expect("the store in memory waits for nothing").expect("it is open");
    world.trace.add(What::Fault(format!("history up to {revision} is forgotten")));
}
