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
use xds_client::secrets::{self, Heard, Question, Served};

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
        let has_answered = Cell::new(false);
        let mut heard = |heard: Heard| {
            has_answered.set(true);
            match heard {
                Heard::Identity(served) => {
                    waiting = schedule();
                    pusher.push(identity(served));
                }
                Heard::Nothing(why) => {
                    counted("answer");
                    pusher.fails(why);
                }
            }
        };
        // Later it says nothing until there is something new.
        let silence = async {
            tokio::time::sleep(Duration::from_millis(limits.ca_answer_time_max_ms)).await;
            if has_answered.get() {
                std::future::pending::<()>().await;
            }
        };
        let (reason, why) = tokio::select! {
            () = pusher.closed() => return,
            ended = Box::pin(secrets::follow(question, &mut heard)) => (ended.kind.name(), ended.why),
            () = silence => {
                ("timeout", format!("it did not answer within {}ms", limits.ca_answer_time_max_ms))
            }
        };
        counted(reason);
        pusher.fails(why);
        waiting.failed(wall(), RandomState::new().hash_one(&name));
        tokio::select! {
            () = pusher.closed() => return,
            () = tokio::time::sleep_until((time::now() + waiting.wait(wall())).into()) => {}
        }
    }
}

fn identity(served: Served) -> Identity {
    let Served { chain, key, roots, revoked, bundles } = served;
    Identity { chain, key: PrivateKey::new(&*key), roots, revoked, bundles }
}
