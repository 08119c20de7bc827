//! An identity that a workload is taken to have, to explain what it would do with one. It has no key and no authority: with
//! it nothing can be signed, and nobody is believed.

use std::sync::Arc;

use config::{OWN_CERTIFICATE, OWN_ROOTS, Secret};
use tokio_rustls::rustls::pki_types::{CertificateDer, TrustAnchor};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, SignatureAlgorithm};

use super::no_key::NoKey;
use super::secrets::{Parsed, Roots, Secrets};

impl Secrets {
    /// With an identity of the workload, of which nothing is known but that it has one.
    pub(crate) fn with_assumed_identity(mut self) -> Secrets {
        let certificate = CertifiedKey::new(
            vec![CertificateDer::from(Vec::new())],
            Arc::new(NoKey(SignatureAlgorithm::ECDSA)),
        );
        let nobody = TrustAnchor {
            subject: Vec::new().into(),
            subject_public_key_info: Vec::new().into(),
            name_constraints: None,
        };
        let roots = Roots {
            roots: Arc::new(RootCertStore { roots: vec![nobody] }),
            bundles: Vec::new(),
            first: None,
            lists: Arc::default(),
        };
        let parsed = [
            (OWN_CERTIFICATE, Parsed::Certificate(Arc::new(certificate))),
            (OWN_ROOTS, Parsed::Roots(Arc::new(roots))),
        ];
        for (name, parsed) in parsed {
            let content = Err("it is taken to be there".into());
            let declared = Arc::new(Secret { name: name.into(), content, origin: None });
            self.hold(declared, parsed);
        }
        self
    }
}
