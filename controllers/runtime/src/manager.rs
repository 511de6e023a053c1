//! A process that runs controllers: alone, or as one of several of which one acts.
//!
//! Must never know: which controllers.

use claw_client::Client;
use tokio_util::sync::CancellationToken;

use crate::{Env, Figures, Leadership, Readiness, Runtime, lease::Election};

/// Runs controllers until it is told to stop; of several managers of one name and namespace, one at a time.
#[derive(Clone)]
pub struct Manager {
    client: Client,
    env: Env,
    name: String,
    election: Option<Candidacy>,
    figures: Figures,
    readiness: Readiness,
}

#[derive(Clone)]
struct Candidacy {
    namespace: String,
    identity: String,
}

impl Manager {
    /// Without rivals. `name` names the program: in events, and as the lease of an election.
    pub fn new(client: Client, env: Env, name: &str) -> Self {
        let (figures, readiness) = Default::default();
        Self { client, env, name: name.to_owned(), election: None, figures, readiness }
    }

    /// Stands for election on the Lease of the manager's name in `namespace`. `identity` must be this process's alone.
    #[must_use]
    pub fn elected(mut self, namespace: &str, identity: &str) -> Self {
        self.election = Some(Candidacy { namespace: namespace.to_owned(), identity: identity.to_owned() });
        self
    }

    /// Counts what the queues see where somebody else can look.
    #[must_use]
    pub fn figures(mut self, figures: Figures) -> Self {
        self.figures = figures;
        self
    }

    /// Tells who has not begun where somebody else can look.
    #[must_use]
    pub fn readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    /// Runs until cancelled. `start` is called at the beginning of every term, to [`Runtime::spawn`] controllers; whatever
    /// it spawned on the runtime's `env` has ended when this returns, or another term begins.
    pub async fn run(&self, cancel: CancellationToken, start: impl Fn(&Runtime) + Send + Sync) {
        let term = |leadership, term| self.term(leadership, term, &start);
        match &self.election {
            None => term(Leadership::unchallenged(), cancel).await,
            Some(Candidacy { namespace, identity }) => {
                let election = Election::new(&self.client, self.env.clone(), namespace, &self.name, identity);
                election.lead(cancel, term).await;
            }
        }
    }

    async fn term(
        &self,
        leadership: Leadership,
        cancel: CancellationToken,
        start: &(impl Fn(&Runtime) + Sync),
    ) {
        let env = self.env.fork();
        let mut runtime = Runtime::start(self.client.clone(), env.clone(), &self.name, leadership, cancel);
        (runtime.figures, runtime.readiness) = (self.figures.clone(), self.readiness.clone());
        start(&runtime);
        env.join().await;
    }
}
