//! Leader election on a `coordination.k8s.io` Lease: of several processes, one acts.
//!
//! Expected flow: [`Election::lead`] waits until it holds the lease, runs the work, renews beside it, and cancels it
//! when a renewal does not get through in time; then it stands for election again.
//!
//! Guarantees: a holder stops acting ([`Leadership::is_held`] turns false) before another may take over, as long as
//! clocks run at about the same rate; clocks need not agree on the time, because everybody measures how long a
//! lease was unchanged *as seen from here*. Every change of holder raises the epoch (`leaseTransitions`).
//!
//! Assumption: an identity names one process at a time. A process that takes over from its own identity (a restart
//! under a lock, such as that of a data folder) does so at once, with a new epoch.
//!
//! Must never know: what the leader does.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use claw_client::{Api, ApiError, Client};
use claw_schemas::status::Reason;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::env::Env;

/// A lease unchanged for this long is free. Kubernetes' own figure.
pub const LEASE: Duration = Duration::from_secs(15);

/// The holder stops acting when it could not renew for this long: 5 s before others may take over.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// Between renewals, and between looks at somebody else's lease: four tries before the deadline.
const PERIOD: Duration = Duration::from_millis(2500);

/// Spread of the looks of those that wait, in percent.
const PERIOD_JITTER_PERCENT: u32 = 20;

/// The right to act. Cheap to clone.
#[derive(Clone)]
pub struct Leadership {
    term: Option<Arc<Term>>,
}

struct Term {
    env: Env,
    epoch: u64,
    /// Uptime in nanoseconds until which it is certain that nobody else leads; 0 once given up.
    until: AtomicU64,
}

impl Leadership {
    /// For a process that cannot have rivals, because something else (the lock on a data folder) sees to that.
    pub const fn unchallenged() -> Self {
        Self { term: None }
    }

    /// Whether it is certain that nobody else acts.
    pub fn is_held(&self) -> bool {
        self.term.as_ref().is_none_or(|term| nanos(term.env.uptime()) < term.until.load(Ordering::Acquire))
    }

    /// Grows with every change of leader; 0 without rivals.
    pub fn epoch(&self) -> u64 {
        self.term.as_ref().map_or(0, |term| term.epoch)
    }

    pub(crate) fn lost(&self) -> ApiError {
        let epoch = self.epoch();
        let message =
            format!("not carried out: the leader lease of epoch {epoch} was lost, another process leads");
        ApiError::new(Reason::ServiceUnavailable, message)
    }

    fn extend(&self, until: Duration) {
        if let Some(term) = &self.term {
            term.until.store(nanos(until), Ordering::Release);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Stands for election under a name.
pub struct Election {
    leases: Api<Lease>,
    env: Env,
    name: String,
    namespace: String,
    identity: String,
}

/// Somebody's lease, as last seen changing.
struct Seen {
    resource_version: Option<String>,
    at: Duration,
}

impl Election {
    /// For the lease `namespace/name`, as `identity`.
    pub fn new(client: &Client, env: Env, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            leases: client.namespaced(namespace),
            env,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            identity: identity.to_owned(),
        }
    }

    /// Runs `work` whenever this process leads, until cancelled; again after a pause when it returns. The token given to
    /// `work` ends with its term; the next election waits for `work` to return.
    pub async fn lead<F, W>(&self, cancel: CancellationToken, work: W)
    where
        F: Future<Output = ()>,
        W: Fn(Leadership, CancellationToken) -> F,
    {
        while !cancel.is_cancelled() {
            let Some((leadership, lease)) = cancel.run_until_cancelled(self.acquire()).await else { return };
            info!(lease = self.name, identity = self.identity, epoch = leadership.epoch(), "leads");
            let term = cancel.child_token();
            let renew = async {
                let lease = term.run_until_cancelled(self.renew(&leadership, lease)).await;
                term.cancel();
                lease
            };
            let work = async {
                work(leadership.clone(), term.clone()).await;
                term.cancel();
            };
            tokio::join!(renew, work);
            leadership.extend(Duration::ZERO);
            self.release().await;
            // Work that ends at once must not stand again at once, and others get their turn.
            cancel.run_until_cancelled(self.pause()).await;
        }
    }

    async fn pause(&self) {
        self.env.sleep(self.env.jitter(PERIOD, PERIOD_JITTER_PERCENT)).await;
    }

    async fn acquire(&self) -> (Leadership, Lease) {
        let mut seen: Option<Seen> = None;
        loop {
            let asked = self.env.uptime();
            match self.try_acquire(&mut seen).await {
                Ok(Some(lease)) => {
                    let epoch = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
                    let until = AtomicU64::new(nanos(asked + RENEW_DEADLINE));
                    let epoch = u64::try_from(epoch).unwrap_or(0);
                    let term = Term { env: self.env.clone(), epoch, until };
                    return (Leadership { term: Some(Arc::new(term)) }, lease);
                }
                Ok(None) => {}
                // Somebody was faster; look again.
                Err(error) if matches!(error.reason, Reason::Conflict | Reason::AlreadyExists) => {}
                Err(error) => warn!(lease = self.name, %error, "cannot read or take the lease; trying again"),
            }
            self.pause().await;
        }
    }

    async fn try_acquire(&self, seen: &mut Option<Seen>) -> Result<Option<Lease>, ApiError> {
        let Some(lease) = self.leases.find(&self.name).await? else {
            return self.leases.create(&self.fresh()).await.map(Some);
        };
        let resource_version = lease.metadata.resource_version.clone();
        let now = self.env.uptime();
        if seen.as_ref().is_none_or(|seen| seen.resource_version != resource_version) {
            *seen = Some(Seen { resource_version, at: now });
        }
        let unchanged = seen.as_ref().map_or(Duration::ZERO, |seen| now.saturating_sub(seen.at));
        if !self.is_free(&lease, unchanged) {
            return Ok(None);
        }
        self.leases.update(&self.taken(lease)).await.map(Some)
    }

    fn is_free(&self, lease: &Lease, unchanged: Duration) -> bool {
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        let term = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        holder.is_empty() || holder == self.identity || unchanged >= term.map_or(LEASE, Duration::from_secs)
    }

    fn fresh(&self) -> Lease {
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            ..ObjectMeta::default()
        };
        self.taken(Lease { metadata, spec: None })
    }

    /// The lease as it reads when we begin to hold it.
    fn taken(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(self.env.now());
        let earlier = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(earlier.map_or(0, |epoch| epoch.saturating_add(1))),
            ..LeaseSpec::default()
        });
        lease
    }

    /// Renews until that fails for too long or somebody else holds the lease.
    async fn renew(&self, leadership: &Leadership, mut lease: Lease) {
        while leadership.is_held() {
            let expiry = async {
                while leadership.is_held() {
                    self.env.sleep(PERIOD / 5).await;
                }
            };
            let attempt = async {
                self.env.sleep(PERIOD).await;
                let asked = self.env.uptime();
                (asked, self.renew_once(&mut lease).await)
            };
            tokio::select! {
                () = expiry => break,
                (asked, renewed) = attempt => match renewed {
                    Ok(true) => leadership.extend(asked + RENEW_DEADLINE),
                    Ok(false) => break,
                    Err(error) => warn!(lease = self.name, %error, "cannot renew the lease; trying again"),
                },
            }
        }
        warn!(lease = self.name, identity = self.identity, epoch = leadership.epoch(), "lost the lease");
    }

    /// Whether the lease is still ours; it is renewed then.
    async fn renew_once(&self, lease: &mut Lease) -> Result<bool, ApiError> {
        match self.write_renewal(lease).await {
            // Perhaps our own write whose answer was lost, or somebody's label; perhaps a rival.
            Err(error) if matches!(error.reason, Reason::Conflict | Reason::NotFound) => {}
            written => return written.map(|()| true),
        }
        let Some(current) = self.leases.find(&self.name).await? else { return Ok(false) };
        if term_of(&current) != term_of(lease) {
            return Ok(false);
        }
        *lease = current;
        // Rivals count from when that was written, which may be a while ago: only a write of now buys time from now on.
        self.write_renewal(lease).await.map(|()| true)
    }

    async fn write_renewal(&self, lease: &mut Lease) -> Result<(), ApiError> {
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(MicroTime(self.env.now()));
        }
        *lease = self.leases.update(lease).await?;
        Ok(())
    }

    /// Gives the lease up, so that the next holder need not wait. Best effort: without it they wait [`LEASE`], and a
    /// server that does not answer must not hold up our end.
    async fn release(&self) {
        tokio::select! {
            () = self.give_up() => {}
            () = self.env.sleep(PERIOD) => warn!(lease = self.name, "the lease was not given up in time"),
        }
    }

    async fn give_up(&self) {
        let Ok(Some(mut lease)) = self.leases.find(&self.name).await else { return };
        let Some(spec) = &mut lease.spec else { return };
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            // Left out: the API does not take an empty name.
            spec.holder_identity = None;
            if let Err(error) = self.leases.update(&lease).await {
                warn!(lease = self.name, %error, "cannot give the lease up; it expires by itself");
            }
        }
    }
}

/// Who holds a lease, and under which epoch.
fn term_of(lease: &Lease) -> (Option<&str>, Option<i32>) {
    let spec = lease.spec.as_ref();
    (spec.and_then(|spec| spec.holder_identity.as_deref()), spec.and_then(|spec| spec.lease_transitions))
}
