use config::origin::{ObjectRef, Origin, Place};

use super::*;
use crate::snapshot::testing;
use crate::time;

fn limits(cluster: &Cluster) -> Rc<Limits> {
    let registry = Registry::new(&config::Limits::default());
    Limits::new(cluster, (&Rc::default(), &Unread::unbounded(), &Rc::default()), &registry, &registry.shard())
}

fn counts(cluster: &Cluster) -> [u32; 5] {
    let shared = &cluster.shared;
    let counts = [&shared.connections, &shared.pending_requests, &shared.requests, &shared.retries];
    let [connections, pending, requests, retries] = counts.map(|count| count.get());
    [connections, pending, requests, retries, shared.process.pending_requests.get()]
}

#[test]
fn what_is_held_is_counted_until_it_is_dropped() {
    let cluster = testing::cluster(&[], |_| {});
    let limits = limits(&cluster);
    let held = (limits.open_connection(false), limits.wait(), limits.attach(), limits.retry());
    assert_eq!(counts(&cluster), [1, 1, 1, 1, 1]);
    drop(held);
    assert_eq!(counts(&cluster), [0; 5]);
}

#[test]
fn a_pool_without_connections_may_open_one() {
    let cluster = testing::cluster(&[], |declared| declared.circuit_breakers.max_connections = 1);
    let limits = limits(&cluster);
    let first = limits.open_connection(true).unwrap();
    assert!(limits.open_connection(false).is_none());
    let beyond = limits.open_connection(true).unwrap();
    assert_eq!(counts(&cluster)[0], 2);
    drop(first);
    assert!(limits.open_connection(false).is_none());
    drop(beyond);
    assert!(limits.open_connection(false).is_some());
}

#[test]
fn the_process_has_its_own_limit_of_those_that_wait() {
    let one = testing::cluster(&[], |_| {});
    let mut other = testing::cluster(&[], |_| {});
    other.shared = ClusterShared::new(&one.shared.process);
    let mut waiting = vec![limits(&one).wait().unwrap(), limits(&one).wait().unwrap()];
    assert_eq!(limits(&one).wait().err(), Some(Limit::ProcessPendingRequests));
    assert_eq!(next_meets(&one, Load::Bytes), Some(Limit::ProcessPendingRequests));
    assert_eq!(next_meets(&other, Load::Bytes), None, "what is left is for others");
    waiting.push(limits(&other).wait().unwrap());
    assert_eq!(limits(&other).wait().err(), Some(Limit::ProcessPendingRequests));
    assert_eq!(counts(&other), [0, 1, 0, 0, 3]);
    assert_eq!(
        Limit::ProcessPendingRequests.describe(&other),
        "pending_requests_max 4 of this process, of which a cluster may hold as many as it leaves"
    );
    drop(waiting);
    assert_eq!(counts(&other), [0; 5]);
}

#[test]
fn limits_of_a_later_generation_hold_at_once() {
    let before = testing::cluster(&[], |declared| declared.circuit_breakers.max_requests = 2);
    let limits = limits(&before);
    let held = [limits.attach().unwrap(), limits.attach().unwrap()];
    assert_eq!(limits.attach().err(), Some(Limit::Requests));
    let after = testing::next_generation(Some(&before), &[], time::now(), |declared| {
        declared.circuit_breakers.max_requests = 1;
    });
    assert!(limits.are_of(&after) && !limits.are_of(&testing::cluster(&[], |_| {})));
    limits.update(&after);
    let [first, second] = held;
    drop(first);
    assert_eq!(limits.attach().err(), Some(Limit::Requests));
    drop(second);
    assert!(limits.attach().is_ok());
}

#[test]
fn refusals_name_the_limit_and_its_object() {
    let breakers = |declared: &mut config::Cluster| {
        declared.circuit_breakers = config::CircuitBreakers {
            max_connections: 1,
            max_pending_requests: 2,
            max_requests: 3,
            max_retries: 4,
        };
    };
    let cluster = testing::cluster(&[], breakers);
    assert_eq!(Limit::Requests.describe(&cluster), "max_requests 3 of cluster c");
    let cluster = testing::cluster(&[], |declared| {
        breakers(declared);
        let (kind, namespace, name) = ("DestinationRule".into(), "shop".into(), "catalog".into());
        declared.metadata.origin = Some(Box::new(Origin {
            object: ObjectRef { kind, namespace, name },
            place: Some(Place { file: "rules.yaml".into(), line: 7 }),
        }));
    });
    let origin = "of DestinationRule shop/catalog (rules.yaml:7)";
    assert_eq!(Limit::Requests.describe(&cluster), format!("http2MaxRequests 3 {origin}"));
    assert_eq!(Limit::Retries.describe(&cluster), format!("maxRetries 4 {origin}"));
    assert_eq!(Limit::PendingRequests.describe(&cluster), format!("http1MaxPendingRequests 2 {origin}"));
    let _open = limits(&cluster).open_connection(true);
    assert_eq!(
        Limit::PendingRequests.describe(&cluster),
        format!("http1MaxPendingRequests 2 {origin}, with maxConnections 1 reached")
    );
}

#[test]
fn what_the_next_one_would_meet() {
    let max_one = |declared: &mut config::Cluster| {
        let breakers = &mut declared.circuit_breakers;
        (breakers.max_connections, breakers.max_pending_requests, breakers.max_requests) = (1, 1, 1);
    };
    let cluster = testing::cluster(&[], max_one);
    let limits = limits(&cluster);
    let check = |expected: [Option<Limit>; 3]| {
        let next = [Load::Http1, Load::Http2, Load::Bytes].map(|load| next_meets(&cluster, load));
        assert_eq!(next, expected, "{:?}", counts(&cluster));
    };
    check([None; 3]);
    let connection = limits.open_connection(true);
    check([None, None, Some(Limit::Connections)]);
    let waiting = limits.wait();
    let pending = Some(Limit::PendingRequests);
    check([pending, pending, Some(Limit::Connections)]);
    drop(waiting);
    let request = limits.attach();
    let requests = Some(Limit::Requests);
    check([requests, requests, Some(Limit::Connections)]);
    drop(connection);
    drop(request);
    check([None; 3]);
    let closed = testing::cluster(&[], |declared| declared.circuit_breakers.max_pending_requests = 0);
    assert_eq!(next_meets(&closed, Load::Http1), pending);
}
