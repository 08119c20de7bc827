//! The DNS proxy: names of the mesh from the configuration, all others from the servers the pod would have asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use support::dns::Told;
use support::{Mesh, TestDns, TestProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// A proxy that answers names, and asks `dns` for those it does not know.
async fn proxy(mesh: Mesh, dns: &TestDns) -> TestProxy {
    proxy_with(mesh, dns, "search shop.svc.cluster.local svc.cluster.local\nnameserver 127.0.0.1\n").await
}

/// The same with this `resolv.conf`.
async fn proxy_with(mesh: Mesh, dns: &TestDns, text: &str) -> TestProxy {
    let resolv_conf = mesh.file("resolv.conf");
    mesh.write("resolv.conf", text);
    let start = TestProxy::of(mesh).set(|settings| {
        settings.dns_port = Some(0);
        settings.resolving.resolv_conf = resolv_conf;
        settings.resolving.servers = vec![dns.address];
        settings.limits.dns_forwards_max = 8;
        settings.limits.dns_connections_max = 4;
    });
    start.ready().await
}

fn question(name: &str, query_type: RecordType) -> Message {
    let mut message = Message::new(4_711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), query_type));
    message
}

async fn over_udp(to: SocketAddr, bytes: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    socket.send_to(bytes, to).await.expect("it is sent");
    let mut answer = [0; 4_096];
    let receiving = tokio::time::timeout(support::PATIENCE, socket.recv(&mut answer));
    let length = receiving.await.expect("an answer in time").expect("an answer");
    Message::from_vec(&answer[..length]).expect("a message")
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_u16(u16::try_from(bytes.len()).expect("a short message")).await.expect("it is written");
    stream.write_all(bytes).await.expect("it is written");
}

async fn read(stream: &mut TcpStream) -> Option<Message> {
    let mut answer = vec![0; usize::from(stream.read_u16().await.ok()?)];
    stream.read_exact(&mut answer).await.expect("the whole answer");
    Some(Message::from_vec(&answer).expect("a message"))
}

async fn over_tcp(to: SocketAddr, bytes: &[u8]) -> Message {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    write(&mut stream, bytes).await;
    read(&mut stream).await.expect("an answer")
}

/// The code and the addresses of an answer.
fn told(answer: &Message) -> (ResponseCode, Vec<String>) {
    assert_eq!((answer.metadata.id, answer.metadata.message_type), (4_711, MessageType::Response));
    let addresses = answer.answers.iter().filter_map(|record| record.data.ip_addr());
    let mut addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
    addresses.sort();
    (answer.metadata.response_code, addresses)
}

/// Asks both ways; both must be answered alike.
async fn ask(proxy: &TestProxy, name: &str, query_type: RecordType) -> (ResponseCode, Vec<String>) {
    let bytes = question(name, query_type).to_vec().expect("a message");
    let answer = told(&over_udp(proxy.dns(), &bytes).await);
    assert_eq!(told(&over_tcp(proxy.dns(), &bytes).await), answer, "{name}");
    answer
}

fn good(addresses: &[&str]) -> (ResponseCode, Vec<String>) {
    (ResponseCode::NoError, addresses.iter().map(|&address| address.to_owned()).collect())
}

#[tokio::test]
async fn names_of_the_mesh_are_answered_and_all_others_asked_for() {
    let dns = TestDns::start().await;
    dns.tell("www.example.org", 60, &[IpAddr::from([192, 0, 2, 7])]);
    let mesh = Mesh::new().service_at("web", "http/80", "10.96.0.7");
    let proxy = proxy(mesh, &dns).await;
    for name in ["web.", "web.shop.", "web.shop.svc.", "web.shop.svc.cluster.local.", "WEB.shop.svc."] {
        assert_eq!(ask(&proxy, name, RecordType::A).await, good(&["10.96.0.7"]), "{name}");
        assert_eq!(ask(&proxy, name, RecordType::AAAA).await, good(&[]), "{name}");
    }
    assert_eq!(dns.asked("web"), 0);
    assert_eq!(ask(&proxy, "www.example.org.", RecordType::A).await, good(&["192.0.2.7"]));
    assert_eq!((dns.asked("www.example.org"), dns.asked_over_tcp()), (2, 1), "asked as it was asked for");
    let nobody = ask(&proxy, "nobody.example.org.", RecordType::A).await;
    assert_eq!(nobody, (ResponseCode::NXDomain, Vec::new()));
    dns.say("www.example.org", Told::Failure);
    assert_eq!(ask(&proxy, "www.example.org.", RecordType::A).await.0, ResponseCode::ServFail);
    let metric = |name: &'static str| proxy.metric(name, &[]);
    assert_eq!(metric("istio_agent_dns_requests_total").await, Some(26.0));
    assert_eq!(metric("istio_agent_dns_upstream_requests_total").await, Some(6.0));
}

/// A server that cannot read a question says so without it; anything else without it answers some other question.
#[tokio::test]
async fn an_answer_has_the_question_that_it_answers() {
    let dns = TestDns::start().await;
    let proxy = proxy(Mesh::new(), &dns).await;
    let bytes = question("www.example.org.", RecordType::A).to_vec().expect("a message");
    for (code, expected) in [
        (ResponseCode::NoError, ResponseCode::ServFail),
        (ResponseCode::NXDomain, ResponseCode::ServFail),
        (ResponseCode::FormErr, ResponseCode::FormErr),
    ] {
        dns.say("www.example.org", Told::Unasked(code));
        // Over TCP nothing else is waited for.
        assert_eq!(told(&over_tcp(proxy.dns(), &bytes).await).0, expected, "{code}");
    }
}

/// Names of a wildcard, at this address.
fn entry(address: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: fixed, namespace: shop}}\n\
         spec:\n  hosts: ['*.example.com']\n  addresses: [{address}]\n  resolution: NONE\n\
         \x20 ports: [{{number: 80, name: http, protocol: HTTP}}]\n"
    )
}

#[tokio::test]
async fn the_table_changes_with_the_configuration() {
    let dns = TestDns::start().await;
    let proxy = proxy(Mesh::new().with("entry.yaml", &entry("10.1.0.1")), &dns).await;
    assert_eq!(ask(&proxy, "a.example.com.", RecordType::A).await, good(&["10.1.0.1"]));
    proxy.publish("entry.yaml", &entry("10.1.0.2")).await;
    assert_eq!(ask(&proxy, "b.example.com.", RecordType::A).await, good(&["10.1.0.2"]));
    let answer = ask(&proxy, "a.example.com.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(answer, good(&["10.1.0.2"]), "with the search domain added to it");
}

/// A search domain that is no name counts for nothing, and takes nothing from what stands beside it.
#[tokio::test]
async fn malformed_search_domains_are_left_out() {
    let dns = TestDns::start().await;
    let text = "search -a.local corp..local shop.svc.cluster.local\nnameserver 127.0.0.1\n";
    let mesh = Mesh::new().with("entry.yaml", &entry("10.1.0.1"));
    let proxy = proxy_with(mesh, &dns, text).await;
    let answer = ask(&proxy, "a.example.com.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(answer, good(&["10.1.0.1"]));
}

#[tokio::test]
async fn before_the_first_table_there_is_no_answer_yet() {
    let dns = TestDns::start().await;
    let mesh = Mesh::new().with("bad.yaml", "kind: [\n");
    let start = TestProxy::of(mesh).set(|settings| {
        settings.dns_port = Some(0);
        settings.resolving.servers = vec![dns.address];
    });
    let proxy = start.start();
    let bytes = question("web.", RecordType::A).to_vec().expect("a message");
    let answer = over_udp(proxy.dns(), &bytes).await;
    assert_eq!((told(&answer).0, dns.asked("web")), (ResponseCode::ServFail, 0));
}

#[tokio::test]
async fn a_flood_of_what_nobody_answers_is_bounded_and_names_of_the_mesh_are_answered_beside_it() {
    let dns = TestDns::start().await;
    dns.say("silent.example.org", Told::Silence);
    let mesh = Mesh::new().service_at("web", "http/80", "10.96.0.7");
    let proxy = proxy(mesh, &dns).await;
    let flood = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let bytes = question("silent.example.org.", RecordType::A).to_vec().expect("a message");
    for _ in 0..200 {
        flood.send_to(&bytes, proxy.dns()).await.expect("it is sent");
    }
    eventually("the limit is met", || async {
        let met = proxy.metric("weft_limit_reached_total", &[("limit", "dns_forwards_max")]).await;
        (met? >= 100.0).then_some(())
    })
    .await;
    assert!(dns.asked("silent.example.org") <= 8);
    assert_eq!(ask(&proxy, "web.", RecordType::A).await, good(&["10.96.0.7"]));
    let refused =
        over_udp(proxy.dns(), &question("www.example.org.", RecordType::A).to_vec().expect("bytes")).await;
    assert_eq!(told(&refused).0, ResponseCode::ServFail);
}

#[tokio::test]
async fn hostile_bytes_end_nothing_but_their_own_connection() {
    let dns = TestDns::start().await;
    let mesh = Mesh::new().service_at("web", "http/80", "10.96.0.7");
    let proxy = proxy(mesh, &dns).await;
    let good_bytes = question("web.", RecordType::A).to_vec().expect("a message");
    // Several questions on one connection, then one that is too long.
    let mut stream = TcpStream::connect(proxy.dns()).await.expect("a connection");
    for _ in 0..3 {
        write(&mut stream, &good_bytes).await;
        assert_eq!(told(&read(&mut stream).await.expect("an answer")), good(&["10.96.0.7"]));
    }
    stream.write_u16(u16::MAX).await.expect("it is written");
    assert!(read(&mut stream).await.is_none(), "it is closed");
    // Those who never ask lock out others for a while only, and not those who ask by datagram.
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(TcpStream::connect(proxy.dns()).await.expect("a connection"));
    }
    eventually("those above the limit are closed", || async {
        let met = proxy.metric("weft_limit_reached_total", &[("limit", "dns_connections_max")]).await;
        (met? >= 6.0).then_some(())
    })
    .await;
    drop(idle);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    for bytes in [&[][..], &[0xff; 4_096], &good_bytes[..good_bytes.len() - 2], &[0; 12]] {
        socket.send_to(bytes, proxy.dns()).await.expect("it is sent");
    }
    let mut looped = good_bytes[..12].to_vec();
    looped.extend([0xc0, 12, 0, 1, 0, 1]);
    let malformed = over_udp(proxy.dns(), &looped).await;
    assert_eq!(told(&malformed).0, ResponseCode::FormErr);
    eventually("connections are taken again", || async {
        let mut stream = TcpStream::connect(proxy.dns()).await.ok()?;
        write(&mut stream, &good_bytes).await;
        let reading = tokio::time::timeout(Duration::from_secs(1), read(&mut stream));
        reading.await.ok()?.map(|answer| assert_eq!(told(&answer), good(&["10.96.0.7"])))
    })
    .await;
}

#[tokio::test]
async fn many_addresses_are_cut_off_and_asked_for_again_over_tcp() {
    let dns = TestDns::start().await;
    let addresses: Vec<IpAddr> = (1..=200).map(|last| IpAddr::from([192, 0, 2, last])).collect();
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let entry = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: many, namespace: shop}}\n\
         spec:\n  hosts: [many.example.com]\n  addresses: [{}]\n  resolution: NONE\n\
         \x20 ports: [{{number: 80, name: http, protocol: HTTP}}]\n",
        list.join(", ")
    );
    let proxy = proxy(Mesh::new().with("entry.yaml", &entry), &dns).await;
    dns.tell("many.example.org", 60, &addresses);
    for name in ["many.example.com.", "many.example.org."] {
        let bytes = question(name, RecordType::A).to_vec().expect("a message");
        let cut_off = over_udp(proxy.dns(), &bytes).await;
        assert!(cut_off.metadata.truncation && cut_off.answers.len() < 200, "{name}");
        let whole = over_tcp(proxy.dns(), &bytes).await;
        assert!(!whole.metadata.truncation && whole.answers.len() == 200, "{name}");
    }
}
