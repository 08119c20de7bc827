//! The identity of the workload from a socket of its machine, where whoever attests workloads serves it: SPIRE's agent, say.
//!
//! The socket may not be there yet, say nothing, or lie: what it hands on is checked as any identity is, and what was last
//! good stays. Semantics: Istio's agent, which lets Envoy ask such a socket before all other sources.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::{Limits, PrivateKey};
use xds_client::certificate::schedule::Schedule;
use xds_client::secrets::{self, EndedKind, Heard, Question, Served};

use super::pushed::{Identity, Pusher, rule, wall};
use crate::telemetry::Registry;
use crate::telemetry::metrics::Family;
use crate::time;

/// Asks whoever listens at `socket`, again and again, until the proxy is gone.
pub(super) async fn follow(socket: PathBuf, pusher: Pusher, limits: Limits, registry: Arc<Registry>) {
    let (mut wanted, shard) = (pusher.wanted(), registry.shard());
    let counted = |reason: &str| shard.increment(registry.series(Family::IdentityFailures, &[reason]));
    // It is asked again only after a failure: new identities come by themselves.
    let schedule = || Schedule::new(rule(&limits, 0.0, 0.0), wall());
    let mut waiting = schedule();
    // Whether something came that cannot be read, and nothing since that ends this.
    let mut unread = false;
    loop {
        // Nothing is asked for before it is known for whom.
        let name = tokio::select! {
            () = pusher.closed() => return,
            name = wanted.wait_for(Option::is_some) => match name {
                Ok(name) => name.clone().unwrap_or_default(),
                Err(_) => return,
            },
        };
        let question = Question {
            socket: &socket,
            node: &name,
            wanted: &name,
            message_bytes_max: usize::try_from(limits.identity_bytes_max).unwrap_or(usize::MAX),
        };
        let answers = Answers { calm: Cell::new(!unread), ..Answers::default() };
        let mut heard = |heard: Heard| match heard {
            Heard::Identity(served) => answers.identity(identity(served), &pusher),
            Heard::Nothing(why) => {
                answers.nothing();
                counted("answer");
                pusher.fails(why);
            }
        };
        // Later it says nothing until there is something new.
        let silence = async {
            tokio::time::sleep(Duration::from_millis(limits.ca_answer_time_max_ms)).await;
            if answers.came.get() {
                answers.stay(&pusher);
                std::future::pending::<()>().await;
            }
        };
        let (kind, why) = tokio::select! {
            () = pusher.closed() => return,
            ended = Box::pin(secrets::follow(question, &mut heard)) => (Some(ended.kind), ended.why),
            () = silence => {
                (None, format!("it did not answer within {}ms", limits.ca_answer_time_max_ms))
            }
        };
        if answers.well.get() {
            waiting = schedule();
            unread = false;
        }
        unread |= matches!(kind, Some(EndedKind::TooLarge | EndedKind::Refused));
        counted(kind.map_or("timeout", EndedKind::name));
        pusher.fails(why);
        waiting.failed(wall(), RandomState::new().hash_one(&name));
        tokio::select! {
            () = pusher.closed() => return,
            () = tokio::time::sleep_until((time::now() + waiting.wait(wall())).into()) => {}
        }
    }
}

/// What came on one stream. What a source has sent before it broke the last one, by something that cannot be read, is no news
/// when it sends that first on the next: it may break that as well, and what hinders it is over only when it does not for a
/// while, or has another identity.
#[derive(Default)]
struct Answers {
    /// Whether anything came.
    came: Cell<bool>,
    /// Whether what comes counts at once.
    calm: Cell<bool>,
    /// Whether the last that came waits to count.
    waits: Cell<bool>,
    /// Whether an identity came that counts.
    well: Cell<bool>,
}

impl Answers {
    fn identity(&self, identity: Identity, pusher: &Pusher) {
        self.came.set(true);
        self.waits.set(!self.calm.get() && pusher.has_pushed(&identity));
        if !self.waits.get() {
            self.well.set(true);
            pusher.push(identity);
        }
    }

    fn nothing(&self) {
        self.came.set(true);
        self.waits.set(false);
    }

    /// The stream has not been broken for a while.
    fn stay(&self, pusher: &Pusher) {
        self.calm.set(true);
        if self.waits.take() {
            self.well.set(true);
            pusher.works();
        }
    }
}

fn identity(served: Served) -> Identity {
    let Served { chain, key, roots, revoked, bundles } = served;
    Identity { chain, key: PrivateKey::new(&*key), roots, revoked, bundles }
}
