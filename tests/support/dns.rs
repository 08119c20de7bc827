//! A DNS server on loopback that tells what a test wants it to.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::proto::op::{Message, Metadata, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// A server for both transports of DNS. It knows no name at first. It ends with the value.
#[derive(Debug)]
pub struct TestDns {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug, Default)]
struct State {
    /// Names without the last dot.
    names: HashMap<String, Told>,
    asked: HashMap<String, usize>,
    /// Answers over UDP say nothing but that they are cut off.
    cut_off: bool,
    over_tcp: usize,
}

/// What it tells of a name.
#[derive(Debug, Clone)]
pub enum Told {
    /// These addresses, with this time to live in seconds.
    Addresses(u32, Vec<IpAddr>),
    /// That something is wrong with this server.
    Failure,
    /// Nothing at all.
    Silence,
    /// An address, with this code and without the question.
    Unasked(ResponseCode),
}

impl TestDns {
    /// On a port of its own.
    pub async fn start() -> TestDns {
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().expect("an address");
        let state: Arc<Mutex<State>> = Arc::default();
        let tasks =
            [tokio::spawn(serve_udp(udp, state.clone())), tokio::spawn(serve_tcp(tcp, state.clone()))];
        TestDns { address, state, tasks }
    }

    /// From now on it tells these addresses of a name.
    pub fn tell(&self, name: &str, ttl: u32, addresses: &[IpAddr]) {
        self.say(name, Told::Addresses(ttl, addresses.to_vec()));
    }

    /// From now on it tells this of a name.
    pub fn say(&self, name: &str, told: Told) {
        self.state.lock().names.insert(name.to_owned(), told);
    }

    /// From now on there is no such name.
    pub fn forget(&self, name: &str) {
        self.state.lock().names.remove(name);
    }

    /// From now on it cuts off what it says over UDP.
    pub fn cut_off(&self) {
        self.state.lock().cut_off = true;
    }

    /// How often it was asked for a name, of whatever type.
    pub fn asked(&self, name: &str) -> usize {
        self.state.lock().asked.get(name).copied().unwrap_or(0)
    }

    /// How often it was asked over TCP.
    pub fn asked_over_tcp(&self) -> usize {
        self.state.lock().over_tcp
    }
}

impl Drop for TestDns {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// One port for both transports.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        // Somebody else may have the other transport of that port.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("an address")).await {
            return (udp, tcp);
        }
    }
}

async fn serve_udp(socket: UdpSocket, state: Arc<Mutex<State>>) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(mut answer) = answer(&buffer[..length], &state) {
            if state.lock().cut_off {
                answer.answers.clear();
                answer.metadata.truncation = true;
            }
            let bytes = answer.to_vec().expect("a message");
            // The client may be gone.
            let _ = socket.send_to(&bytes, client).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, state: Arc<Mutex<State>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = state.clone();
        tokio::spawn(async move { serve_stream(stream, &state).await });
    }
}

async fn serve_stream(mut stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    loop {
        let length = stream.read_u16().await.ok()?;
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await.ok()?;
        state.lock().over_tcp += 1;
        let Some(answer) = answer(&question, state) else { continue };
        let bytes = answer.to_vec().expect("a message");
        stream.write_u16(u16::try_from(bytes.len()).expect("a short message")).await.ok()?;
        stream.write_all(&bytes).await.ok()?;
    }
}

/// The answer to a question; `None` for silence.
fn answer(question: &[u8], state: &Mutex<State>) -> Option<Message> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?;
    let name = query.name().to_ascii();
    let name = name.trim_end_matches('.').to_lowercase();
    let mut state = state.lock();
    *state.asked.entry(name.clone()).or_default() += 1;
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&question.metadata);
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    match state.names.get(&name) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(Told::Failure) => answer.metadata.response_code = ResponseCode::ServFail,
        Some(Told::Silence) => return None,
        Some(Told::Unasked(code)) => {
            answer.metadata.response_code = *code;
            answer.queries.clear();
            let address = RData::A(A(Ipv4Addr::new(192, 0, 2, 66)));
            answer.add_answers([Record::from_rdata(query.name().clone(), 60, address)]);
        }
        Some(Told::Addresses(ttl, addresses)) => {
            let data = addresses.iter().filter_map(|address| match (address, query.query_type()) {
                (IpAddr::V4(address), RecordType::A) => Some(RData::A(A(*address))),
                (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(AAAA(*address))),
                _ => None,
            });
            answer.add_answers(data.map(|data| Record::from_rdata(query.name().clone(), *ttl, data)));
        }
    }
    Some(answer)
}
