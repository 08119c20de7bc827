//! Which question gets which answer.

use super::super::table::tests::table;
use super::*;

const RANDOM: u64 = 7;

fn question(name: &str, query_type: RecordType) -> Message {
    let mut message = Message::new(4_711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), query_type));
    message
}

fn known() -> Table {
    table(&[
        "web.shop.svc.cluster.local 10.0.0.1,10.0.0.2,fd00::1 shop/web",
        "v4.example.com 10.0.0.3",
        "*.example.com 10.0.0.4",
    ])
}

/// What is decided, in short: `forward`, `ignore`, or the answer's code, flags and records.
fn decided(table: Option<&Table>, bytes: &[u8], transport: Transport) -> String {
    let answer = match decide(table, bytes, transport, RANDOM) {
        Decision::Ignore => return "ignore".to_owned(),
        Decision::Forward(_) => return "forward".to_owned(),
        Decision::Answer(bytes) => Message::from_vec(&bytes).expect("a message"),
    };
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    let mut records: Vec<String> = answer
        .answers
        .iter()
        .map(|record| {
            assert_eq!(record.ttl, TTL_SECONDS);
            format!("{} {}", record.name, record.data)
        })
        .collect();
    records.sort();
    let flags = if answer.metadata.authoritative { " authoritative" } else { "" };
    let code = answer.metadata.response_code;
    format!("{code:?}{flags} {}", records.join(", ")).trim_end().to_owned()
}

#[test]
fn questions_for_names() {
    let table = known();
    let check = |name: &str, query_type: RecordType, expected: &str| {
        let bytes = question(name, query_type).to_vec().unwrap();
        for transport in [Transport::Udp, Transport::Tcp] {
            assert_eq!(decided(Some(&table), &bytes, transport), expected, "{name} {query_type}");
        }
        assert_eq!(decided(None, &bytes, Transport::Udp), "ServFail", "before the first table");
    };
    check("web.", RecordType::A, "NoError authoritative web. 10.0.0.1, web. 10.0.0.2");
    check("web.shop.", RecordType::AAAA, "NoError authoritative web.shop. fd00::1");
    check("V4.Example.com.", RecordType::A, "NoError authoritative V4.Example.com. 10.0.0.3");
    // A name that is known has no address of the other family, and nobody else is asked for one.
    check("v4.example.com.", RecordType::AAAA, "NoError authoritative");
    check("a.b.example.com.", RecordType::A, "NoError authoritative a.b.example.com. 10.0.0.4");
    check(
        "v4.example.com.shop.svc.cluster.local.",
        RecordType::A,
        "NoError authoritative v4.example.com. 10.0.0.3, v4.example.com.shop.svc.cluster.local. v4.example.com.",
    );
    check("v4.example.com.shop.svc.cluster.local.", RecordType::AAAA, "NoError authoritative");
    check("example.com.", RecordType::A, "forward");
    check("web.", RecordType::TXT, "forward");
    check("web.", RecordType::ANY, "forward");
    check(".", RecordType::A, "forward");
}

#[test]
fn addresses_are_told_in_any_order() {
    let table = table(&["a.example.com 10.0.0.1,10.0.0.2,10.0.0.3"]);
    let bytes = question("a.example.com.", RecordType::A).to_vec().unwrap();
    let mut firsts = std::collections::BTreeMap::new();
    for random in 0..300_u64 {
        let random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let Decision::Answer(answer) = decide(Some(&table), &bytes, Transport::Udp, random) else { panic!() };
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.answers.len(), 3);
        *firsts.entry(answer.answers[0].data.to_string()).or_insert(0) += 1;
    }
    assert!(firsts.len() == 3 && firsts.values().all(|count| *count > 50), "{firsts:?}");
}

#[test]
fn what_does_not_fit_is_left_out_and_said_to_be() {
    let addresses: Vec<String> = (0..100).map(|last| format!("10.0.0.{last}")).collect();
    let table = table(&[&format!("a.example.com {}", addresses.join(","))]);
    let check = |edns: Option<u16>, transport: Transport, bytes_max: usize, whole: bool| {
        let mut question = question("a.example.com.", RecordType::A);
        question.edns = edns.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns
        });
        let bytes = question.to_vec().unwrap();
        let Decision::Answer(bytes) = decide(Some(&table), &bytes, transport, RANDOM) else { panic!() };
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(bytes.len() <= bytes_max, "{} {edns:?}", bytes.len());
        assert_eq!((answer.metadata.truncation, answer.answers.len() == 100), (!whole, whole), "{edns:?}");
        assert!(answer.answers.len() > 20);
    };
    check(None, Transport::Udp, 512, false);
    check(Some(100), Transport::Udp, 512, false);
    check(Some(1_232), Transport::Udp, 1_232, false);
    check(Some(4_096), Transport::Udp, 4_096, true);
    check(None, Transport::Tcp, 4_096, true);
}

#[test]
fn a_later_version_of_edns_is_told_which_there_is() {
    let mut question = question("web.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    question.edns = Some(edns);
    let bytes = question.to_vec().unwrap();
    let Decision::Answer(bytes) = decide(Some(&known()), &bytes, Transport::Udp, RANDOM) else { panic!() };
    let answer = Message::from_vec(&bytes).unwrap();
    // 16, which in an answer that is signed means something else.
    assert_eq!(u16::from(answer.metadata.response_code), u16::from(ResponseCode::BADVERS));
    assert_eq!(answer.edns.map(|edns| edns.version()), Some(0));
    assert!(answer.answers.is_empty());
}

#[test]
fn what_is_no_question() {
    let table = known();
    let check = |bytes: &[u8], expected: &str| {
        assert_eq!(decided(Some(&table), bytes, Transport::Udp), expected, "{bytes:?}");
    };
    let good = question("web.", RecordType::A);
    let bytes = good.to_vec().unwrap();
    check(b"", "ignore");
    check(&bytes[..11], "ignore");
    check(&bytes[..12], "FormErr");
    check(&bytes[..bytes.len() - 1], "FormErr");
    check(&[0xff; 512], "ignore");
    check(&[0; 12], "FormErr");
    let mut answer = bytes.clone();
    answer[2] |= 0x80;
    check(&answer, "ignore");
    // A name that points at itself, and one that points ahead.
    for pointer in [12, 14] {
        let mut looped = bytes[..12].to_vec();
        looped.extend([0xc0, pointer, 0, 1, 0, 1]);
        check(&looped, "FormErr");
    }
    let mut several = good.clone();
    several.add_query(good.queries[0].clone());
    check(&several.to_vec().unwrap(), "FormErr");
    let mut none = good.clone();
    none.queries.clear();
    check(&none.to_vec().unwrap(), "FormErr");
    let mut update = good.clone();
    update.metadata.op_code = OpCode::Status;
    check(&update.to_vec().unwrap(), "NotImp");
    let mut chaos = good;
    chaos.queries[0].set_query_class(DNSClass::CH);
    check(&chaos.to_vec().unwrap(), "forward");
}

#[test]
fn no_bytes_do_harm() {
    let table = known();
    let good = question("web.shop.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    let mut random = 1_u64;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..3 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(random >> 40).unwrap() % bytes.len();
            bytes[at] = random.to_be_bytes()[1];
        }
        if let Decision::Answer(answer) = decide(Some(&table), &bytes, Transport::Udp, random) {
            assert!(answer.len() <= 65_535 && (answer.is_empty() || answer[..2] == bytes[..2]));
        }
    }
}
