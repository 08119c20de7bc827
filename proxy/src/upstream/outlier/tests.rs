use super::*;
use crate::snapshot::{Snapshot, testing};

const SECOND: Duration = Duration::from_secs(1);

fn settings(change: impl FnOnce(&mut config::OutlierDetection)) -> Settings {
    let mut declared = config::OutlierDetection::default();
    change(&mut declared);
    Settings::of(&declared)
}

/// A cluster of so many endpoints, and what watches each.
fn watched(
    endpoints: usize,
    change: impl FnOnce(&mut config::OutlierDetection),
) -> (Arc<Cluster>, Vec<Rc<Monitor>>) {
    let mut outlier = config::OutlierDetection { max_ejection_percent: Some(100), ..Default::default() };
    change(&mut outlier);
    let cluster = testing::cluster(&[(0, 1, &vec![1; endpoints])], |declared| {
        declared.outlier_detection = Some(Box::new(outlier));
    });
    let registry = Registry::new(&config::Limits::default());
    let detector = Detector::new(&cluster, &registry, &registry.shard());
    let monitors = cluster.endpoints.iter().map(|endpoint| Monitor::new(&detector, endpoint)).collect();
    (Arc::new(cluster), monitors)
}

fn reasons(cluster: &Cluster) -> Vec<Option<Reason>> {
    let reason = |ledger: Ledger| ledger.ejection.map(|ejection| ejection.reason);
    cluster.endpoints.iter().map(|endpoint| reason(endpoint.shared.health.ledger())).collect()
}

#[test]
fn defaults_are_envoys() {
    assert_eq!(
        settings(|_| {}),
        Settings {
            consecutive_5xx: 5,
            consecutive_gateway_failure: 0,
            consecutive_local_origin_failure: 5,
            split: false,
            interval: 10 * SECOND,
            base_ejection_time: 30 * SECOND,
            max_ejection_time: 300 * SECOND,
            max_ejection_percent: 10,
        }
    );
    let long = settings(|declared| declared.base_ejection_time = Some(400 * SECOND));
    assert_eq!(long.max_ejection_time, 400 * SECOND);
}

#[test]
fn the_share_that_may_be_out_holds_for_the_first_too() {
    let check = |percent, ejected, endpoints, expected| {
        let settings = settings(|declared| declared.max_ejection_percent = Some(percent));
        assert_eq!(settings.may_eject(ejected, endpoints), expected, "{percent} {ejected}/{endpoints}");
    };
    check(10, 0, 2, false);
    check(10, 0, 9, false);
    check(10, 0, 10, true);
    check(10, 1, 10, false);
    check(50, 0, 2, true);
    check(50, 1, 2, false);
    check(50, 0, 1, false);
    check(100, 0, 1, true);
    check(100, 1, 2, true);
    check(34, 0, 3, true);
    check(33, 0, 3, false);
}

/// Statuses, and after which of them the endpoint is ejected why.
fn check_statuses(
    change: impl FnOnce(&mut config::OutlierDetection),
    statuses: &[u16],
    expected: Option<(usize, Reason)>,
) {
    let (cluster, monitors) = watched(1, change);
    let mut found = None;
    for (index, status) in statuses.iter().enumerate() {
        monitors[0].answered(*status);
        found = found.or(reasons(&cluster)[0].map(|reason| (index + 1, reason)));
    }
    assert_eq!(found, expected, "{statuses:?}");
}

#[test]
fn errors_in_a_row() {
    use Reason::{Consecutive5xx, ConsecutiveGatewayFailure};
    let only_5xx = |declared: &mut config::OutlierDetection| declared.consecutive_5xx = Some(3);
    check_statuses(only_5xx, &[500, 503, 599], Some((3, Consecutive5xx)));
    check_statuses(only_5xx, &[500, 500, 200, 500, 500, 404, 500, 500], None);
    let both = |declared: &mut config::OutlierDetection| {
        declared.consecutive_5xx = Some(5);
        declared.consecutive_gateway_failure = Some(3);
    };
    check_statuses(both, &[502, 503, 504], Some((3, ConsecutiveGatewayFailure)));
    check_statuses(both, &[502, 503, 500, 504, 502], Some((5, Consecutive5xx)));
    check_statuses(both, &[502, 503, 200, 504, 502], None);
    let gateway_only = |declared: &mut config::OutlierDetection| {
        declared.consecutive_5xx = Some(0);
        declared.consecutive_gateway_failure = Some(2);
    };
    check_statuses(gateway_only, &[500; 9], None);
    check_statuses(gateway_only, &[500, 502, 503], Some((3, ConsecutiveGatewayFailure)));
    check_statuses(|_| {}, &[500; 5], Some((5, Consecutive5xx)));
}

#[test]
fn failures_count_as_statuses_unless_they_are_split() {
    let (cluster, monitors) = watched(3, |declared| declared.consecutive_gateway_failure = Some(2));
    monitors[0].failed();
    monitors[0].timed_out();
    monitors[1].failed();
    monitors[1].answered(200);
    monitors[1].failed();
    monitors[2].failed();
    monitors[2].connected();
    monitors[2].failed();
    let gateway = Some(Reason::ConsecutiveGatewayFailure);
    assert_eq!(reasons(&cluster), [gateway, None, gateway]);

    let (cluster, monitors) = watched(3, |declared| {
        declared.split_external_local_origin_errors = true;
        declared.consecutive_local_origin_failure = Some(2);
        declared.consecutive_gateway_failure = Some(2);
    });
    monitors[0].failed();
    monitors[0].timed_out();
    // A connection ends the row of failures to get one, an answer alone does not.
    monitors[1].failed();
    monitors[1].connected();
    monitors[1].failed();
    monitors[2].failed();
    monitors[2].answered(503);
    monitors[2].failed();
    let local = Some(Reason::ConsecutiveLocalOriginFailure);
    assert_eq!(reasons(&cluster), [local, None, local]);
}

#[test]
fn no_more_than_the_share_is_ejected() {
    let (cluster, monitors) = watched(4, |declared| {
        declared.consecutive_5xx = Some(1);
        declared.max_ejection_percent = Some(50);
    });
    monitors.iter().for_each(|monitor| monitor.answered(500));
    let out = Some(Reason::Consecutive5xx);
    assert_eq!(reasons(&cluster), [out, out, None, None]);
    // Who may not be ejected begins to count anew.
    assert_eq!(cluster.endpoints[3].shared.health.consecutive_5xx.get(), 0);
}

#[test]
fn ejections_grow_up_to_their_bound_and_shrink_again() {
    let settings = settings(|declared| declared.interval = Some(10 * SECOND));
    let mut ledger = Ledger::default();
    let mut now = 1_000 * SECOND;
    let mut lasted = Vec::new();
    for _ in 0..12 {
        ledger = ejected(&ledger, &settings, Reason::Consecutive5xx, now);
        let began = now;
        while ledger.ejection.is_some() {
            now += SECOND;
            ledger = swept(&ledger, &settings, now);
        }
        lasted.push((now - began).as_secs());
    }
    assert_eq!(lasted, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
    assert_eq!(ledger.times, 12);
    assert_eq!(ledger.readmitted_at, Some(now));
    // As Envoy: one step a sweep, once it has been in for an interval.
    assert_eq!(swept(&ledger, &settings, now + 9 * SECOND), ledger);
    let mut steps = 0;
    while ledger.multiplier > 0 {
        now += 10 * SECOND;
        ledger = swept(&ledger, &settings, now);
        steps += 1;
    }
    assert_eq!(steps, 11);
    assert_eq!(ejected(&ledger, &settings, Reason::Consecutive5xx, now).multiplier, 1);
}

#[test]
fn the_sweep_lets_back_in_whose_time_is_over() {
    let (cluster, monitors) = watched(2, |declared| {
        declared.consecutive_5xx = Some(1);
        declared.interval = Some(2 * SECOND);
        declared.base_ejection_time = Some(5 * SECOND);
    });
    let mut snapshot = Snapshot::default();
    Arc::make_mut(&mut snapshot.clusters).insert(cluster.name().clone(), cluster.clone());
    let began = time::now();
    let mut sweeps = Sweeps::default();
    assert_eq!(sweeps.run(&snapshot, began), Some(began + 2 * SECOND));
    let version = cluster.shared.health_version();
    monitors[0].answered(500);
    assert_ne!(cluster.shared.health_version(), version);
    monitors[0].answered(500);
    let out = Some(Reason::Consecutive5xx);
    for second in [2, 4] {
        let now = began + second * SECOND;
        assert_eq!(sweeps.run(&snapshot, now), Some(now + 2 * SECOND));
        assert_eq!(reasons(&cluster), [out, None], "{second}");
    }
    sweeps.run(&snapshot, began + 6 * SECOND);
    assert_eq!(reasons(&cluster), [None, None]);
    let health = &cluster.endpoints[0].shared.health;
    assert_eq!((health.consecutive_5xx.get(), health.ledger().times), (0, 1));
    // A cluster that is gone is not swept any more.
    assert_eq!(sweeps.run(&Snapshot::default(), began + 8 * SECOND), None);
}

#[test]
fn ledgers_outlive_generations_while_outlier_detection_is_on() {
    let (cluster, monitors) = watched(2, |declared| declared.consecutive_5xx = Some(1));
    monitors[1].answered(500);
    let with = |outlier: Option<config::OutlierDetection>, previous: &Cluster| {
        testing::next_generation(Some(previous), &[(0, 1, &[1, 1, 1])], time::now(), |declared| {
            declared.outlier_detection = outlier.map(Box::new);
        })
    };
    let healthy = |cluster: &Cluster| -> Vec<bool> {
        cluster.endpoints.iter().map(|endpoint| cluster.is_healthy(endpoint)).collect()
    };
    let next = with(Some(config::OutlierDetection::default()), &cluster);
    assert_eq!(healthy(&next), [true, false, true]);
    assert_eq!(next.shared.members().len(), 3);
    assert_eq!(healthy(&with(None, &next)), [true, true, true]);
}

#[test]
fn threads_that_see_the_same_errors_eject_no_more_than_the_share() {
    let (cluster, _) = watched(10, |declared| {
        declared.consecutive_5xx = Some(1);
        declared.max_ejection_percent = Some(30);
    });
    let registry = Registry::new(&config::Limits::default());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let shard = registry.shard();
            let (cluster, registry) = (&cluster, &registry);
            scope.spawn(move || {
                let detector = Detector::new(cluster, registry, &shard);
                for _ in 0..50 {
                    for endpoint in &cluster.endpoints {
                        Monitor::new(&detector, endpoint).answered(500);
                    }
                }
            });
        }
    });
    let out = reasons(&cluster).iter().flatten().count();
    assert_eq!(out, 3);
    let times: u32 = cluster.endpoints.iter().map(|endpoint| endpoint.shared.health.ledger().times).sum();
    assert_eq!(times, 3);
}
