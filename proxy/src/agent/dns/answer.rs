//! From a question to what is done about it: pure, given the table and a random number.

use std::net::IpAddr;

use hickory_resolver::proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_resolver::proto::serialize::binary::{BinEncodable as _, BinEncoder};

use super::table::Table;

/// Seconds that an answer from the table holds; Istio's.
const TTL_SECONDS: u32 = 30;

/// Bytes of an answer over UDP to who does not say how many it takes (RFC 1035 section 2.3.4).
const UDP_ANSWER_BYTES: u16 = 512;

/// Bytes of a datagram that weft says it takes itself.
const UDP_QUESTION_BYTES: u16 = 1_232;

/// Bytes of a message's head.
const HEAD_BYTES: usize = 12;

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// In a datagram.
    Udp,
    /// On a connection.
    Tcp,
}

/// What is done about a question.
#[derive(Debug)]
pub(super) enum Decision {
    /// Nothing: it is no question.
    Ignore,
    /// This is answered.
    Answer(Vec<u8>),
    /// Somebody else is asked.
    Forward(Box<Question>),
}

/// A question that the table does not answer.
#[derive(Debug)]
pub(super) struct Question {
    message: Message,
    /// Bytes its answer may have.
    pub(super) answer_bytes_max: u16,
}

impl Question {
    /// What was asked.
    pub(super) fn query(&self) -> Option<&Query> {
        self.message.queries.first()
    }

    /// The answer that says only this.
    pub(super) fn refuse(&self, code: ResponseCode) -> Vec<u8> {
        let mut answer = reply(&self.message);
        answer.metadata.response_code = code;
        encode(&answer, self.answer_bytes_max)
    }

    /// The answer that says that the whole one is to be asked for over TCP.
    pub(super) fn cut_off(&self) -> Vec<u8> {
        let mut answer = reply(&self.message);
        answer.metadata.truncation = true;
        encode(&answer, self.answer_bytes_max)
    }
}

/// Decides about the bytes of a question; there is no table before the first generation.
pub(super) fn decide(table: Option<&Table>, bytes: &[u8], transport: Transport, random: u64) -> Decision {
    let message = match Message::from_vec(bytes) {
        Ok(message) => message,
        Err(_) => return malformed(bytes),
    };
    if message.metadata.message_type == MessageType::Response {
        return Decision::Ignore;
    }
    let answer_bytes_max = match transport {
        Transport::Tcp => u16::MAX,
        Transport::Udp => {
            message.edns.as_ref().map_or(UDP_ANSWER_BYTES, Edns::max_payload).max(UDP_ANSWER_BYTES)
        }
    };
    let question = Box::new(Question { message, answer_bytes_max });
    if question.message.metadata.op_code != OpCode::Query {
        return Decision::Answer(question.refuse(ResponseCode::NotImp));
    }
    // RFC 6891 section 6.1.3.
    if question.message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Decision::Answer(question.refuse(ResponseCode::BADVERS));
    }
    let [query] = &question.message.queries[..] else {
        return Decision::Answer(question.refuse(ResponseCode::FormErr));
    };
    let Some(table) = table else {
        return Decision::Answer(question.refuse(ResponseCode::ServFail));
    };
    let name = query.name().to_ascii().to_ascii_lowercase();
    let found = match (query.query_type(), query.query_class()) {
        (RecordType::A | RecordType::AAAA, DNSClass::IN) => table.find(name.trim_end_matches('.')),
        _ => None,
    };
    let Some(found) = found else { return Decision::Forward(question) };
    let mut answer = reply(&question.message);
    answer.metadata.authoritative = true;
    let mut addresses: Vec<IpAddr> = found
        .addresses
        .iter()
        .copied()
        .filter(|address| address.is_ipv4() == (query.query_type() == RecordType::A))
        .collect();
    shuffle(&mut addresses, random);
    // A name of the other family is there all the same: it has no address.
    if !addresses.is_empty() {
        let mut owner = query.name().clone();
        if let Some(target) = found.alias_of.and_then(|target| Name::from_ascii(format!("{target}.")).ok()) {
            let alias = RData::CNAME(CNAME(target.clone()));
            answer.add_answer(Record::from_rdata(owner, TTL_SECONDS, alias));
            owner = target;
        }
        let records = addresses.into_iter().map(|address| {
            let data = match address {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            };
            Record::from_rdata(owner.clone(), TTL_SECONDS, data)
        });
        answer.add_answers(records);
    }
    Decision::Answer(encode(&answer, answer_bytes_max))
}

/// What cannot be read is answered if it at least begins like a question.
fn malformed(bytes: &[u8]) -> Decision {
    let (Some([high, low, flags, ..]), true) = (bytes.first_chunk::<3>(), bytes.len() >= HEAD_BYTES) else {
        return Decision::Ignore;
    };
    // The highest bit is that of an answer.
    if flags & 0x80 != 0 {
        return Decision::Ignore;
    }
    let id = u16::from_be_bytes([*high, *low]);
    let answer = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    Decision::Answer(encode(&answer, UDP_ANSWER_BYTES))
}

/// An answer to `question` that says nothing yet.
fn reply(question: &Message) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&question.metadata);
    answer.metadata.recursion_available = true;
    answer.queries.clone_from(&question.queries);
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_QUESTION_BYTES);
        answer.edns = Some(edns);
    }
    answer
}

/// The bytes of an answer. Records for which there is no room are left out, and the answer says so.
fn encode(answer: &Message, bytes_max: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(bytes_max);
    match answer.emit(&mut encoder) {
        Ok(()) => bytes,
        // Not even the question fits: who asked so much is told nothing.
        Err(_) => Vec::new(),
    }
}

/// Puts `items` into another order.
fn shuffle<T>(items: &mut [T], mut random: u64) {
    for last in (1..items.len()).rev() {
        // A linear congruential step (Knuth's constants); its high bits are the random ones.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(random >> 33).unwrap_or(0) % (last + 1);
        items.swap(last, other);
    }
}

#[cfg(test)]
#[path = "answer/tests.rs"]
mod tests;
