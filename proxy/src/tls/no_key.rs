//! What stands in the place of a private key where nothing is signed.

use tokio_rustls::rustls::sign::{Signer, SigningKey};
use tokio_rustls::rustls::{SignatureAlgorithm, SignatureScheme};

/// A key of this algorithm that signs nothing.
#[derive(Debug)]
pub(super) struct NoKey(pub(super) SignatureAlgorithm);

impl SigningKey for NoKey {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        None
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0
    }
}
