//! What a node may run short of: how much is too little, and which pod goes first. Pure.
//!
//! Figures and order are the kubelet's. Below a hard threshold somebody goes at once; below a soft one, once it has lasted.
//!
//! Must never know: how anything is measured, or how a pod is ended.

use std::{cmp::Reverse, collections::BTreeMap, str::FromStr, time::Duration};

use claw_schemas::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};

/// How long a node still counts as short after it was: what is short comes and goes.
const AFTER: SignedDuration = SignedDuration::from_mins(5);

/// What pods share and may take from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Good {
    /// Memory, in bytes.
    Memory,
    /// The disk that they write to, in bytes.
    Disk,
    /// Process numbers.
    Pids,
}

impl Good {
    /// In the order in which they are looked at.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Pids];

    /// As options have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Pids => "pids",
        }
    }

    /// As requests and messages have it.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Disk => "ephemeral-storage",
            other => other.name(),
        }
    }

    /// Type of the Node's condition.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pids => "PIDPressure",
        }
    }

    /// Reason and message of that condition, in the kubelet's words.
    pub fn words(self, is_short: bool) -> (&'static str, &'static str) {
        match (self, is_short) {
            (Self::Memory, true) => {
                ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
            }
            (Self::Memory, false) => {
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available")
            }
            (Self::Disk, true) => ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            (Self::Disk, false) => ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            (Self::Pids, true) => ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            (Self::Pids, false) => ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        }
    }
}

/// How much there is of a good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Nobody has it.
    pub available: u64,
    /// All there is.
    pub capacity: u64,
}

/// How little is too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// In units of the good.
    Units(u64),
    /// Of all there is.
    Percent(u8),
}

impl Amount {
    /// In units.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Units(units) => units,
            Self::Percent(percent) => {
                u64::try_from(u128::from(capacity) * u128::from(percent) / 100).unwrap_or(u64::MAX)
            }
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is neither an amount such as 100Mi nor a share such as 10%");
        match text.strip_suffix('%') {
            Some(percent) => {
                percent.parse().ok().filter(|percent| *percent <= 100).map(Self::Percent).ok_or_else(wrong)
            }
            None => {
                let quantity: Quantity = text.parse().map_err(|_| wrong())?;
                u64::try_from(quantity.units()).map(Self::Units).map_err(|_| wrong())
            }
        }
    }
}

/// Below which amounts pods are evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds(BTreeMap<Good, Amount>);

impl Default for Thresholds {
    /// The kubelet's; and some process numbers, without which nobody could even log in.
    fn default() -> Self {
        Self(BTreeMap::from([
            (Good::Memory, Amount::Units(100 << 20)),
            (Good::Disk, Amount::Percent(10)),
            (Good::Pids, Amount::Percent(5)),
        ]))
    }
}

/// Too little of a good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Of which.
    pub good: Good,
    /// What there should be.
    pub threshold: u64,
    /// What there is.
    pub available: u64,
}

impl Thresholds {
    /// Nobody is ever evicted.
    pub fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Takes one of them from `GOOD=AMOUNT`; nothing is too little of 0.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let form = || format!("{text}: use memory, disk or pids, an equals sign, and an amount or a share");
        let (name, amount) = text.split_once('=').ok_or_else(form)?;
        let good = Good::ALL.into_iter().find(|good| good.name() == name).ok_or_else(form)?;
        self.0.insert(good, amount.parse()?);
        Ok(())
    }

    /// The amount for a good of which there is so much.
    pub fn of(&self, good: Good, capacity: u64) -> u64 {
        self.0.get(&good).map_or(0, |amount| amount.of(capacity))
    }

    /// What there is too little of.
    pub fn shortages(&self, levels: &BTreeMap<Good, Level>) -> Vec<Shortage> {
        shortages(levels, |good| self.0.get(&good).copied())
    }
}

fn shortages(levels: &BTreeMap<Good, Level>, below: impl Fn(Good) -> Option<Amount>) -> Vec<Shortage> {
    let of = |(good, level): (&Good, &Level)| {
        let threshold = below(*good)?.of(level.capacity);
        let (good, available) = (*good, level.available);
        (available < threshold).then_some(Shortage { good, threshold, available })
    };
    levels.iter().filter_map(of).collect()
}

/// Below which amounts pods are evicted that may take their time, once it has lasted for so long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoftThresholds(BTreeMap<Good, (Amount, Duration)>);

impl SoftThresholds {
    /// Takes one of them from `GOOD=AMOUNT:TIME`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let form = || {
            format!(
                "{text}: use memory, disk or pids, an equals sign, an amount or a share, a colon, and how long"
            )
        };
        let (name, rest) = text.split_once('=').ok_or_else(form)?;
        let (amount, time) = rest.split_once(':').ok_or_else(form)?;
        let good = Good::ALL.into_iter().find(|good| good.name() == name).ok_or_else(form)?;
        let time: SignedDuration =
            time.parse().map_err(|_| format!("\"{time}\" is no time such as 90s or 1m30s"))?;
        let time = Duration::try_from(time).map_err(|_| form())?;
        self.0.insert(good, (amount.parse()?, time));
        Ok(())
    }

    /// What there is less of than there should be.
    pub fn shortages(&self, levels: &BTreeMap<Good, Level>) -> Vec<Shortage> {
        shortages(levels, |good| self.0.get(&good).map(|(amount, _)| *amount))
    }
}

/// Remembers since when there was less than there should be, without a break.
#[derive(Debug, Default)]
pub struct Patience(BTreeMap<Good, Timestamp>);

impl Patience {
    /// Takes in what is short now, and gives what has been for too long.
    pub fn overdue(
        &mut self,
        thresholds: &SoftThresholds,
        shortages: &[Shortage],
        now: Timestamp,
    ) -> Vec<Shortage> {
        self.0.retain(|good, _| shortages.iter().any(|shortage| shortage.good == *good));
        let mut overdue = shortages.to_vec();
        overdue.retain(|shortage| {
            let since = *self.0.entry(shortage.good).or_insert(now);
            let lasted = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            thresholds.0.get(&shortage.good).is_some_and(|(_, limit)| lasted >= *limit)
        });
        overdue
    }
}

/// Remembers what there was too little of.
#[derive(Debug, Default)]
pub struct Pressure(BTreeMap<Good, Timestamp>);

impl Pressure {
    /// Takes in what is short now.
    pub fn note(&mut self, shortages: &[Shortage], now: Timestamp) {
        self.0.extend(shortages.iter().map(|shortage| (shortage.good, now)));
        self.0.retain(|_, last| now.duration_since(*last) < AFTER);
    }

    /// Whether the node counts as short of a good.
    pub fn is_under(&self, good: Good) -> bool {
        self.0.contains_key(&good)
    }
}

/// A pod that could go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.priority`.
    pub priority: i32,
    /// What it asked for.
    pub requested: u64,
    /// What it has.
    pub used: u64,
}

/// The one that goes first: who uses more than it asked for; then by priority; then by how much more. Nobody has asked for
/// process numbers, so there it is priority, then how many. Who has nothing has nothing to give.
pub fn victim(good: Good, candidates: &[Candidate]) -> Option<&Candidate> {
    let rank = |one: &&Candidate| {
        let more = i128::from(one.used) - i128::from(one.requested);
        (good != Good::Pids && more > 0, Reverse(one.priority), more)
    };
    candidates.iter().filter(|one| one.used > 0).max_by_key(rank)
}

/// Why a pod was evicted, in the kubelet's words.
pub fn message(shortage: &Shortage, candidate: &Candidate) -> String {
    let Shortage { good, threshold, available } = shortage;
    let resource = good.resource();
    let (used, requested) = (amount(*good, candidate.used), amount(*good, candidate.requested));
    format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. \
         The pod was using {used}, request is {requested}, has larger consumption of {resource}. ",
        amount(*good, *threshold),
        amount(*good, *available),
    )
}

fn amount(good: Good, units: u64) -> String {
    if good == Good::Pids || units == 0 { units.to_string() } else { format!("{}Ki", units / 1024) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(uid: &str, priority: i32, requested: u64, used: u64) -> Candidate {
        Candidate { uid: uid.to_owned(), priority, requested, used }
    }

    #[test]
    fn who_uses_more_than_it_asked_for_goes_before_all_others_then_priority_decides_then_the_excess() {
        let modest = candidate("modest", 0, 500, 400);
        let greedy = candidate("greedy", 0, 100, 300);
        let greedier = candidate("greedier", 0, 0, 301);
        let important = candidate("important", 10, 0, 1000);
        let idle = candidate("idle", -5, 0, 0);
        let mut all = vec![modest, greedy, greedier, important, idle];
        let mut order = Vec::new();
        while let Some(first) = victim(Good::Memory, &all).map(|first| first.uid.clone()) {
            all.retain(|one| one.uid != first);
            order.push(first);
        }
        assert_eq!(order, ["greedier", "greedy", "important", "modest"], "who has nothing stays");
    }

    #[test]
    fn of_process_numbers_priority_decides_then_how_many() {
        let all = [candidate("many", 0, 0, 50), candidate("more", 0, 0, 60), candidate("most", 1, 0, 90)];
        assert_eq!(victim(Good::Pids, &all).unwrap().uid, "more");
        assert_eq!(victim(Good::Pids, &[]), None);
    }

    #[test]
    fn thresholds_are_amounts_or_shares_and_zero_is_none() {
        let mut thresholds = Thresholds::default();
        thresholds.set("memory=1Gi").unwrap();
        thresholds.set("pids=0").unwrap();
        let level = |available, capacity| Level { available, capacity };
        let levels = BTreeMap::from([
            (Good::Memory, level((1 << 30) - 1, 4 << 30)),
            (Good::Disk, level(99, 1000)),
            (Good::Pids, level(0, 100)),
        ]);
        let short: Vec<Good> = thresholds.shortages(&levels).iter().map(|shortage| shortage.good).collect();
        assert_eq!(short, [Good::Memory, Good::Disk]);
        assert_eq!(Thresholds::none().shortages(&levels), []);
        for wrong in ["memory", "ram=1", "disk=101%", "disk=much", "memory=-1"] {
            assert!(thresholds.set(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_may_take_its_time_goes_once_it_has_lasted_without_a_break() {
        let mut soft = SoftThresholds::default();
        soft.set("memory=50%:1m30s").unwrap();
        for wrong in
            ["memory=50%", "memory=50%:", "memory=50%:soon", "memory=50%:-1s", "ram=1:1s", "memory=x:1s"]
        {
            assert!(soft.set(wrong).is_err(), "{wrong}");
        }
        let levels = |available| BTreeMap::from([(Good::Memory, Level { available, capacity: 100 })]);
        let mut patience = Patience::default();
        let mut overdue = |available: u64, second: i64| {
            let now = Timestamp::from_second(second).unwrap();
            patience.overdue(&soft, &soft.shortages(&levels(available)), now).len()
        };
        assert_eq!((overdue(49, 0), overdue(49, 89), overdue(49, 90)), (0, 0, 1));
        assert_eq!((overdue(50, 91), overdue(49, 92), overdue(49, 181), overdue(49, 182)), (0, 0, 0, 1));
        assert!(SoftThresholds::default().shortages(&levels(0)).is_empty());
    }

    #[test]
    fn a_node_counts_as_short_for_five_minutes_after_it_was() {
        let second = |seconds| Timestamp::from_second(seconds).unwrap();
        let shortage = Shortage { good: Good::Disk, threshold: 10, available: 5 };
        let mut pressure = Pressure::default();
        pressure.note(&[shortage], second(0));
        pressure.note(&[], second(299));
        assert!(pressure.is_under(Good::Disk) && !pressure.is_under(Good::Memory));
        pressure.note(&[], second(300));
        assert!(!pressure.is_under(Good::Disk));
    }

    #[test]
    fn a_message_says_what_was_short_and_who_had_it() {
        let shortage = Shortage { good: Good::Memory, threshold: 100 << 20, available: 50 << 20 };
        assert_eq!(
            message(&shortage, &candidate("u", 0, 0, 2048)),
            "The node was low on resource: memory. Threshold quantity: 102400Ki, available: 51200Ki. \
             The pod was using 2Ki, request is 0, has larger consumption of memory. "
        );
    }
}
