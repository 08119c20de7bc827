//! Connections of TLS: at a gateway that terminates it, and between workloads of the mesh.

use std::fs;
use std::path::PathBuf;

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, RevokedCertParams, SanType,
};

use super::Config;

pub(crate) fn pem(what: &str, der: &[u8]) -> String {
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", BASE64.encode(der))
}

/// An authority.
pub(crate) struct Ca {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new(name: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
        Ca { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate with this name, and its key.
    fn issue(&self, name: SanType) -> (String, String) {
        self.issue_numbered(name, 1)
    }

    fn issue_numbered(&self, name: SanType, serial: u8) -> (String, String) {
        let mut params = CertificateParams::default();
        params.serial_number = Some(vec![serial].into());
        params.subject_alt_names = vec![name];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der()))
    }

    /// A list that revokes the certificate with that number.
    fn revoke(&self, serial: u8) -> String {
        let [begun, over] = [2020, 2100].map(|year| rcgen::date_time_ymd(year, 1, 1));
        let revoked = RevokedCertParams {
            serial_number: vec![serial].into(),
            revocation_time: begun,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: begun,
            next_update: over,
            crl_number: vec![1].into(),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        pem("X509 CRL", list.signed_by(&self.issuer).unwrap().der())
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub(crate) fn secret(name: &str, values: &[(&str, &str)]) -> String {
    let values: Vec<String> =
        values.iter().map(|(key, value)| format!("{key}: {}", BASE64.encode(value.as_bytes()))).collect();
    let values = values.join(", ");
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\ndata: {{{values}}}\n"
    )
}

/// The servers are on the lines 12 to 16, what they say of TLS too.
const GATEWAY: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: edge-1, namespace: shop, labels: {app: edge}}\nstatus: {podIP: 10.244.1.90}\n\
             ---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: shop}\nspec:\n  \
             selector: {app: edge}\n  servers:\n  \
             - {port: {number: 8080, name: http, protocol: HTTP}, hosts: [shop.example], tls: {httpsRedirect: true}}\n  \
             - {port: {number: 443, name: a, protocol: HTTPS}, hosts: [shop.example], tls: {mode: SIMPLE, credentialName: shop}}\n  \
             - {port: {number: 443, name: b, protocol: HTTPS}, hosts: [mutual.example], tls: {mode: MUTUAL, credentialName: mutual}}\n  \
             - {port: {number: 443, name: c, protocol: HTTPS}, hosts: [maybe.example], tls: {mode: OPTIONAL_MUTUAL, credentialName: mutual}}\n  \
             - {port: {number: 443, name: d, protocol: HTTPS}, hosts: [broken.example], tls: {mode: SIMPLE, credentialName: missing}}\n";

/// The first rule is on line 8.
const RULES: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: edge, namespace: shop}\nspec:\n  \
             hosts: ['*.example']\n  gateways: [edge]\n  http:\n  \
             - {match: [{headers: {x-forwarded-client-cert: {regex: '.*URI=spiffe://shop/client.*'}}}], directResponse: {status: 299}}\n  \
             - {match: [{scheme: {exact: https}}], route: [{destination: {host: catalog, port: {number: 8000}}}]}\n";

pub(crate) struct AtGateway {
    config: Config,
    pub(crate) ca: Ca,
}

impl AtGateway {
    pub(crate) fn new() -> AtGateway {
        let ca = Ca::new("known");
        let (shop, mutual) = (ca.issue(dns("shop.example")), ca.issue(dns("mutual.example")));
        let secrets = [
            secret("shop", &[("tls.crt", &shop.0), ("tls.key", &shop.1)]),
            secret("mutual", &[("tls.crt", &mutual.0), ("tls.key", &mutual.1)]),
            secret("mutual-cacert", &[("ca.crt", &ca.pem)]),
        ];
        let secrets = secrets.concat();
        let files = [("gateway.yaml", GATEWAY), ("rules.yaml", RULES), ("secrets.yaml", &*secrets)];
        AtGateway { config: Config::of(&files), ca }
    }

    /// Asks, and asserts that all of this is said.
    #[track_caller]
    pub(crate) fn says(&self, arguments: &[&str], expected: &[&str]) {
        let told = self.config.at_gateway(arguments);
        for expected in expected {
            assert!(told.contains(expected), "no `{expected}` in\n{told}");
        }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.config.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

#[test]
fn a_gateway_terminates_https() {
    let gateway = AtGateway::new();
    let forwarded = "=> forwarded to 10.244.1.21:8080 of outbound|8000||catalog.shop.svc.cluster.local, as shop.example /items";
    gateway.says(
        &["https://shop.example/items"],
        &[
            "listener: `0.0.0.0_443` at 0.0.0.0:443\n    by Gateway shop/edge (gateway.yaml:13)\n",
            "first bytes: only TLS is looked for; it is TLS\n",
            "not: one without a name: it wants the server name mutual.example, and there is shop.example\n",
            "tls: is terminated, SIMPLE: TLS 1.2 or 1.3, h2 or http/1.1\n    by Gateway shop/edge (gateway.yaml:13)\n",
            "  certificate: `kubernetes://shop`, for shop.example; it holds for ",
            "      by Secret shop/shop (secrets.yaml:2)\n",
            "  client: is not asked for a certificate\n",
            "  handshake: succeeds, and it agrees on http/1.1\n",
            "rule: 1 does not apply: it has no header `x-forwarded-client-cert`",
            "rule: 2 applies: scheme is `https`\n    by VirtualService shop/edge (rules.yaml:9)\n",
            forwarded,
        ],
    );
    gateway.says(&["--http2", "https://shop.example/items"], &["it agrees on h2\n", forwarded]);
    // Another name than the host's.
    let expected = ["TLS", "certificate: `kubernetes://mutual`", "(certificate_missing)"];
    gateway.says(&["--sni", "mutual.example", "https://shop.example/"], &expected);
}

#[test]
fn a_name_that_no_chain_has() {
    let gateway = AtGateway::new();
    for url in ["https://nobody.example/", "https://10.244.1.90/"] {
        gateway.says(
            &[url],
            &[
                "filter chain: none is left",
                "not: one without a name: it wants the server name shop.example",
                "=> closed NR",
            ],
        );
    }
    // Plain text where TLS is spoken, and TLS where it is not.
    gateway.says(&["http://shop.example:443/"], &["filter chain: none is left", "=> closed NR"]);
    let expected = [
        "protocol: the chain speaks HTTP, and what comes is none",
        "=> answered by the proxy with 400 DPE, http1.codec_error",
    ];
    gateway.says(&["https://shop.example:8080/"], &expected);
}

#[test]
fn a_client_must_show_who_it_is() {
    let gateway = AtGateway::new();
    let (known, _) = gateway.ca.issue(SanType::URI("spiffe://shop/client".try_into().unwrap()));
    let (stranger, _) = Ca::new("stranger").issue(dns("client"));
    let (known, stranger) = (gateway.file("known.pem", &known), gateway.file("stranger.pem", &stranger));
    let (known, stranger) = (known.to_str().unwrap(), stranger.to_str().unwrap());
    let must = "  client: must show a certificate that `kubernetes://mutual-cacert` signed\n      by Secret shop/mutual-cacert (secrets.yaml:12)\n";
    let mutual = "https://mutual.example/";
    let missing = "handshake: fails, because the client shows no certificate (certificate_missing)";
    gateway.says(&[mutual], &["MUTUAL", must, missing, "=> closed NR, certificate_missing\n"]);
    let unknown = "=> closed NR, certificate_unknown_issuer\n";
    gateway.says(&[mutual, "--client-certificate", stranger], &[unknown]);
    // Who is verified is told to rules.
    let verified = ["the client's certificate is verified\n", "=> answered by the proxy with 299"];
    gateway.says(&[mutual, "--client-certificate", known], &verified);
    let maybe = "https://maybe.example/";
    let may = "client: may show a certificate";
    gateway.says(&[maybe], &["OPTIONAL_MUTUAL", may, "the client shows no certificate\n", "=> forwarded"]);
    gateway.says(&[maybe, "--client-certificate", stranger], &[unknown]);
    gateway.says(&[maybe, "--client-certificate", known], &["=> answered by the proxy with 299"]);
}

#[test]
fn a_client_is_known_by_its_fingerprint() {
    let gateway = AtGateway::new();
    let pinned = GATEWAY.replace(
        "mode: MUTUAL, credentialName: mutual",
        &format!("mode: MUTUAL, credentialName: mutual, verifyCertificateHash: ['{}']", "00".repeat(32)),
    );
    gateway.file("gateway.yaml", &pinned);
    let (known, _) = gateway.ca.issue(dns("client"));
    let known = gateway.file("known.pem", &known);
    gateway.says(
        &["https://mutual.example/", "--client-certificate", known.to_str().unwrap()],
        &[
            "signed, with one fingerprint\n",
            "handshake: fails, because the client's certificate is not believed",
            "=> closed NR",
        ],
    );
}

#[test]
fn a_certificate_that_is_not_there() {
    AtGateway::new().says(
        &["https://broken.example/"],
        &[
            "tls: is terminated, SIMPLE: TLS 1.2 or 1.3, h2 or http/1.1\n    by Gateway shop/edge (gateway.yaml:16)\n",
            "  certificate: `kubernetes://missing`, which cannot be used\n",
            "closed: the connection is closed: TLS is not terminated: the secret kubernetes://missing cannot be used\n    \
             by Gateway shop/edge (gateway.yaml:16)\n",
            "there is no Secret missing in namespace shop",
        ],
    );
}

#[test]
fn http_is_sent_to_https() {
    AtGateway::new().says(
        &["http://shop.example:8080/items?x=1"],
        &[
            "rule: 1 applies: header `x-forwarded-proto` is not `https`\n    by Gateway shop/edge (gateway.yaml:12)\n",
            "by the domain `shop.example`\n    by VirtualService shop/edge (rules.yaml:8)\n",
            "redirect: 301 to https://shop.example:8080/items?x=1",
            "=> answered by the proxy with 301, direct_response, to https://shop.example:8080/items?x=1",
        ],
    );
}

#[test]
fn bytes_behind_tls() {
    let gateway = AtGateway::new();
    let expected = [
        "handshake: succeeds",
        "a request is asked about by https://",
        "=> answered by the proxy with 400 DPE, http1.codec_error",
    ];
    gateway.says(&["--tcp", "10.244.1.90:443", "--sni", "shop.example"], &expected);
}

#[test]
fn what_a_client_offers() {
    let gateway = AtGateway::new();
    let url = "https://shop.example/";
    let says = |offered: &str, expected: &str| {
        gateway.says(
            &[url, "--alpn", offered],
            &[&format!("handshake: succeeds, and {expected}\n"), "=> forwarded"],
        );
    };
    says("http/1.1, h2", "it agrees on h2");
    says("istio,http/1.1", "it agrees on http/1.1");
    says("istio", "no protocol is agreed on by ALPN");
    says("", "no protocol is agreed on by ALPN");
    // What offers something is TLS, and need not ask for a name.
    let expected = [
        "TLS to 10.244.1.90:443, at the gateway\n",
        "there is none\n",
        "=> closed NR, filter_chain_not_found",
    ];
    gateway.says(&["--tcp", "10.244.1.90:443", "--alpn", ""], &expected);
}

#[test]
fn the_chain_is_chosen_by_what_a_client_offers() {
    let ca = Ca::new("stranger");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("client.pem");
    fs::write(&file, ca.issue(dns("client")).0).unwrap();
    let asked = ["--inbound", "https://web:8080/", "--source", "cart.shop", "--client-certificate"];
    let asked = [&asked[..], &[file.to_str().unwrap(), "--alpn"]].concat();
    let says = |mode: &str, offered: &str, expected: &[&str]| {
        web_says(mode, &[], &[&asked[..], &[offered]].concat(), expected);
    };
    let untouched = "=> passed on as it is to 10.244.1.10:8080";
    let refused = ["ISTIO_MUTUAL", "is not believed (certificate_unknown_issuer)", "=> closed NR"];
    says(
        "PERMISSIVE",
        "h2,http/1.1",
        &["it wants istio-http/1.0, istio-http/1.1, istio-h2, and there is", untouched],
    );
    says("PERMISSIVE", "istio", &refused);
    says("STRICT", "h2,http/1.1", &refused);
    says("DISABLE", "istio", &[untouched]);
}

/// Pods with sidecars, on the lines 1 and 6; the policy says its mode on line 5.
fn sidecars(mode: &str) -> [(&'static str, String); 2] {
    let pods = "apiVersion: v1\nkind: Pod\nmetadata: {name: cart-1, namespace: shop, labels: {app: cart, security.istio.io/tlsMode: istio}}\n\
                spec: {serviceAccountName: cart}\nstatus: {podIP: 10.244.1.41}\n---\n\
                apiVersion: v1\nkind: Pod\nmetadata: {name: cart-2, namespace: other, labels: {app: cart}}\nstatus: {podIP: 10.244.1.42}\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {clusterIP: 10.96.0.14, selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}]}\n---\n\
                apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: cart, namespace: shop, labels: {kubernetes.io/service-name: cart}}\n\
                addressType: IPv4\nendpoints: [{addresses: [10.244.1.41], targetRef: {kind: Pod, name: cart-1, namespace: shop}}]\nports: [{name: http, port: 8080}]\n";
    let policy = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: shop}}\nspec:\n  mtls: {{mode: {mode}}}\n"
    );
    let policy = if mode.is_empty() { String::new() } else { policy };
    [("cart.yaml", pods.to_owned()), ("policy.yaml", policy)]
}

/// Asks what the workload `web` does, which is taken to have an identity, and asserts that all of this is said.
#[track_caller]
fn web_says(mode: &str, more: &[(&str, &str)], arguments: &[&str], expected: &[&str]) {
    let files = sidecars(mode);
    let files: Vec<(&str, &str)> =
        files.iter().map(|(name, text)| (*name, text.as_str())).chain(more.iter().copied()).collect();
    let told = Config::of(&files).run(&[&["--assume-identity"], arguments].concat());
    for expected in expected {
        assert!(told.contains(expected), "no `{expected}` in\n{told}");
    }
}

const INBOUND: [&str; 4] = ["--inbound", "http://web:8080/", "--source", "cart.shop"];
const MUTUAL: [&str; 5] = ["--inbound", "http://web:8080/", "--source", "cart.shop", "--mtls"];

#[test]
fn who_comes_in_mutual_tls_and_in_plain_text() {
    let policy = "PeerAuthentication shop/default (policy.yaml:5)";
    let forwarded = "=> forwarded to 10.244.1.10:8080 of InboundPassthroughCluster";
    let told = |mode: &str| format!("mutual tls: {mode} at port 8080\n    by {policy}\n");
    let strict = told("STRICT");
    web_says(
        "STRICT",
        &[],
        &INBOUND,
        &[&strict, "it wants TLS, and the client speaks none\n      by", "=> closed NR"],
    );
    let tls = [
        &*strict,
        "GET http://web:8080/, inbound, in mutual TLS as spiffe://cluster.local/ns/shop/sa/cart\n",
        "tls: is terminated, ISTIO_MUTUAL: TLS 1.2 or 1.3, h2 or http/1.1\n",
        "certificate: `default`, the workload's own, which is taken to be there\n",
        "client: must show a certificate that `ROOTCA` signed as spiffe://cluster.local/*\n",
        "handshake: succeeds, and it agrees on http/1.1; the client is spiffe://cluster.local/ns/shop/sa/cart, taken to be signed",
        forwarded,
    ];
    web_says("STRICT", &[], &MUTUAL, &tls);
    let mesh = ("mesh.yaml", "meshMTLS: {minProtocolVersion: TLSV1_3}\n");
    web_says("STRICT", &[mesh], &MUTUAL, &["ISTIO_MUTUAL: TLS 1.3, h2 or http/1.1\n", forwarded]);
    let http2 = [&MUTUAL[..], &["--http2"]].concat();
    web_says("STRICT", &[], &http2, &["it agrees on h2; the client is", forwarded]);
    // Without a policy both come in.
    let default = "mutual tls: PERMISSIVE at port 8080 (Istio default)\n";
    web_says("", &[], &INBOUND, &[default, forwarded]);
    web_says("", &[], &MUTUAL, &[default, "handshake: succeeds", forwarded]);
    let disable = told("DISABLE");
    web_says("DISABLE", &[], &INBOUND, &[&disable, forwarded]);
    web_says(
        "DISABLE",
        &[],
        &MUTUAL,
        &[&disable, "it is nothing known", "=> passed on as it is to 10.244.1.10:8080"],
    );
    let bytes = ["--inbound", "--tcp", "10.244.1.10:3306", "--source", "10.244.1.41", "--mtls"];
    let expected = [
        "ISTIO_MUTUAL",
        "as spiffe://cluster.local/ns/shop/sa/cart",
        "=> passed on as it is to 10.244.1.10:3306",
    ];
    web_says("STRICT", &[], &bytes, &expected);
}

#[test]
fn how_an_endpoint_is_spoken_to_and_who_says_so() {
    let url = ["http://cart/"];
    let mutual = "transport: IstioMutual TLS to the server outbound_.80_._.cart.shop.svc.cluster.local, with the certificate default; \
                  believed by ROOTCA as spiffe://cluster.local/ns/shop/sa/cart";
    let auto = "; the endpoint takes mutual TLS: its pod has the label security.istio.io/tlsMode, mode ";
    let by = |told: &str, object: &str| format!("{mutual}{auto}{told}\n    by {object}\n");
    let forwarded = "=> forwarded to 10.244.1.41:8080";
    web_says("", &[], &url, &[&by("PERMISSIVE (Istio default)", "Pod shop/cart-1 (cart.yaml:1)"), forwarded]);
    web_says(
        "STRICT",
        &[],
        &url,
        &[&by("STRICT", "PeerAuthentication shop/default (policy.yaml:5)"), forwarded],
    );
    let plain = "transport: plain text, as the endpoint takes no mutual TLS: mode DISABLE\n    by PeerAuthentication shop/default (policy.yaml:5)\n";
    web_says("DISABLE", &[], &url, &[plain, forwarded]);
    let rule = |mode: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: cart, namespace: shop}}\nspec:\n  \
             host: cart\n  trafficPolicy:\n    tls: {{mode: {mode}}}\n"
        )
    };
    let disable = rule("DISABLE");
    let expected = [
        "transport: plain text, as `tls.mode` says\n    by DestinationRule shop/cart (rule.yaml:7)\n",
        forwarded,
    ];
    web_says("STRICT", &[("rule.yaml", &disable)], &url, &expected);
    let told = rule("ISTIO_MUTUAL");
    let expected = format!("{mutual}, as `tls.mode` says\n    by DestinationRule shop/cart (rule.yaml:7)\n");
    web_says("DISABLE", &[("rule.yaml", &told)], &url, &[&expected, forwarded]);
}

#[test]
fn an_identity_that_is_at_hand() {
    let ca = Ca::new("mesh");
    let (chain, key) = ca.issue(SanType::URI("spiffe://cluster.local/ns/shop/sa/web".try_into().unwrap()));
    let cart = SanType::URI("spiffe://cluster.local/ns/shop/sa/cart".try_into().unwrap());
    let (cart, _) = ca.issue_numbered(cart, 2);
    let (stranger, _) = ca.issue(SanType::URI("spiffe://elsewhere/ns/shop/sa/cart".try_into().unwrap()));
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    file("cert-chain.pem", &chain);
    file("key.pem", &key);
    file("root-cert.pem", &ca.pem);
    let (cart, stranger) = (file("cart.pem", &cart), file("stranger.pem", &stranger));
    let config = Config::of(&[]);
    let ask = |shown: &str| {
        let from = directory.path().to_str().unwrap();
        let inbound = ["--inbound", "--mtls", "http://web:8080/", "--client-certificate", shown];
        config.run(&[&["--identity-from", from], &inbound[..]].concat())
    };
    let told = ask(&cart);
    for expected in [
        "for spiffe://cluster.local/ns/shop/sa/web; it holds",
        "is verified",
        "=> forwarded to 10.244.1.10:8080",
    ] {
        assert!(told.contains(expected), "no `{expected}` in\n{told}");
    }
    assert!(ask(&stranger).contains("=> closed NR, certificate_not_of_a_wanted_name"));
    // What the mesh has revoked is beside it.
    file("ca-crl.pem", &ca.revoke(2));
    assert!(ask(&cart).contains("certificate_revoked"));
}

#[test]
fn a_workload_that_takes_mutual_tls_only() {
    let policy = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict, namespace: shop}\nspec:\n  \
                  mtls: {mode: STRICT}\n";
    let config = Config::of(&[("policy.yaml", policy)]);
    config.check(
        &["--inbound", "http://web:8080/"],
        "closes NR filter_chain_not_found",
        ("not", "it wants TLS, and the client speaks none", "PeerAuthentication strict policy.yaml:5"),
    );
}

#[test]
fn a_gateway_between_networks_passes_on_what_proxies_ask_for() {
    let server = "{port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.shop.svc.cluster.local'], tls: {mode: AUTO_PASSTHROUGH}}";
    let (pod, _) = GATEWAY.split_once("  - {port").unwrap();
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: catalog, namespace: shop}\n\
                spec: {host: catalog, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}\n";
    let gateway = format!("{pod}  - {server}\n");
    let config = Config::of(&[("gateway.yaml", &gateway), ("rule.yaml", rule)]);
    let ask = ["--sni", "outbound_.8000_._.catalog.shop.svc.cluster.local", "https://10.244.1.90:15443/"];
    let check = |alpn: &str, expected: &[&str]| {
        let told = config.at_gateway(&[&["--alpn", alpn], &ask[..]].concat());
        expected.iter().for_each(|expected| assert!(told.contains(expected), "no `{expected}` in\n{told}"));
    };
    let passed =
        "=> passed on as it is to 10.244.1.21:8080 of outbound_.8000_._.catalog.shop.svc.cluster.local";
    check("istio-h2,istio,h2", &["by Gateway shop/edge (gateway.yaml:12)\n", passed]);
    check("h2", &["it wants istio, istio-peer-exchange, ", "and there is h2\n", "=> closed NR"]);
}
