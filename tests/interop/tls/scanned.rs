//! A gateway as sslyze sees it: which versions and cipher suites are spoken, which attacks are possible, and what Mozilla's
//! recommendation for servers of today says of it. Its report is told in the README.

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::skip::skip;

use super::Gateway;
use crate::tools::attempt;

/// The version whose report is in the README.
const VERSION: &str = "6.3.1";

/// Where it is, if `tests/run` has installed it.
fn sslyze(test: &str) -> Option<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../.tools/sslyze-{VERSION}"));
    let found = Some(home.join("bin/sslyze")).filter(|program| program.is_file());
    if found.is_none() {
        skip(
            &format!("{test}@no-sslyze"),
            &format!("no sslyze in {}; tests/run installs it", home.display()),
        );
    }
    found
}

/// A report without the digits of numbers that are too long to be numbers here: those of RSA's keys.
fn shortened(report: &str) -> String {
    let pieces = report.split_inclusive(|character: char| !character.is_ascii_digit());
    pieces.map(|piece| if piece.len() > 300 { &piece[piece.len() - 2..] } else { piece }).collect()
}

/// The names of the cipher suites that were accepted.
fn accepted(report: &Value, version: &str) -> Vec<String> {
    let suites = report[format!("{version}_cipher_suites")]["result"]["accepted_cipher_suites"].as_array();
    let name = |suite: &Value| suite["cipher_suite"]["name"].as_str().unwrap_or_default().to_owned();
    let mut names: Vec<String> = suites.expect("a list").iter().map(name).collect();
    names.sort();
    names
}

/// The six of TLS 1.2 with ECDHE and an AEAD; as a server with keys of both kinds has them.
const TLS_1_2: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

const TLS_1_3: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// What else is asked about, beyond what the recommendation needs; and what must be the answer to each question.
const MORE: [&str; 3] = ["--early_data", "--resum", "--certinfo"];

const ANSWERS: [(&str, &str, Expected); 11] = [
    ("heartbleed", "is_vulnerable_to_heartbleed", Expected::Is(false)),
    ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", Expected::Is(false)),
    ("robot", "robot_result", Expected::Says("NOT_VULNERABLE_RSA_NOT_SUPPORTED")),
    ("tls_compression", "supports_compression", Expected::Is(false)),
    ("tls_1_3_early_data", "supports_early_data", Expected::Is(false)),
    ("session_renegotiation", "supports_secure_renegotiation", Expected::Is(true)),
    ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", Expected::Is(false)),
    ("tls_fallback_scsv", "supports_fallback_scsv", Expected::Is(true)),
    ("tls_extended_master_secret", "supports_ems_extension", Expected::Is(true)),
    // Each handshake is a full one.
    ("session_resumption", "session_id_resumption_result", Expected::Says("NOT_SUPPORTED")),
    ("session_resumption", "tls_ticket_resumption_result", Expected::Says("NOT_SUPPORTED")),
];

/// A part of the report.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Is(bool),
    Says(&'static str),
}

#[tokio::test(flavor = "multi_thread")]
async fn sslyze_finds_nothing() {
    let Some(sslyze) = sslyze("interop::tls::scanned::sslyze_finds_nothing") else { return };
    let gateway = Gateway::start().await;
    let report = gateway.file("report.json");
    let (to, only_ecdsa) = (gateway.address.to_string(), &TLS_1_2[..3]);
    for (host, suites) in
        [("both.example", &TLS_1_2[..]), ("ecdsa.example", only_ecdsa), ("rsa.example", &TLS_1_2[3..])]
    {
        let mut arguments = vec!["--json_out", &report, "--sni", host];
        arguments.extend(["--mozilla_config", "intermediate", &to]);
        let (status, said) = attempt(&sslyze, arguments.into_iter().chain(MORE), b"").await;
        let text = said.text();
        let scanned = std::fs::read(&report).expect("a report");
        let scanned: Value =
            serde_json::from_str(&shortened(&String::from_utf8_lossy(&scanned))).expect("JSON");
        let scanned = &scanned["server_scan_results"][0]["scan_result"];
        let scans = scanned.as_object().expect("scans");
        for (name, scan) in scans {
            let is_asked = scan["status"] == "COMPLETED" || name == "http_headers";
            assert!(is_asked, "{host} {name}: {} {}", scan["error_reason"], scan["error_trace"]);
        }
        for version in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
            assert!(accepted(scanned, version).is_empty(), "{host} {version}");
        }
        assert_eq!(accepted(scanned, "tls_1_2"), suites, "{host}");
        assert_eq!(accepted(scanned, "tls_1_3"), TLS_1_3, "{host}");
        for (scan, question, expected) in ANSWERS {
            let answer = &scanned[scan]["result"][question];
            let is_so = match expected {
                Expected::Is(expected) => answer == expected,
                Expected::Says(expected) => answer == expected,
            };
            assert!(is_so, "{host} {scan} {question}: {answer}, and not {expected:?}");
        }
        // Nobody whom it knows has signed the certificates of a test; nothing else is missed.
        let (_, judged) = text.split_once("FAILED - Not compliant.").unwrap_or((&text, &text));
        let missed: Vec<&str> = judged.lines().filter_map(|line| line.trim().strip_prefix("* ")).collect();
        assert!(!status.success() && missed.len() == 1, "{host}: {missed:?} {text}");
        assert!(missed[0].starts_with("certificate_path_validation: "), "{host}: {missed:?}");
    }
}
