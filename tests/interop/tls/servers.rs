//! openssl as the server of a service that a DestinationRule speaks TLS to.

use std::fs;
use std::path::Path;

use support::mesh::destination_rule;
use support::tls::{Ca, Files};
use support::{Answer, Mesh, Request, TestProxy, eventually};
use tokio::process::Command;

use crate::servers::{Server, free_address};
use crate::tools::find;

/// A server with what `NAME.pem` and `NAME.key` hold, and these arguments.
async fn s_server(openssl: &Path, files: &Files, name: &str, arguments: &[&str]) -> Server {
    let address = free_address();
    let mut command = Command::new(openssl);
    let (chain, key) = (format!("{name}.pem"), format!("{name}.key"));
    command.current_dir(files.path()).args(["s_server", "-quiet", "-accept", &address.to_string()]);
    command.args(["-cert", &chain, "-key", &key]).args(arguments);
    Server::start(command, address).await
}

async fn proxy_of(server: &Server, files: &Files, tls: &str) -> TestProxy {
    let tls = tls.replace("DIR", &files.path().display().to_string());
    let rule = destination_rule("shop", &format!("  trafficPolicy: {{tls: {{{tls}}}}}"));
    let mesh = Mesh::new().service("shop", "http/8000").endpoint("shop", "http", "v1", server.address);
    TestProxy::of(mesh.with("rule.yaml", &rule)).listen("shop", 8000).ready().await
}

async fn ask(proxy: &TestProxy, path: &str) -> Answer {
    Request::get(path).host("shop.example").send(proxy.listener(0)).await
}

fn files() -> Files {
    let (ca, stranger) = (Ca::new("shop"), Ca::new("stranger"));
    let files = Files::new(&ca);
    let certificates = [
        ("server", ca.issue("shop.example", |_| {})),
        ("rsa", ca.issue_rsa("shop.example", |_| {})),
        ("other", ca.issue("other.example", |_| {})),
        ("unknown", stranger.issue("shop.example", |_| {})),
        ("client", ca.issue("client", |_| {})),
        ("foreign", stranger.issue("client", |_| {})),
    ];
    for (name, pem) in &certificates {
        files.write(&format!("{name}.pem"), &pem.chain);
        files.write(&format!("{name}.key"), &pem.key);
    }
    files
}

const SIMPLE: &str =
    "mode: SIMPLE, caCertificates: DIR/roots.pem, sni: shop.example, subjectAltNames: [shop.example]";
const MUTUAL: &str = "mode: MUTUAL, caCertificates: DIR/roots.pem, sni: shop.example, subjectAltNames: [shop.example], \
                      clientCertificate: DIR/client.pem, privateKey: DIR/client.key";
const FOREIGN: &str = "mode: MUTUAL, caCertificates: DIR/roots.pem, sni: shop.example, subjectAltNames: [shop.example], \
                       clientCertificate: DIR/foreign.pem, privateKey: DIR/foreign.key";
/// It must be shown a certificate that its authority has signed.
const VERIFIES: [&str; 5] = ["-www", "-Verify", "4", "-CAfile", "roots.pem"];

/// What the server shows, how it is started, what the rule says; what is told of the connection, or why there is none.
type Case<'c> = (&'c str, &'c [&'c str], &'c str, Result<&'c str, &'c str>);

#[tokio::test(flavor = "multi_thread")]
async fn openssl_serves_who_verifies_it_and_is_verified() {
    const TEST: &str = "interop::tls::servers::openssl_serves_who_verifies_it_and_is_verified";
    let Some(openssl) = find("openssl", TEST) else { return };
    let files = files();
    let verifies = [&VERIFIES[..], &["-verify_return_error"]].concat();
    let verifies_12 = [&verifies[..], &["-tls1_2"]].concat();
    let cases: [Case<'_>; 15] = [
        ("server", &["-www"], SIMPLE, Ok("New, TLSv1.3, Cipher is TLS_")),
        ("server", &["-www", "-tls1_2"], SIMPLE, Ok("New, TLSv1.2, Cipher is ECDHE-ECDSA-")),
        ("rsa", &["-www", "-tls1_2"], SIMPLE, Ok("New, TLSv1.2, Cipher is ECDHE-RSA-")),
        ("server", &["-www", "-alpn", "http/1.1"], SIMPLE, Ok("-alpn http/1.1")),
        ("server", &["-www", "-alpn", "h2"], SIMPLE, Err("server_refused")),
        ("server", &verifies, MUTUAL, Ok("CN=client")),
        ("server", &verifies_12, MUTUAL, Ok("CN=client")),
        ("other", &["-www"], SIMPLE, Err("certificate_not_of_a_wanted_name")),
        ("unknown", &["-www"], SIMPLE, Err("certificate_unknown_issuer")),
        ("server", &["-www", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], SIMPLE, Err("server_refused")),
        ("rsa", &["-www", "-tls1_2", "-cipher", "AES128-SHA"], SIMPLE, Err("server_refused")),
        ("server", &verifies_12, SIMPLE, Err("server_refused")),
        ("server", &verifies_12, FOREIGN, Err("server_refused")),
        ("server", &verifies, SIMPLE, Err("server_refused")),
        ("server", &verifies, FOREIGN, Err("server_refused")),
    ];
    for (shown, arguments, rule, expected) in cases {
        let what = format!("{shown} {arguments:?} {expected:?}");
        let server = s_server(&openssl, &files, shown, arguments).await;
        let proxy = proxy_of(&server, &files, rule).await;
        let answer = ask(&proxy, "/").await;
        match expected {
            Ok(told) => {
                assert_eq!(answer.status, 200, "{what}: {}", answer.text());
                assert!(answer.text().contains(told), "{what}: {}", answer.text());
            }
            Err(reason) => {
                assert_eq!(answer.status, 503, "{what}: {}", answer.text());
                let labels = [("reason", reason)];
                let failures = || proxy.metric("weft_cluster_tls_handshake_failures_total", &labels);
                eventually(&what, failures).await;
                let errors = proxy.page("/errors").await;
                assert!(
                    errors.contains(&reason.replace('_', " ")) || errors.contains(reason),
                    "{what}: {errors}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_serves_files() {
    let Some(openssl) = find("openssl", "interop::tls::servers::openssl_serves_files") else { return };
    let files = files();
    let body = crate::clients::body(3_000_000);
    fs::write(files.path().join("body"), &body).expect("the file is written");
    for (arguments, rule) in
        [(&["-WWW"][..], SIMPLE), (&["-WWW", "-Verify", "4", "-CAfile", "roots.pem"], MUTUAL)]
    {
        let server = s_server(&openssl, &files, "server", arguments).await;
        let proxy = proxy_of(&server, &files, rule).await;
        for _ in 0..3 {
            let answer = ask(&proxy, "/body").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.body == body, "{} bytes come as they are", answer.body.len());
        }
    }
}
