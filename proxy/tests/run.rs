//! `weft run`: its arguments, and how it starts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod process;

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use process::{Backend, HELLO, Weft, answer, eventually, get, mesh, send};

/// A directory with a mesh of one service.
fn directory(endpoint: SocketAddr) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    mesh(directory.path(), endpoint);
    directory
}

fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], 9).into()
}

#[test]
fn arguments_that_are_refused_say_what_to_write() {
    let directory = directory(nowhere());
    let config = directory.path().to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap();
    let (admin, listen) = (taken_address.to_string(), format!("{taken_address}=catalog.shop:8000"));
    let health = taken_address.port().to_string();
    let cases: &[(&[&str], i32, &str)] = &[
        (&[], 2, "--config <DIR|FILE>"),
        (&["--config", config, "--as", "web-1"], 2, "write it as POD.NAMESPACE, like web-1.shop"),
        (&["--config", config, "--as", "web-1."], 2, "write it as POD.NAMESPACE"),
        (&["--config", config, "--as", "web-1.shop", "--namespace", "shop"], 2, "cannot be used with"),
        (&["--config", config, "--workers", "many"], 2, "invalid value 'many' for '--workers <N>'"),
        (&["--config", config, "--labels", "app"], 2, "write it as KEY=VALUE, like app=web"),
        (&["--config", config, "--ip", "10.0.0"], 2, "invalid value '10.0.0' for '--ip <IP>'"),
        (
            &["--config", config, "--listen", "8080"],
            2,
            "there is no `=` in it; write it like 127.0.0.1:8080=",
        ),
        (&["--config", config, "--listen", "8080=catalog:80"], 2, "`8080` is not an IP address and port"),
        (&["--config", config, "--listen", "127.0.0.1:0=catalog"], 2, "`catalog` has no port"),
        (&["--config", config, "--listen", "127.0.0.1:0=catalog:0"], 2, "is not one from 1 to 65535"),
        (&["--config", config, "--listen", "127.0.0.1:0=:80"], 2, "`:80` has no service"),
        (&["--config", config, "--workers", "0"], 2, "0 is not in 1..=1024"),
        (&["--config", config, "--admin", "15000"], 2, "invalid value '15000' for '--admin <ADDRESS>'"),
        (&["--config", config, "--log", "loud=very=much"], 2, "--log loud=very=much: "),
        (
            &["--config", config, "--health-port", "70000"],
            2,
            "invalid value '70000' for '--health-port <PORT>'",
        ),
        (
            &["--config", config, "--admin", "127.0.0.1:0", "--health-port", &health],
            1,
            &format!("cannot listen on port {health} of all addresses: Address already in use"),
        ),
        (&["--config", config, "--admin", &admin], 1, &format!("cannot listen on {admin}: ")),
        (
            &["--config", config, "--admin", "127.0.0.1:0", "--dns-port", &health],
            1,
            &format!(
                "cannot answer names on port {health} of loopback: Address already in use (os error 98); end what \
                 has it, or choose another with --dns-port"
            ),
        ),
        (
            &["--config", config, "--admin", "127.0.0.1:0", "--listen", &listen],
            1,
            &format!("cannot listen on {admin}: Address already in use"),
        ),
        (
            &["--config", config, "--admin", "127.0.0.1:0", "--ready-file", "/nowhere/ready"],
            1,
            "--ready-file /nowhere/ready: ",
        ),
    ];
    for (arguments, status, expected) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_weft")).arg("run").args(*arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(*status), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn the_ready_file_tells_what_was_bound() {
    let backend = Backend::start();
    let directory = directory(backend.address);
    let config = directory.path().to_str().unwrap();
    let mut weft = Weft::run(&[
        "--config",
        config,
        "--as",
        "web-1.shop",
        "--listen",
        "127.0.0.1:0=catalog.shop:8000",
        "--listen",
        "127.0.0.1:0=outbound:8000",
    ]);
    let bound = weft.ready();
    let targets: Vec<&str> = bound.listeners.iter().map(|(target, _)| target.as_str()).collect();
    assert_eq!(targets, ["catalog.shop:8000", "outbound:8000"]);
    assert!(bound.listeners.iter().all(|(_, address)| address.port() != 0));
    assert_eq!(get(bound.admin, "/ready"), (200, "LIVE\n".to_owned()));
    for (_, address) in &bound.listeners {
        let to = *address;
        let asked = std::thread::spawn(move || get(to, "/"));
        backend.request().write_all(HELLO).unwrap();
        assert_eq!(asked.join().unwrap(), (200, "hello".to_owned()));
    }
}

#[test]
fn names_are_answered_where_the_ready_file_says() {
    let backend = Backend::start();
    let directory = directory(backend.address);
    let config = directory.path().to_str().unwrap();
    let mut weft = Weft::run(&["--config", config, "--as", "web-1.shop", "--dns-port", "0"]);
    let dns = weft.ready().dns.unwrap();
    // The address of `catalog.`, as RFC 1035 has it.
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07catalog\0\0\x01\0\x01";
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(process::PATIENCE)).unwrap();
    socket.send_to(question, dns).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).unwrap();
    // An answer of our own, without an error, that repeats the question and has one address.
    assert_eq!(answer[..8], *b"\x12\x34\x85\x80\0\x01\0\x01", "{:?}", &answer[..length]);
    assert_eq!(answer[length - 4..length], [10, 96, 0, 1]);
}

#[test]
fn an_old_ready_file_is_not_taken_for_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    fs::write(&ready, "{}").unwrap();
    let config = directory.path().join("not-there");
    // The later of the two counts; it is not this one's that is waited for.
    let child = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["run", "--admin", "127.0.0.1:0", "--config", config.to_str().unwrap()])
        .args(["--ready-file", ready.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.unwrap();
    eventually("the old file is gone", || (!ready.exists()).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_is_not_there_yet_is_waited_for_and_told() {
    let parent = tempfile::tempdir().unwrap();
    let config = parent.path().join("config");
    let weft = &mut Weft::run(&["--config", config.to_str().unwrap(), "--as", "web-1.shop"]);
    let admin = weft.admin();
    eventually("the directory is missed", || {
        let (status, why) = get(admin, "/ready");
        assert_eq!(status, 503);
        why.contains("/config cannot be read: No such file or directory").then_some(())
    });
    // The directory comes without the Pod.
    fs::create_dir(&config).unwrap();
    fs::write(config.join("a.yaml"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n").unwrap();
    let why = eventually("the Pod is missed", || {
        let (status, why) = get(admin, "/ready");
        assert_eq!(status, 503);
        why.contains("Pod").then_some(why)
    });
    assert!(why.contains("the configuration has no Pod `web-1` in namespace `shop`"), "{why}");
    assert!(weft.log().contains("say --namespace, --labels, --service-account and --ip instead of --as"));
    assert!(!weft.is_ready());
    mesh(&config, nowhere());
    // Without a listener there is only the console.
    assert_eq!(weft.ready().listeners, []);
}

#[test]
fn a_service_that_nobody_knows_is_warned_of_and_served_when_it_comes() {
    let backend = Backend::start();
    let config = tempfile::tempdir().unwrap();
    fs::write(config.path().join("a.yaml"), "").unwrap();
    let mut weft = Weft::run(&[
        "--config",
        config.path().to_str().unwrap(),
        "--namespace",
        "shop",
        "--listen",
        "127.0.0.1:0=catalog:8000",
    ]);
    let bound = weft.ready();
    let (_, address) = bound.listeners[0];
    assert_eq!(get(address, "/").0, 404);
    let told = get(bound.admin, "/findings").1;
    let what =
        "a listener serves `catalog.shop.svc.cluster.local`, which no service is called; it answers 404";
    assert!(told.contains(what) && weft.log().contains(what), "{told}");
    mesh(config.path(), backend.address);
    let asked = std::thread::spawn(move || {
        eventually("it is served", || Some(get(address, "/")).filter(|(status, _)| *status != 404))
    });
    backend.request().write_all(HELLO).unwrap();
    assert_eq!(asked.join().unwrap(), (200, "hello".to_owned()));
    assert_eq!(get(bound.admin, "/findings").1, "nothing to say: everything is honoured as it is written\n");
}

#[test]
fn several_places_and_a_named_mesh_config_are_one_configuration() {
    let (one, two) = (directory(nowhere()), tempfile::tempdir().unwrap());
    let rule = |host: &str, body: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: shop}}\n\
             spec: {{hosts: [{host}], http: [{{directResponse: {{status: 200, body: {{string: {body}}}}}}}]}}\n"
        )
    };
    let catalog = two.path().join("catalog.json.yaml");
    fs::write(&catalog, rule("catalog", "ruled")).unwrap();
    fs::write(one.path().join("mesh.yaml"), "outboundTrafficPolicy: {mode: ALLOW_ANY}\n").unwrap();
    let named = two.path().join("named");
    fs::write(&named, "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n").unwrap();
    let mut weft = Weft::run(&[
        "--config",
        one.path().to_str().unwrap(),
        "--config",
        catalog.to_str().unwrap(),
        "--mesh-config",
        named.to_str().unwrap(),
        "--namespace",
        "shop",
        "--listen",
        "127.0.0.1:0=outbound:8000",
    ]);
    let bound = weft.ready();
    let (_, address) = bound.listeners[0];
    assert_eq!(get(address, "/"), (200, "ruled".to_owned()));
    // REGISTRY_ONLY is what the named one says; the other is not read, and that is told.
    let stream = send(address, "GET / HTTP/1.1\r\nhost: nobody\r\nconnection: close\r\n\r\n");
    assert!(answer(&stream).0.starts_with("http/1.1 502 "));
    let told = get(bound.admin, "/findings").1;
    assert!(
        told.contains("mesh.yaml:1: warning: it is not read, because --mesh-config names another"),
        "{told}"
    );
}

#[test]
fn what_is_opened_by_name_is_logged() {
    let directory = directory(nowhere());
    let config = directory.path().to_str().unwrap();
    let mut weft = Weft::run(&["--config", config, "--namespace", "shop", "--allow-unenforced-security"]);
    weft.ready();
    assert!(weft.log().contains("WARN --allow-unenforced-security: what asks for TLS is sent in plain text"));
}

#[test]
fn an_environment_that_is_not_text_stops_nobody() {
    use std::os::unix::ffi::OsStrExt as _;
    let directory = directory(nowhere());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = taken.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_weft"))
        .env("ISTIO_META_BROKEN", std::ffi::OsStr::from_bytes(b"\xff"))
        .args(["run", "--config", directory.path().to_str().unwrap(), "--admin", &admin])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with(&format!("weft: cannot listen on {admin}: ")), "{said}");
}

#[test]
fn a_file_that_is_wrong_throughout_does_not_flood_the_log() {
    const OBJECTS: usize = 1_000;
    let directory = directory(nowhere());
    let config = directory.path().to_str().unwrap();
    let bad: String = (0..OBJECTS)
        .map(|number| {
            format!("---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v{number}}}\nspec: {{htp: []}}\n")
        })
        .collect();
    fs::write(directory.path().join("bad.yaml"), bad).unwrap();
    let mut weft = Weft::run(&["--config", config, "--namespace", "shop"]);
    let bound = weft.ready();
    let log = weft.log();
    assert_eq!(log.matches("[unknown-field]").count(), 100);
    // The line says its level, the finding does not say it again.
    let line = log.lines().find(|line| line.contains("shop/v0: ") || line.contains("default/v0: ")).unwrap();
    assert!(line.contains(" ERROR ") && !line.contains("error: "), "{line}");
    assert!(log.contains("900 more findings are at /findings"), "{log}");
    assert_eq!(get(bound.admin, "/findings").1.matches("[unknown-field]").count(), OBJECTS);
    let metrics = get(bound.admin, "/stats/prometheus").1;
    assert!(metrics.contains("\nweft_config_refused_objects 1000\n"), "{metrics}");
    assert!(metrics.contains("\nweft_config_refusals_total 1000\n"), "{metrics}");
}

#[test]
fn the_health_port_tells_readiness_before_and_after() {
    let parent = tempfile::tempdir().unwrap();
    let config = parent.path().join("config");
    let mut weft =
        Weft::run(&["--config", config.to_str().unwrap(), "--as", "web-1.shop", "--health-port", "0"]);
    fs::create_dir(&config).unwrap();
    mesh(&config, nowhere());
    let bound = weft.ready();
    let health = bound.health.unwrap();
    assert_eq!(get(health, "/healthz/ready"), (200, "ok\n".to_owned()));
    assert_eq!(get(health, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(health, "/ready").0, 404);
    // Without the flag there is none, and the ready file tells none.
    let mut without = Weft::run(&["--config", config.to_str().unwrap(), "--as", "web-1.shop"]);
    assert_eq!(without.ready().health, None);
}

#[test]
fn log_levels_change_while_it_runs() {
    let directory = directory(nowhere());
    let config = directory.path().to_str().unwrap();
    let mut weft = Weft::run(&[
        "--config",
        config,
        "--namespace",
        "shop",
        "--listen",
        "127.0.0.1:0=catalog:8000",
        "--log",
        "warn",
    ]);
    let bound = weft.ready();
    let (_, listener) = bound.listeners[0];
    let post = |path: &str| process::ask("POST", bound.admin, path);
    let shown = get(bound.admin, "/logging");
    assert_eq!(shown.0, 200);
    assert!(shown.1.starts_with("active loggers:\n  admin: warning\n"), "{}", shown.1);
    // Who does not speak HTTP is told of in a line of level debug.
    let babble = || {
        let stream = send(listener, "what?\r\n\r\n");
        answer(&stream);
    };
    let told = || weft.log().matches("a client's connection ended badly").count();
    babble();
    let (status, text) = post("/logging?worker=debug");
    assert!(
        status == 200 && text.contains("\n  worker: debug\n") && text.contains("\n  http: warning\n"),
        "{text}"
    );
    eventually("it is told of", || {
        babble();
        (told() > 0).then_some(())
    });
    for (path, what) in [
        ("/logging?worker=loud", "error: unknown logger level `loud`\n"),
        ("/logging?router=info", "error: unknown logger name `router`; there are admin, "),
        ("/logging?paths=worker", "error: `worker` is not NAME:LEVEL\n"),
        ("/logging?worker=info&http=info", "error: invalid number of parameters; there is one\n"),
    ] {
        let (status, text) = post(path);
        assert!(
            status == 400 && text.starts_with(what) && text.contains("\nlevels: trace debug"),
            "{path}: {text}"
        );
    }
    let (_, text) = post("/logging?paths=worker:off,http:trace");
    assert!(text.contains("\n  worker: off\n") && text.contains("\n  http: trace\n"), "{text}");
    let (_, text) = post("/logging?level=error");
    assert!(text.contains("\n  worker: error\n") && text.ends_with("\nthe same as --log error\n"), "{text}");
    let before = told();
    babble();
    assert_eq!(get(bound.admin, "/logging").1, text);
    assert_eq!(told(), before);
}

/// Workers log, too: they do not wait for who reads it.
#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let directory = directory(nowhere());
    let config = directory.path().to_str().unwrap();
    let listen = "127.0.0.1:0=outbound:8000";
    let arguments =
        ["--config", config, "--namespace", "shop", "--listen", listen, "--log", "trace", "--workers", "1"];
    let mut weft = Weft::start(&arguments, |command| {
        command.stderr(Stdio::piped());
    });
    let (_, listener) = weft.ready().listeners[0];
    for _ in 0..2_000 {
        let stream = send(listener, "GET / HTTP/1.1\r\nhost: nowhere\r\nconnection: close\r\n\r\n");
        assert!(answer(&stream).0.starts_with("http/1.1 "));
    }
    weft.signal("TERM");
    assert_eq!(weft.ended().code(), Some(0));
}
