//! The SPIFFE Workload API, as a client: `FetchX509SVID`, which tells all identities of the workload, and again whenever one
//! changes. Source: the SPIFFE Workload API, section 5.

use std::collections::HashMap;
use std::sync::Arc;

use config::TrustBundle;
use http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::{Heard, Question, Served, der};
use crate::pem;
use crate::words::told;

/// The method.
const FETCH_X509_SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
/// Every call has it, so that no other protocol is tricked into making one.
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// `X509SVIDRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Fetch {}

/// `X509SVIDResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Fetched {
    /// Identities; the first is the one by default.
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
    /// Lists of revoked certificates, each in DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    crl: Vec<Vec<u8>>,
    /// Roots of other trust domains, by domain, in DER one after the other.
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Vec<u8>>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, prost::Message)]
struct Svid {
    /// Its SPIFFE identity.
    #[prost(string, tag = "1")]
    spiffe_id: String,
    /// The chain, the leaf first, in DER one after the other.
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    /// The key, as PKCS #8 in DER.
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    /// The roots of its trust domain, in DER one after the other.
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
    /// What it is for, to workloads that have several.
    #[prost(string, tag = "5")]
    hint: String,
}

/// Follows the stream; what it ended with, if that was not its end alone.
pub(super) async fn follow(
    channel: Channel,
    question: &Question<'_>,
    heard: &mut dyn FnMut(Heard),
) -> Option<Status> {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(question.message_bytes_max);
    if let Err(error) = grpc.ready().await {
        return Some(Status::unavailable(error.to_string()));
    }
    let mut request = Request::new(Fetch {});
    request.metadata_mut().insert(SECURITY_HEADER, MetadataValue::from_static("true"));
    let codec = ProstCodec::<Fetch, Fetched>::default();
    let path = PathAndQuery::from_static(FETCH_X509_SVID);
    let mut responses = match grpc.server_streaming(request, path, codec).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Some(status),
    };
    loop {
        match responses.message().await {
            Ok(Some(fetched)) => {
                heard(served(fetched, question.wanted).map_or_else(Heard::Nothing, Heard::Identity));
            }
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}

/// The identity that is wanted, or the one by default.
fn served(fetched: Fetched, wanted: &str) -> Result<Served, String> {
    let Fetched { svids, crl, federated_bundles } = fetched;
    let place = svids.iter().position(|svid| svid.spiffe_id == wanted).unwrap_or(0);
    let svid = svids.into_iter().nth(place).ok_or("it knows of no identity of the workload")?;
    let Svid { spiffe_id, x509_svid, x509_svid_key, bundle, hint: _ } = svid;
    let several = |bytes: &[u8], label: &str, what: &str| {
        let each = der::split(bytes).ok_or_else(|| format!("{what} is not one DER after the other"))?;
        match each.as_slice() {
            [] => Err(format!("{what} is empty")),
            each => Ok(each.iter().map(|one| pem::encode(label, one)).collect::<String>().into_bytes()),
        }
    };
    let revoked: String = crl.iter().map(|list| pem::encode("X509 CRL", list)).collect();
    let chain = several(&x509_svid, "CERTIFICATE", "x509_svid")?.into();
    let roots: Arc<[u8]> = several(&bundle, "CERTIFICATE", "bundle")?.into();
    let own = trust_domain(&spiffe_id).ok_or_else(|| format!("{} is no identity", told(&spiffe_id)))?;
    let mut bundles = vec![TrustBundle { domain: own.into(), roots: roots.clone() }];
    for (domain, bundle) in &federated_bundles {
        let name = trust_domain(domain).ok_or_else(|| format!("{} is no trust domain", told(domain)))?;
        if name != own {
            let roots = several(bundle, "CERTIFICATE", "a federated bundle")?.into();
            bundles.push(TrustBundle { domain: name.into(), roots });
        }
    }
    // A map has no order, and the same is to be the same.
    bundles.sort_by(|one, other| one.domain.cmp(&other.domain));
    Ok(Served {
        chain,
        key: pem::encode("PRIVATE KEY", &x509_svid_key).into_bytes().into(),
        roots,
        bundles,
        revoked: (!revoked.is_empty()).then(|| revoked.into_bytes().into()),
    })
}

/// The trust domain of an identity, or one that is written as such.
fn trust_domain(id: &str) -> Option<&str> {
    let domain = id.strip_prefix("spiffe://")?.split('/').next()?;
    (!domain.is_empty()).then_some(domain)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn svid(id: &str) -> Svid {
        // Two empty sequences stand for certificates.
        Svid {
            spiffe_id: id.to_owned(),
            x509_svid: b"\x30\x00\x30\x01\x07".to_vec(),
            x509_svid_key: id.as_bytes().to_vec(),
            bundle: b"\x30\x00".to_vec(),
            hint: String::new(),
        }
    }

    /// The numbers of the fields are the protocol's.
    #[test]
    fn bytes_on_the_wire() {
        let svid = Svid {
            spiffe_id: "a".to_owned(),
            x509_svid: b"b".to_vec(),
            x509_svid_key: b"c".to_vec(),
            bundle: b"d".to_vec(),
            hint: "e".to_owned(),
        };
        let fetched = Fetched { svids: vec![svid], crl: vec![b"f".to_vec()], ..Fetched::default() };
        assert_eq!(
            fetched.encode_to_vec(),
            b"\x0a\x0f\x0a\x01a\x12\x01b\x1a\x01c\x22\x01d\x2a\x01e\x12\x01f"
        );
        assert!(Fetch {}.encode_to_vec().is_empty());
    }

    #[test]
    fn the_identity_that_is_wanted_or_the_first() {
        let check = |ids: &[&str], expected: Option<&str>| {
            let fetched = Fetched { svids: ids.iter().map(|id| svid(id)).collect(), ..Fetched::default() };
            let key = served(fetched, "spiffe://a/two").ok().map(|served| served.key);
            let expected = expected.map(|id| pem::encode("PRIVATE KEY", id.as_bytes()).into_bytes());
            assert_eq!(key.as_deref(), expected.as_deref(), "{ids:?}");
        };
        check(&["spiffe://a/one", "spiffe://a/two"], Some("spiffe://a/two"));
        check(&["spiffe://a/one", "spiffe://a/other"], Some("spiffe://a/one"));
        check(&[], None);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let broken = |change: fn(&mut Svid)| {
            let mut one = svid("spiffe://a/one");
            change(&mut one);
            served(Fetched { svids: vec![one], ..Fetched::default() }, "").err().unwrap_or_default()
        };
        assert!(
            broken(|svid| svid.x509_svid = b"\x30\x05\x00".to_vec()).contains("x509_svid is not one DER")
        );
        assert!(broken(|svid| svid.bundle = Vec::new()).contains("bundle is empty"));
        assert!(broken(|svid| svid.spiffe_id = "spiffe:///one".to_owned()).contains("is no identity"));
    }

    #[test]
    fn trust_domains_are_told_apart() {
        let domains = |federated: &[(&str, &[u8])]| {
            let federated = federated.iter().map(|(domain, bundle)| ((*domain).to_owned(), bundle.to_vec()));
            let svids = vec![svid("spiffe://b/one")];
            let fetched = Fetched { svids, federated_bundles: federated.collect(), ..Fetched::default() };
            served(fetched, "").map(|served| {
                let bundles =
                    served.bundles.iter().map(|it| (it.domain.to_string(), it.roots == served.roots));
                bundles.collect::<Vec<_>>()
            })
        };
        let of = |domain: &str, is_own: bool| (domain.to_owned(), is_own);
        let other: &[u8] = b"\x30\x01\x07";
        assert_eq!(domains(&[]).unwrap(), [of("b", true)]);
        assert_eq!(
            domains(&[("spiffe://c", other), ("spiffe://a", other)]).unwrap(),
            [of("a", false), of("b", true), of("c", false)]
        );
        // Nobody else speaks for the own one.
        assert_eq!(domains(&[("spiffe://b", other)]).unwrap(), [of("b", true)]);
        assert!(domains(&[("c", other)]).unwrap_err().contains("is no trust domain"));
        assert!(domains(&[("spiffe://c", b"\x07")]).unwrap_err().contains("a federated bundle"));
    }
}
