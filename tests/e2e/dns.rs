//! Endpoints that DNS tells: names of ServiceEntry objects, asked for beside the traffic and never by it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::backend::own_address;
use support::dns::Told;
use support::{Connection, Mesh, Request, TestBackend, TestDns, TestProxy, eventually};

const NAME: &str = "store.example.com";
const CLUSTER: &str = "outbound|80||store.example.com";

/// A ServiceEntry for [`NAME`] whose endpoints listen on `port`.
fn entry(resolution: &str, port: u16, more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: store, namespace: shop}}\n\
         spec:\n  hosts: [{NAME}]\n  location: MESH_EXTERNAL\n  resolution: {resolution}\n\
         \x20 ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]\n{more}"
    )
}

/// A proxy that asks `dns` and takes any time to live.
async fn proxy(dns: &TestDns, entry: &str) -> TestProxy {
    let mesh = Mesh::new().with("entry.yaml", entry).with("mesh.yaml", "dnsRefreshRate: 30ms\n");
    let proxy = TestProxy::of(mesh).listen_outbound(80).set(|settings| {
        settings.resolving.servers = vec![dns.address];
        settings.limits.dns_refresh_min_ms = 20;
        settings.limits.dns_start_wait_max_ms = 10_000;
    });
    proxy.ready().await
}

/// Two backends on one port of two addresses.
async fn backends() -> (TestBackend, TestBackend) {
    loop {
        let one = TestBackend::echo("one").await;
        let address = SocketAddr::from((own_address(), one.address.port()));
        if tokio::net::TcpListener::bind(address).await.is_ok() {
            return (one, TestBackend::echo_at(address, "two").await);
        }
    }
}

async fn get(proxy: &TestProxy) -> support::Answer {
    Request::get("/").host(NAME).send(proxy.listener(0)).await
}

/// Waits until exactly these are the endpoints of the cluster.
async fn endpoints_are(proxy: &TestProxy, expected: &[IpAddr]) {
    let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    expected.sort();
    eventually(&format!("the endpoints are {expected:?}"), || async {
        let page = proxy.page("/clusters").await;
        let of_cluster = page.lines().filter_map(|line| line.strip_prefix(CLUSTER)?.strip_prefix("::"));
        let weights = of_cluster.filter_map(|line| line.split_once("::weight::"));
        let mut addresses: Vec<String> =
            weights.filter_map(|(address, _)| Some(address.rsplit_once(':')?.0.to_owned())).collect();
        addresses.sort();
        (addresses == expected).then_some(())
    })
    .await;
}

async fn count(proxy: &TestProxy, figure: &str) -> f64 {
    let name = format!("envoy_cluster_update_{figure}");
    proxy.metric(&name, &[("cluster_name", CLUSTER)]).await.unwrap_or(0.0)
}

#[tokio::test]
async fn all_addresses_of_a_name_are_endpoints_from_the_first_request_on() {
    let (dns, (one, two)) = (TestDns::start().await, backends().await);
    dns.tell(NAME, 3_600, &[one.address.ip(), two.address.ip()]);
    let proxy = proxy(&dns, &entry("DNS", one.address.port(), "")).await;
    for _ in 0..20 {
        let answer = get(&proxy).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(one.served() + two.served(), 20);
    assert!(one.served() > 0 && two.served() > 0);
    endpoints_are(&proxy, &[one.address.ip(), two.address.ip()]).await;
    let dump = proxy.page("/config_dump?resource=dynamic_endpoint_configs").await;
    assert!(
        dump.contains(&one.address.ip().to_string()) && dump.contains(&two.address.ip().to_string()),
        "{dump}"
    );
    assert_eq!(dns.asked(NAME), 1, "its time to live goes before the refresh rate, and no request asks");
    assert_eq!((count(&proxy, "attempt").await, count(&proxy, "success").await), (1.0, 1.0));
}

#[tokio::test]
async fn addresses_change_under_load_and_no_request_is_lost() {
    let (dns, (one, two)) = (TestDns::start().await, backends().await);
    let both = [one.address.ip(), two.address.ip()];
    dns.tell(NAME, 0, &both);
    let proxy = proxy(&dns, &entry("DNS", one.address.port(), "")).await;
    let ended = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (address, ended) = (proxy.listener(0), ended.clone());
            tokio::spawn(async move {
                let mut connection = Connection::http1(address).await;
                let mut asked = 0;
                while !ended.load(Ordering::Relaxed) {
                    let answer = connection.send(Request::get("/").host(NAME)).await.expect("an answer");
                    assert_eq!(answer.status, 200, "after {asked}: {}", answer.text());
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    for round in 0..20 {
        let addresses = if round % 2 == 0 { &both[..1] } else { &both[1..] };
        dns.tell(NAME, 0, addresses);
        endpoints_are(&proxy, addresses).await;
    }
    ended.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for client in clients {
        asked += client.await.expect("every request was answered");
    }
    assert!(asked > 20, "{asked}");
    assert_eq!(one.served() + two.served(), asked);
}

#[tokio::test]
async fn addresses_in_another_order_are_no_change() {
    let (dns, (one, two)) = (TestDns::start().await, backends().await);
    dns.tell(NAME, 0, &[one.address.ip(), two.address.ip()]);
    let proxy = proxy(&dns, &entry("DNS", one.address.port(), "")).await;
    let before = proxy.generation().await;
    dns.tell(NAME, 0, &[two.address.ip(), one.address.ip()]);
    let asked = dns.asked(NAME);
    eventually("it is asked for again", || async { (dns.asked(NAME) > asked + 2).then_some(()) }).await;
    assert_eq!(proxy.generation().await, before);
}

#[tokio::test]
async fn the_last_good_addresses_stay_until_dns_says_that_there_are_none() {
    let (dns, one) = (TestDns::start().await, TestBackend::echo("one").await);
    dns.tell(NAME, 0, &[one.address.ip()]);
    let proxy = proxy(&dns, &entry("DNS", one.address.port(), "")).await;
    dns.say(NAME, Told::Failure);
    eventually("there is a finding", || async {
        let findings = proxy.page("/findings").await;
        (findings.contains("unresolved-name") && findings.contains("the addresses it told last are used"))
            .then_some(())
    })
    .await;
    let failures = count(&proxy, "failure").await;
    eventually("it fails again", || async { (count(&proxy, "failure").await > failures).then_some(()) })
        .await;
    assert_eq!(get(&proxy).await.status, 200);
    endpoints_are(&proxy, &[one.address.ip()]).await;

    dns.forget(NAME);
    endpoints_are(&proxy, &[]).await;
    let answer = get(&proxy).await;
    assert_eq!((answer.status.as_u16(), &*answer.text()), (503, "no healthy upstream"));
    let findings = proxy.page("/findings").await;
    assert!(findings.contains("there is no such name; it has no endpoints"), "{findings}");

    dns.tell(NAME, 0, &[one.address.ip()]);
    endpoints_are(&proxy, &[one.address.ip()]).await;
    assert_eq!(get(&proxy).await.status, 200);
    eventually("there is nothing to say any more", || async {
        (!proxy.page("/findings").await.contains("unresolved-name")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_logical_host_is_the_first_address_told_last() {
    let (dns, (one, two)) = (TestDns::start().await, backends().await);
    dns.tell(NAME, 0, &[one.address.ip(), two.address.ip()]);
    let proxy = proxy(&dns, &entry("DNS_ROUND_ROBIN", one.address.port(), "")).await;
    endpoints_are(&proxy, &[one.address.ip()]).await;
    assert_eq!(get(&proxy).await.json()["name"], "one");
    dns.tell(NAME, 0, &[two.address.ip(), one.address.ip()]);
    endpoints_are(&proxy, &[two.address.ip()]).await;
    assert_eq!(get(&proxy).await.json()["name"], "two");
}

#[tokio::test]
async fn names_and_addresses_stand_side_by_side_as_written() {
    let (dns, (one, two)) = (TestDns::start().await, backends().await);
    dns.tell("a.example.com", 60, &[one.address.ip()]);
    let endpoints = format!(
        "  endpoints:\n  - {{address: a.example.com, weight: 3}}\n  - {{address: {}, weight: 1}}\n",
        two.address.ip()
    );
    let proxy = proxy(&dns, &entry("DNS", one.address.port(), &endpoints)).await;
    endpoints_are(&proxy, &[one.address.ip(), two.address.ip()]).await;
    for _ in 0..40 {
        assert_eq!(get(&proxy).await.status, 200);
    }
    // By their weights; a request whose end has not been seen yet when the next one comes moves it by one.
    let served = (one.served(), two.served());
    assert!((28..=32).contains(&served.0) && served.0 + served.1 == 40, "{served:?}");
    assert_eq!(dns.asked(NAME), 0);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_asked_for_over_tcp() {
    let (dns, one) = (TestDns::start().await, TestBackend::echo("one").await);
    dns.tell(NAME, 60, &[one.address.ip()]);
    dns.cut_off();
    let proxy = proxy(&dns, &entry("DNS", one.address.port(), "")).await;
    assert_eq!(get(&proxy).await.status, 200);
    assert!(dns.asked_over_tcp() > 0);
}

#[tokio::test]
async fn a_server_that_is_silent_holds_up_neither_the_start_for_long_nor_other_names() {
    let (dns, one) = (TestDns::start().await, TestBackend::echo("one").await);
    dns.say(NAME, Told::Silence);
    dns.tell("b.example.com", 60, &[one.address.ip()]);
    let other = entry("DNS", one.address.port(), "").replace("store", "b");
    let mesh = Mesh::new().with("entry.yaml", &entry("DNS", 80, "")).with("other.yaml", &other);
    let proxy = TestProxy::of(mesh).listen_outbound(80).set(|settings| {
        settings.resolving.servers = vec![dns.address];
        settings.limits.dns_start_wait_max_ms = 300;
    });
    let proxy = proxy.ready().await;
    assert_eq!(get(&proxy).await.status, 503);
    let answer = Request::get("/").host("b.example.com").send(proxy.listener(0)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Such as those of a bootstrap.
#[tokio::test]
async fn clusters_that_are_there_whatever_the_files_say_ask_dns_too() {
    let (dns, one) = (TestDns::start().await, TestBackend::echo("one").await);
    dns.tell(NAME, 60, &[one.address.ip()]);
    let (cluster, _) = support::declared::cluster(CLUSTER, &[]);
    let endpoint = config::DnsEndpoint {
        host: NAME.into(),
        port: one.address.port(),
        weight: 1,
        metadata: Arc::default(),
    };
    let discovery = config::DnsDiscovery {
        localities: vec![config::DnsLocality {
            locality: config::Locality::default(),
            priority: 0,
            weight: 1,
            endpoints: vec![endpoint],
        }],
        refresh_rate: Duration::from_secs(60),
        respect_ttl: true,
        family: config::DnsFamily::V4Only,
        origin: None,
    };
    let discovery = config::DiscoveryType::StrictDns(Arc::new(discovery));
    let start = TestProxy::of(Mesh::new()).set(|settings| {
        settings.resolving.servers = vec![dns.address];
        settings.static_resources.clusters.push(config::Cluster { discovery, ..cluster });
    });
    endpoints_are(&start.ready().await, &[one.address.ip()]).await;
}

/// Whatever DNS answers: names with many addresses have a part of them, and nobody else's are fewer.
#[tokio::test]
async fn addresses_of_all_names_together_are_bounded() {
    let (dns, one) = (TestDns::start().await, TestBackend::echo("one").await);
    let many: Vec<IpAddr> = (1..=60).map(|last| IpAddr::from([127, 0, 1, last])).collect();
    dns.cut_off();
    dns.tell(NAME, 0, &many);
    dns.tell("b.example.com", 0, &many);
    dns.tell("c.example.com", 0, &[one.address.ip()]);
    let other = |name: &str| entry("DNS", one.address.port(), "").replace("store", name);
    let entries = [other("store"), other("b"), other("c")].join("---\n");
    let mesh = Mesh::new().with("entry.yaml", &entries).with("mesh.yaml", "dnsRefreshRate: 30ms\n");
    let proxy = TestProxy::of(mesh).listen_outbound(80).set(|settings| {
        settings.resolving.servers = vec![dns.address];
        settings.limits.dns_refresh_min_ms = 20;
        settings.limits.dns_start_wait_max_ms = 10_000;
        settings.limits.dns_addresses_total_max = 10;
    });
    let proxy = proxy.ready().await;
    endpoints_are(&proxy, &many[..4]).await;
    let generation = proxy.generation().await;
    let answer = Request::get("/").host("c.example.com").send(proxy.listener(0)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());

    // Answers in another order, and with others before them, are no change.
    let others: Vec<IpAddr> = (100..=140).map(|last| IpAddr::from([127, 0, 1, last])).collect();
    let turned: Vec<IpAddr> = others.into_iter().chain(many.iter().rev().copied()).collect();
    for name in [NAME, "b.example.com"] {
        dns.tell(name, 0, &turned);
        let asked = dns.asked(name);
        eventually("it is asked for again", || async { (dns.asked(name) > asked + 4).then_some(()) }).await;
    }
    assert_eq!(proxy.generation().await, generation);
    let findings = proxy.page("/findings").await;
    assert_eq!(findings.matches("dns_addresses_total_max allows").count(), 2, "{findings}");
    assert!(
        findings.contains("ServiceEntry shop/store: DNS tells more addresses of `store.example.com`"),
        "{findings}"
    );
    let limit = [("limit", "dns_addresses_total_max")];
    assert_eq!(proxy.metric("weft_limit_reached_total", &limit).await, Some(2.0), "each is told once");

    dns.tell("b.example.com", 0, &many[..1]);
    let (had, more) = (&many[..4], &turned[..4]);
    endpoints_are(&proxy, &[had, more].concat()).await;
}
