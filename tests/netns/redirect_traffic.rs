//! What redirect rules do to traffic, between a pod and another host that are joined by a wire.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use support::{Namespace, PATIENCE};

use crate::redirect::{BACK_ENDS, MODES, bare_namespace, redirect, run};

/// The proxy's user.
const PROXY: u32 = 1337;

/// An application's.
const APPLICATION: u32 = 0;

/// Addresses of one family.
#[derive(Debug, Clone, Copy)]
struct Plan {
    pod: IpAddr,
    other: IpAddr,
    /// From where the proxy dials its application.
    source: IpAddr,
    any: IpAddr,
}

fn plans() -> [Plan; 2] {
    [["10.77.0.2", "10.77.0.1", "127.0.0.6", "0.0.0.0"], ["fd77::2", "fd77::1", "::6", "::"]].map(
        |addresses| {
            let [pod, other, source, any] = addresses.map(|address| address.parse().expect("an address"));
            Plan { pod, other, source, any }
        },
    )
}

/// A pod and another host, joined. `None` when the test is skipped.
fn joined(test: &str) -> Option<(Namespace, Namespace)> {
    let (pod, other) = (bare_namespace(test)?, bare_namespace(test)?);
    let name = other.name();
    let ip = |text: &str| {
        let output = run("ip", &text.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "ip {text}: {}", String::from_utf8_lossy(&output.stderr));
    };
    pod.run(|| async move {
        ip(&format!("link add eth0 type veth peer name eth0 netns {name}"));
        for (at, end) in [(String::new(), 2), (format!("-n {name} "), 1)] {
            ip(&format!("{at}address add 10.77.0.{end}/24 dev eth0"));
            ip(&format!("{at}-6 address add fd77::{end}/64 dev eth0 nodad"));
            ip(&format!("{at}link set eth0 up"));
        }
        ip("route add default via 10.77.0.1");
        ip("-6 route add default via fd77::1");
    });
    Some((pod, other))
}

/// Does something on a thread that is a user's.
fn as_user<T: Send>(uid: u32, what: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let uid = Uid::from_raw(uid);
            set_thread_res_uid(uid, uid, uid).expect("root may be anybody");
            what()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Asks a server who it is, as a user, from an address; what it says, or why it could not.
fn ask(uid: u32, from: Option<IpAddr>, to: SocketAddr) -> String {
    let ask = || -> io::Result<String> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut said = String::new();
        std::net::TcpStream::from(OwnedFd::from(socket)).read_to_string(&mut said)?;
        Ok(said)
    };
    as_user(uid, move || ask().unwrap_or_else(|error| error.to_string()))
}

/// A server that says its name and who asks, and if it is the proxy, for whom the question was. It ends with the
/// process; the namespace goes before.
fn serve(name: &'static str, address: SocketAddr, is_transparent: bool) {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    if address.is_ipv6() {
        socket.set_only_v6(true).expect("an option");
    }
    if is_transparent {
        let set =
            if address.is_ipv4() { Socket::set_ip_transparent_v4 } else { Socket::set_ip_transparent_v6 };
        set(&socket, true).expect("root may");
    }
    socket.bind(&address.into()).expect("the address is free");
    socket.listen(16).expect("it listens");
    let listener = TcpListener::from(OwnedFd::from(socket));
    thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::Write as _;
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().expect("a peer").ip();
            let mut answer = format!("{name} {peer}");
            if name.starts_with("proxy") {
                let socket = SockRef::from(&stream);
                let original =
                    if address.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
                let original = original.expect("the kernel knows").as_socket().expect("an address");
                answer = format!("{answer} {original} {}", stream.local_addr().expect("an address"));
            }
            drop(stream.write_all(answer.as_bytes()));
        }
    });
}

#[test]
fn traffic_goes_where_the_rules_say() {
    const TEST: &str = "netns::redirect_traffic::traffic_goes_where_the_rules_say";
    for back_end in BACK_ENDS {
        for mode in MODES {
            let Some((pod, other)) = joined(TEST) else { return };
            other.run(|| async {
                plans().iter().for_each(|plan| serve("outside", SocketAddr::new(plan.any, 9000), false));
            });
            pod.run(|| async move {
                let (status, said) = redirect(&["apply", back_end, "-m", mode, "--dual-stack", "-o", "9001"]);
                assert_eq!(status, 0, "{said}");
                for plan in plans() {
                    let at = |port| SocketAddr::new(plan.any, port);
                    serve("proxy-outbound", at(15001), false);
                    serve("proxy-inbound", at(15006), mode == "TPROXY");
                    serve("application", at(8080), false);
                    serve("agent", at(15020), false);
                }
            });
            for plan in plans() {
                let what = format!("{back_end} {mode} {}", plan.pod);
                check_inbound(&other, plan, mode, &what);
                check_outbound(&pod, plan, &what);
            }
        }
    }
}

fn check_inbound(other: &Namespace, plan: Plan, mode: &str, what: &str) {
    let Plan { pod, other: client, .. } = plan;
    let at = |port| SocketAddr::new(pod, port);
    let asked = |to| other.run(|| async move { ask(APPLICATION, None, to) });
    // TPROXY leaves the destination as it is.
    let local = if mode == "TPROXY" { at(8080) } else { at(15006) };
    assert_eq!(asked(at(8080)), format!("proxy-inbound {client} {} {local}", at(8080)), "{what}");
    assert_eq!(asked(at(81)), format!("proxy-inbound {client} {} {}", at(81), local_of(local, 81)), "{what}");
    assert_eq!(asked(at(15020)), format!("agent {client}"), "{what}: a port that is left alone");
}

fn local_of(local: SocketAddr, port: u16) -> SocketAddr {
    if local.port() == 8080 { SocketAddr::new(local.ip(), port) } else { local }
}

fn check_outbound(namespace: &Namespace, plan: Plan, what: &str) {
    let Plan { pod, other, source, .. } = plan;
    let loopback: IpAddr = if pod.is_ipv4() { [127, 0, 0, 1].into() } else { IpAddr::V6(1.into()) };
    let asked = |uid, from, to| namespace.run(|| async move { ask(uid, from, to) });
    let (outside, own) = (SocketAddr::new(other, 9000), SocketAddr::new(pod, 8080));
    let port = |port| SocketAddr::new(loopback, port);
    let by_proxy = format!("proxy-outbound {pod} {outside} {}", port(15001));
    assert_eq!(asked(APPLICATION, None, outside), by_proxy, "{what}: an application");
    assert_eq!(asked(PROXY, None, outside), format!("outside {pod}"), "{what}: the proxy");
    let refused = asked(APPLICATION, None, SocketAddr::new(other, 9001));
    assert!(refused.contains("refused"), "{what}: a port that is left alone: {refused}");
    assert_eq!(asked(APPLICATION, None, own), format!("application {pod}"), "{what}: itself by address");
    assert_eq!(asked(APPLICATION, None, port(8080)), format!("application {loopback}"), "{what}: localhost");
    let by_itself = format!("proxy-inbound {pod} {own} {}", port(15006));
    assert_eq!(asked(PROXY, None, own), by_itself, "{what}: the proxy calls its own pod");
    let dialled = asked(PROXY, Some(source), own);
    assert_eq!(dialled, format!("application {source}"), "{what}: the proxy dials its application");
}

#[test]
fn questions_for_names_go_to_the_agent_and_its_own_to_the_resolver() {
    const TEST: &str =
        "netns::redirect_traffic::questions_for_names_go_to_the_agent_and_its_own_to_the_resolver";
    for back_end in BACK_ENDS {
        let Some((pod, other)) = joined(TEST) else { return };
        other.run(|| async {
            for plan in plans() {
                answer("resolver", SocketAddr::new(plan.other, 53), APPLICATION);
                serve("resolver", SocketAddr::new(plan.other, 53), false);
            }
        });
        pod.run(|| async move {
            let arguments = ["apply", back_end, "--dual-stack", "--redirect-dns", "--capture-all-dns"];
            let (status, said) = redirect(&arguments);
            assert_eq!(status, 0, "{said}");
            for plan in plans() {
                let loopback = if plan.pod.is_ipv4() { [127, 0, 0, 1].into() } else { IpAddr::V6(1.into()) };
                answer("agent", SocketAddr::new(loopback, 15053), PROXY);
                serve("agent", SocketAddr::new(loopback, 15053), false);
            }
            for plan in plans() {
                let resolver = SocketAddr::new(plan.other, 53);
                let what = format!("{back_end} {}", plan.pod);
                // Both from one port: only their zones tell the two apart.
                let from = SocketAddr::new(plan.pod, 5353);
                assert_eq!(question(APPLICATION, from, resolver), "agent", "{what}");
                assert_eq!(question(PROXY, from, resolver), "resolver", "{what}");
                assert_eq!(ask(APPLICATION, None, resolver), format!("agent {}", plan.pod), "{what}: TCP");
                assert_eq!(ask(PROXY, None, resolver), format!("resolver {}", plan.pod), "{what}: TCP");
            }
        });
    }
}

/// A user's server that answers each datagram with its name.
fn answer(name: &'static str, address: SocketAddr, uid: u32) {
    let bind = move || bound(address).expect("the address is free");
    let socket = if address.port() < 1024 { bind() } else { as_user(uid, bind) };
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut bytes) {
            drop(socket.send_to(name.as_bytes(), peer));
        }
    });
}

/// A socket at an address that was in use a moment ago: a process that another test is about to start holds copies of
/// our descriptors until it runs its program.
fn bound(address: SocketAddr) -> io::Result<UdpSocket> {
    for _ in 0..5_000 {
        match UdpSocket::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(Duration::from_millis(1)),
            bound => return bound,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Sends a datagram as a user and returns what comes back from where it was sent.
fn question(uid: u32, from: SocketAddr, to: SocketAddr) -> String {
    let ask = || -> io::Result<String> {
        let socket = bound(from)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.send(b"?")?;
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
    };
    as_user(uid, move || ask().unwrap_or_else(|error| error.to_string()))
}
