//! openssl and curl as clients of a gateway.

use std::path::PathBuf;

use support::sides::Side;
use support::{Log, eventually};

use super::{Gateway, get, s_client};
use crate::tools::{attempt, find};

/// What a client shows, and whether it is good where it must be.
const SHOWN: [&str; 3] = ["", "good", "stranger"];

/// Why a server refuses who shows that; `None` when it does not.
fn refusal(host: &str, shown: &str) -> Option<&'static str> {
    match (host, shown) {
        ("mutual.example", "") => Some("certificate_missing"),
        ("mutual.example" | "optional.example", "stranger") => Some("certificate_unknown_issuer"),
        _ => None,
    }
}

/// Sees what became of a client that was answered that, or was refused.
async fn judge(gateway: &Gateway, (host, shown): (&str, &str), before: f64, answer: &str, what: &str) {
    if let Some(reason) = refusal(host, shown) {
        assert!(!answer.contains("\"path\""), "{what}: {answer}");
        eventually(what, || async { (gateway.failures(reason).await == before + 1.0).then_some(()) }).await;
        return;
    }
    assert!(answer.contains("200") && answer.contains("\"path\":\"/a\""), "{what}: {answer}");
    let is_known = shown == "good" && host != "ecdsa.example";
    assert_eq!(answer.contains("DNS=client"), is_known, "{what}: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_is_let_in_or_not() {
    let Some(openssl) = find("openssl", "interop::tls::clients::openssl_is_let_in_or_not") else { return };
    let gateway = Gateway::start().await;
    let roots = gateway.file("roots.pem");
    for host in ["ecdsa.example", "mutual.example", "optional.example"] {
        for shown in SHOWN {
            for (version, told) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
                let what = format!("{host} {shown} {version}");
                let (chain, key) =
                    (gateway.file(&format!("{shown}.pem")), gateway.file(&format!("{shown}.key")));
                let mut arguments = vec!["-servername", host, version, "-alpn", "http/1.1"];
                arguments.extend(["-CAfile", &roots, "-verify_return_error", "-verify_hostname", host]);
                if !shown.is_empty() {
                    arguments.extend(["-cert", &chain, "-key", &key]);
                }
                let before = gateway.failures(refusal(host, shown).unwrap_or_default()).await;
                let (_, said) = s_client(&openssl, gateway.address, &arguments, &get(host)).await;
                let answer = said.text();
                judge(&gateway, (host, shown), before, &answer, &what).await;
                if refusal(host, shown).is_none() {
                    let expected = [
                        format!("New, {told}, Cipher is"),
                        "Verify return code: 0 (ok)".to_owned(),
                        "ALPN protocol: http/1.1".to_owned(),
                    ];
                    for expected in expected {
                        assert!(answer.contains(&expected), "{what}: {expected} in {answer}");
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_gets_the_certificate_for_its_name_and_signatures() {
    const TEST: &str = "interop::tls::clients::openssl_gets_the_certificate_for_its_name_and_signatures";
    let Some(openssl) = find("openssl", TEST) else { return };
    let gateway = Gateway::start().await;
    let (rsa, ecdsa) = ("rsa_pss_rsae_sha256:RSA+SHA256", "ECDSA+SHA256");
    let cases: [(&[&str], &str); 6] = [
        (&["-servername", "ecdsa.example"], "CN = ecdsa.example"),
        (&["-servername", "rsa.example"], "CN = rsa.example"),
        (&["-servername", "both.example"], "CN = ecdsa.example"),
        (&["-servername", "both.example", "-sigalgs", rsa], "CN = rsa.example"),
        (&["-servername", "both.example", "-sigalgs", ecdsa], "CN = ecdsa.example"),
        (&["-servername", "both.example", "-tls1_2", "-cipher", "aRSA+AESGCM"], "CN = rsa.example"),
    ];
    for (arguments, shown) in cases {
        let (_, said) = s_client(&openssl, gateway.address, arguments, &get(arguments[1])).await;
        let answer = said.text();
        assert!(answer.contains(shown) && answer.contains("HTTP/1.1 200"), "{arguments:?}: {answer}");
    }
}

/// Who has nothing in common with a server hears so, and not that it is not let in: scanners and clients that try again with
/// something else know the difference.
#[tokio::test(flavor = "multi_thread")]
async fn openssl_hears_why_there_is_no_handshake() {
    const TEST: &str = "interop::tls::clients::openssl_hears_why_there_is_no_handshake";
    let Some(openssl) = find("openssl", TEST) else { return };
    let gateway = Gateway::start().await;
    let mut log = Log::of(&gateway.proxy.mesh, Side::Weft(&gateway.proxy));
    let (failure, version) = ("handshake failure", "alert protocol version");
    let (nothing, not_spoken) = ("nothing_in_common", "version_not_spoken");
    let cases: [(&str, &[&str], &str, &str); 9] = [
        ("ecdsa.example", &["-tls1_2", "-cipher", "AES128-SHA"], failure, nothing),
        ("ecdsa.example", &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], failure, nothing),
        ("ecdsa.example", &["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"], failure, nothing),
        ("ecdsa.example", &["-tls1_3", "-sigalgs", "ed25519"], failure, nothing),
        ("ecdsa.example", &["-curves", "brainpoolP256r1", "-tls1_2"], failure, nothing),
        ("rsa.example", &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], failure, nothing),
        ("both.example", &["-tls1_2", "-sigalgs", "ed25519"], failure, nothing),
        // Who speaks less than TLS 1.2 does not say either which signatures it understands, and that is missed first.
        ("both.example", &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], failure, nothing),
        ("new.example", &["-tls1_2"], version, not_spoken),
    ];
    for (host, arguments, alert, reason) in cases {
        let before = gateway.failures(reason).await;
        let asked = [&["-servername", host], arguments].concat();
        let (status, said) = s_client(&openssl, gateway.address, &asked, &get(host)).await;
        assert!(!status.success() && said.err.contains(alert), "{asked:?}: {}", said.err);
        eventually(reason, || async { (gateway.failures(reason).await > before).then_some(()) }).await;
        let line = log.next().await;
        assert_eq!(line.ending(), format!("0 NR {reason}"), "{asked:?}");
        assert_eq!(line.field("requested_server_name"), host);
    }
    // Grouped by what asks for TLS there.
    let errors = gateway.proxy.page("/errors").await;
    for (count, reason) in [(8, nothing), (1, not_spoken)] {
        let mut lines = errors
            .lines()
            .filter(|line| line.contains(&format!("handshake of TLS failed: {reason}, by Gateway")));
        let counts = lines.by_ref().filter_map(|line| line.trim().split(' ').next()?.parse::<u32>().ok());
        assert_eq!(counts.sum::<u32>(), count, "{reason}: {errors}");
    }
    assert_eq!(gateway.backend.served(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_let_in_or_not() {
    let Some(curl) = find("curl", "interop::tls::clients::curl_is_let_in_or_not") else { return };
    let gateway = Gateway::start().await;
    let (roots, address) = (gateway.file("roots.pem"), gateway.address);
    for host in ["ecdsa.example", "mutual.example", "optional.example"] {
        for shown in SHOWN {
            for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
                let what = format!("{host} {shown} {option}");
                let (chain, key) =
                    (gateway.file(&format!("{shown}.pem")), gateway.file(&format!("{shown}.key")));
                let resolve = format!("{host}:{}:{}", address.port(), address.ip());
                let url = format!("https://{host}:{}/a", address.port());
                let mut arguments = vec!["--silent", "--show-error", "--cacert", &roots, option, "--resolve"];
                arguments.extend([&*resolve, "--write-out", "\n%{http_version} %{http_code}\n", &url]);
                if !shown.is_empty() {
                    arguments.extend(["--cert", &chain, "--key", &key]);
                }
                let before = gateway.failures(refusal(host, shown).unwrap_or_default()).await;
                let (status, said) = attempt(&curl, arguments, b"").await;
                let answer = said.text();
                judge(&gateway, (host, shown), before, &answer, &what).await;
                let refused = refusal(host, shown).is_some();
                assert_eq!(status.success(), !refused, "{what}: {}", said.err);
                assert!(refused || answer.ends_with(&format!("\n{version} 200\n")), "{what}: {answer}");
            }
        }
    }
    believes_only_who_it_asked_for(&curl, &gateway).await;
}

/// A client that asks for another name than the certificate has, or trusts nobody who signed it, goes; that is told, too.
async fn believes_only_who_it_asked_for(curl: &PathBuf, gateway: &Gateway) {
    let (address, before) = (gateway.address, gateway.failures("client_refused").await);
    let resolve = format!("ecdsa.example:{}:{}", address.port(), address.ip());
    let url = format!("https://ecdsa.example:{}/a", address.port());
    let (status, said) = attempt(curl, ["--silent", "--show-error", "--resolve", &resolve, &url], b"").await;
    assert_eq!(status.code(), Some(60), "{}", said.err);
    let told = || async { (gateway.failures("client_refused").await > before).then_some(()) };
    eventually("the refusal is told", told).await;
}
