use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::Hosts;
use hickory_resolver::proto::op::{Message, Metadata};
use hickory_resolver::proto::rr::rdata::{A, AAAA};
use hickory_resolver::proto::rr::{RData, Record};
use tokio::net::UdpSocket;

use super::*;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// A server that answers questions of this type only, and is silent otherwise.
async fn answering(record_type: Option<RecordType>) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let query = &question.queries[0];
            if Some(query.query_type()) != record_type {
                continue;
            }
            let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
            answer.metadata = Metadata::response_from_request(&question.metadata);
            answer.add_query(query.clone());
            let data = match (V4, V6) {
                (IpAddr::V4(v4), _) if record_type == Some(RecordType::A) => RData::A(A(v4)),
                (_, IpAddr::V6(v6)) => RData::AAAA(AAAA(v6)),
                _ => continue,
            };
            answer.add_answers([Record::from_rdata(query.name().clone(), 60, data)]);
            socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
        }
    });
    (address, serving)
}

/// What is told of a name within `most`, by such a server and these hosts.
async fn told(record_type: Option<RecordType>, hosts: &str, family: DnsFamily, most: Duration) -> Answer {
    let (server, serving) = answering(record_type).await;
    let resolving = Resolving { servers: vec![server], ..Resolving::default() };
    let mut resolver = build(&resolving, b"").unwrap();
    let mut known = Hosts::default();
    known.read_hosts_conf(hosts.as_bytes()).unwrap();
    resolver.set_hosts(known.into());
    let key = Key { host: "store.example.com".into(), family };
    let answer = tokio::time::timeout(most, ask(Ok(resolver), key, 8)).await;
    serving.abort();
    answer.unwrap_or_else(|_| panic!("no answer within {most:?}: {record_type:?} {hosts} {family:?}"))
}

/// What one family told is not withheld for the sake of the other one.
#[tokio::test]
async fn a_family_that_is_not_answered_withholds_nothing() {
    let most = FAMILY_WAIT_MAX + Duration::from_secs(2);
    for (record_type, address) in [(RecordType::A, V4), (RecordType::AAAA, V6)] {
        let expected = Answer::Addresses(vec![address], Some(Duration::from_secs(60)));
        assert_eq!(told(Some(record_type), "", DnsFamily::All, most).await, expected);
    }
}

/// A name that is written in the hosts file waits for no server.
#[tokio::test]
async fn names_of_the_hosts_file_are_told_at_once() {
    let check = async |hosts: &str, family, expected: &[IpAddr]| {
        let answer = told(None, hosts, family, FAMILY_WAIT_MAX / 2).await;
        assert_eq!(answer, Answer::Addresses(expected.to_vec(), None), "{hosts}");
    };
    let (v4, v6) = (format!("{V4} store.example.com\n"), format!("{V6} store.example.com\n"));
    check(&v4, DnsFamily::All, &[V4]).await;
    check(&v6, DnsFamily::All, &[V6]).await;
    check(&(v6.clone() + &v4), DnsFamily::All, &[V4, V6]).await;
    check(&(v6 + &v4), DnsFamily::V4Only, &[V4]).await;
}

/// Servers and the other search domains hold beside one that is no name.
#[test]
fn search_domains_that_are_no_names() {
    let check = |text: &str, expected: &[&str]| {
        let expected: Vec<String> = expected.iter().map(|&domain| domain.to_owned()).collect();
        let text = format!("nameserver 192.0.2.53\n{text}\noptions ndots:5\n");
        let (config, options) = parse(text.as_bytes()).unwrap();
        let search: Vec<String> = config.search.iter().map(|domain| domain.to_ascii()).collect();
        assert_eq!((search, config.name_servers.len(), options.ndots), (expected, 1, 5), "{text}");
    };
    check("search shop.svc.cluster.local. corp.local", &["shop.svc.cluster.local.", "corp.local"]);
    check("search shop.svc.cluster.local -corp.local corp..local # a", &["shop.svc.cluster.local"]);
    check("search -corp.local", &[]);
    check("domain corp..local", &[]);
    check("search a.b\ndomain corp..local", &["a.b"]);
}
