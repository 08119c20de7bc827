//! Envoy's secret discovery, as a client: state of the world over one stream, with the two secrets that a workload needs.
//!
//! An answer may hold one of them or both; what it does not hold stays. Each answer is acknowledged, or refused with the
//! reason, as Envoy does it.

use std::sync::Arc;

use config::TrustBundle;
use envoy_types::pb::envoy::config::core::v3::{DataSource, Node, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config::TrustDomain;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate, secret,
};
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc;
use http::uri::PathAndQuery;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::{Heard, Question, Served};

/// Its only method of which something is wanted.
const STREAM_SECRETS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
/// What a secret is called in an `Any`.
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// What bundles of several trust domains are called in one.
const SPIFFE_BUNDLES: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
/// Name of the workload's certificate.
const CERTIFICATE: &str = "default";
/// Name of the roots.
const ROOTS: &str = "ROOTCA";

/// Messages that may wait to be sent: each is the answer to one that came.
const WAITING_MAX: usize = 4;

/// What was last told of each secret.
#[derive(Default)]
struct Told {
    certificate: Option<Pair>,
    roots: Option<Believed>,
}

/// A chain and the key of its leaf, in PEM.
type Pair = (Arc<[u8]>, Arc<[u8]>);

/// What peers are verified by, in PEM.
#[derive(Clone)]
struct Believed {
    roots: Arc<[u8]>,
    revoked: Option<Arc<[u8]>>,
    bundles: Vec<TrustBundle>,
}

/// Follows the stream; what it ended with, if that was not its end alone.
pub(super) async fn follow(
    channel: Channel,
    question: &Question<'_>,
    heard: &mut dyn FnMut(Heard),
) -> Option<Status> {
    let (requests, waiting) = mpsc::channel(WAITING_MAX);
    let mut request = asking(question);
    // There is room for the first.
    let _ = requests.try_send(request.clone());
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(question.message_bytes_max);
    if let Err(error) = grpc.ready().await {
        return Some(Status::unavailable(error.to_string()));
    }
    let codec = ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
    let path = PathAndQuery::from_static(STREAM_SECRETS);
    let answer = grpc.streaming(Request::new(ReceiverStream::new(waiting)), path, codec).await;
    let mut responses = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Some(status),
    };
    let mut told = Told::default();
    loop {
        let response = match responses.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return None,
            Err(status) => return Some(status),
        };
        request.node = None;
        request.response_nonce = response.nonce.clone();
        request.error_detail = None;
        match told.take(&response, question.wanted) {
            Ok(()) => {
                request.version_info = response.version_info;
                if let Some(served) = told.whole() {
                    heard(Heard::Identity(served));
                }
            }
            Err(why) => {
                let detail = rpc::Status {
                    code: Code::InvalidArgument as i32,
                    message: why.clone(),
                    details: Vec::new(),
                };
                request.error_detail = Some(detail);
                heard(Heard::Nothing(why));
            }
        }
        // Who does not read what is said about its answers sends none meanwhile.
        if requests.send(request.clone()).await.is_err() {
            return None;
        }
    }
}

fn asking(question: &Question<'_>) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(Node { id: question.node.to_owned(), ..Node::default() }),
        resource_names: vec![CERTIFICATE.to_owned(), ROOTS.to_owned()],
        type_url: SECRET.to_owned(),
        ..DiscoveryRequest::default()
    }
}

impl Told {
    /// Takes the secrets of an answer, all or none.
    fn take(&mut self, response: &DiscoveryResponse, wanted: &str) -> Result<(), String> {
        let (mut certificate, mut roots) = (None, None);
        for resource in &response.resources {
            if resource.type_url != SECRET {
                return Err(format!("{:?} is no secret", resource.type_url));
            }
            let secret = Secret::decode(&*resource.value)
                .map_err(|error| format!("a secret cannot be read: {error}"))?;
            match (secret.name.as_str(), secret.r#type) {
                (CERTIFICATE, Some(secret::Type::TlsCertificate(told))) => certificate = Some(pair(told)?),
                (ROOTS, Some(secret::Type::ValidationContext(told))) => roots = Some(believed(told, wanted)?),
                (CERTIFICATE | ROOTS, _) => {
                    return Err(format!("the secret {} is not of its kind", secret.name));
                }
                // Nobody asked for it.
                _ => {}
            }
        }
        self.certificate = certificate.or(self.certificate.take());
        self.roots = roots.or(self.roots.take());
        Ok(())
    }

    fn whole(&self) -> Option<Served> {
        let (chain, key) = self.certificate.clone()?;
        let Believed { roots, revoked, bundles } = self.roots.clone()?;
        Some(Served { chain, key, roots, revoked, bundles })
    }
}

fn pair(told: TlsCertificate) -> Result<Pair, String> {
    let chain = inline(told.certificate_chain, "certificate_chain")?;
    let key = inline(told.private_key, "private_key")?;
    Ok((chain, key))
}

/// The roots, and what is revoked. Where trust domains are told apart, the roots are those of the workload's own, and there must be
/// some. Envoy lets the bundles win over `trusted_ca`.
fn believed(told: CertificateValidationContext, wanted: &str) -> Result<Believed, String> {
    let revoked = told.crl.map(|crl| inline(Some(crl), "crl")).transpose()?;
    let bundles = told.custom_validator_config.and_then(|config| config.typed_config);
    if let Some(told) = bundles {
        let bundles = by_domain(&told)?;
        let own =
            wanted.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let bundle = bundles.iter().find(|bundle| *bundle.domain == *own);
        let bundle = bundle.ok_or_else(|| format!("there is no bundle of the trust domain {own:?}"))?;
        return Ok(Believed { roots: bundle.roots.clone(), revoked, bundles });
    }
    match told.trusted_ca {
        Some(roots) => {
            Ok(Believed { roots: inline(Some(roots), "trusted_ca")?, revoked, bundles: Vec::new() })
        }
        None => Err("the secret ROOTCA has no trusted_ca".to_owned()),
    }
}

/// The bundles of a validator that tells trust domains apart.
fn by_domain(bundles: &Any) -> Result<Vec<TrustBundle>, String> {
    if bundles.type_url != SPIFFE_BUNDLES {
        return Err(format!("{:?} is no validator that weft knows", bundles.type_url));
    }
    let bundles = SpiffeCertValidatorConfig::decode(&*bundles.value)
        .map_err(|error| format!("the bundles of trust domains cannot be read: {error}"))?;
    let SpiffeCertValidatorConfig { trust_domains, trust_bundles } = bundles;
    if trust_bundles.is_some() {
        return Err("trust_bundles is not honoured: bundles are told by trust_domains".to_owned());
    }
    let mut told: Vec<TrustBundle> = Vec::with_capacity(trust_domains.len());
    for TrustDomain { name, trust_bundle, workload_trust_domain } in trust_domains {
        if !workload_trust_domain.is_empty() {
            // It is for connections of which a filter says so, and weft has none that does.
            continue;
        }
        if told.iter().any(|known| *known.domain == *name) {
            return Err(format!("there are two bundles of the trust domain {name:?}"));
        }
        told.push(TrustBundle { domain: name.into(), roots: inline(trust_bundle, "trust_bundle")? });
    }
    Ok(told)
}

fn inline(source: Option<DataSource>, field: &str) -> Result<Arc<[u8]>, String> {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.into()),
        Some(Specifier::InlineString(text)) => Ok(text.into_bytes().into()),
        Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) => {
            Err(format!("{field} is not inline: what is served by a socket is not read from elsewhere"))
        }
        None => Err(format!("{field} is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &str = "spiffe://cluster.local/ns/shop/sa/web";

    fn bytes(text: &str) -> Option<DataSource> {
        let specifier = Some(Specifier::InlineBytes(text.as_bytes().to_vec()));
        Some(DataSource { specifier, ..DataSource::default() })
    }

    fn response(secrets: &[Secret]) -> DiscoveryResponse {
        let any = |secret: &Secret| Any { type_url: SECRET.to_owned(), value: secret.encode_to_vec() };
        DiscoveryResponse { resources: secrets.iter().map(any).collect(), ..DiscoveryResponse::default() }
    }

    fn certificate(name: &str, chain: Option<DataSource>) -> Secret {
        let told = TlsCertificate {
            certificate_chain: chain,
            private_key: bytes("key"),
            ..TlsCertificate::default()
        };
        Secret { name: name.to_owned(), r#type: Some(secret::Type::TlsCertificate(told)) }
    }

    fn roots(told: CertificateValidationContext) -> Secret {
        Secret { name: ROOTS.to_owned(), r#type: Some(secret::Type::ValidationContext(told)) }
    }

    fn trusting(root: &str) -> Secret {
        roots(CertificateValidationContext { trusted_ca: bytes(root), ..Default::default() })
    }

    #[test]
    fn an_identity_is_whole_when_both_secrets_came_in_whatever_order() {
        let mut told = Told::default();
        told.take(&response(&[trusting("root")]), WANTED).unwrap();
        assert!(told.whole().is_none());
        told.take(&response(&[certificate(CERTIFICATE, bytes("chain")), certificate("other", None)]), WANTED)
            .unwrap();
        let whole = told.whole().unwrap();
        assert_eq!((&*whole.chain, &*whole.key, &*whole.roots), (&b"chain"[..], &b"key"[..], &b"root"[..]));
        // What an answer does not hold stays.
        told.take(&response(&[trusting("new")]), WANTED).unwrap();
        let whole = told.whole().unwrap();
        assert_eq!((&*whole.chain, &*whole.roots), (&b"chain"[..], &b"new"[..]));
    }

    #[test]
    fn what_is_no_secret_is_refused_and_changes_nothing() {
        let file = Some(DataSource {
            specifier: Some(Specifier::Filename("/etc/passwd".to_owned())),
            ..DataSource::default()
        });
        let wrong = Secret { name: CERTIFICATE.to_owned(), ..trusting("root") };
        let foreign = Any { type_url: "type.googleapis.com/a.B".to_owned(), value: vec![1] };
        let garbage = Any { type_url: SECRET.to_owned(), value: vec![0xff; 7] };
        let cases = [
            (response(&[certificate(CERTIFICATE, file)]), "is not inline"),
            (response(&[certificate(CERTIFICATE, None)]), "certificate_chain is missing"),
            (response(&[wrong]), "not of its kind"),
            (response(&[roots(CertificateValidationContext::default())]), "no trusted_ca"),
            (DiscoveryResponse { resources: vec![foreign], ..Default::default() }, "is no secret"),
            (DiscoveryResponse { resources: vec![garbage], ..Default::default() }, "cannot be read"),
        ];
        let mut told = Told::default();
        told.take(&response(&[trusting("root"), certificate(CERTIFICATE, bytes("chain"))]), WANTED).unwrap();
        for (response, expected) in cases {
            let why = told.take(&response, WANTED).unwrap_err();
            assert!(why.contains(expected), "{why}");
            assert_eq!(&*told.whole().unwrap().roots, b"root");
        }
    }

    #[test]
    fn trust_domains_are_told_apart() {
        use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
        let domain = |name: &str| TrustDomain {
            name: name.to_owned(),
            trust_bundle: bytes(name),
            ..TrustDomain::default()
        };
        let secret = |domains: &[&str]| {
            let config = SpiffeCertValidatorConfig {
                trust_domains: domains.iter().map(|name| domain(name)).collect(),
                ..Default::default()
            };
            let any = Any { type_url: SPIFFE_BUNDLES.to_owned(), value: config.encode_to_vec() };
            let config = TypedExtensionConfig { name: "spiffe".to_owned(), typed_config: Some(any) };
            roots(CertificateValidationContext {
                custom_validator_config: Some(config),
                ..Default::default()
            })
        };
        let mut told = Told::default();
        told.take(&response(&[secret(&["other.local", "cluster.local"])]), WANTED).unwrap();
        let believed = told.roots.as_ref().unwrap();
        assert_eq!(&*believed.roots, b"cluster.local");
        let bundles = believed.bundles.iter().map(|bundle| (&*bundle.domain, &*bundle.roots));
        let expected = [("other.local", &b"other.local"[..]), ("cluster.local", b"cluster.local")];
        assert_eq!(bundles.collect::<Vec<_>>(), expected);
        let why = told.take(&response(&[secret(&["cluster.local", "cluster.local"])]), WANTED).unwrap_err();
        assert!(why.contains("two bundles"), "{why}");
        let why = told.take(&response(&[secret(&["other.local"])]), WANTED).unwrap_err();
        assert!(why.contains("no bundle of the trust domain"), "{why}");
    }
}
