//! What clients show of themselves: one certificate that is good everywhere, and those that something is wrong with.

use rcgen::{CertificateParams, SanType};
use support::tls::{Ca, Pem};

use crate::mutual::CLIENT;

/// Authorities between the root and a certificate whose chain of twenty is too long; the TLS library follows six.
const AUTHORITIES_BETWEEN: usize = 19;

/// Serial number of the certificate that is revoked.
pub(super) const REVOKED: u8 = 1;

/// What a client shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// The certificate of a workload.
    Good,
    Nothing,
    TwoUris,
    /// Its only URI is that of a web page.
    NotSpiffe,
    /// It has no alternative name at all.
    Nameless,
    OtherDomain,
    Untrusted,
    Expired,
    NotYetValid,
    Revoked,
    /// There is a NUL in its URI, behind which it goes on.
    Nul,
    TooLong,
}

/// The certificates.
pub(super) struct Certificates(Vec<(Shown, Pem)>);

fn uris(uris: &[&str]) -> Vec<SanType> {
    uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect()
}

impl Certificates {
    pub(super) fn of(ca: &Ca) -> Certificates {
        let named = |names: &[&str]| ca.issue("workload", |params| params.subject_alt_names = uris(names));
        let of_client = |change: fn(&mut CertificateParams)| {
            ca.issue("workload", |params| {
                params.subject_alt_names = uris(&[CLIENT]);
                change(params);
            })
        };
        let nul = format!("{CLIENT}\0.example");
        Certificates(vec![
            (Shown::Good, ca.workload(CLIENT)),
            (Shown::TwoUris, named(&[CLIENT, "spiffe://cluster.local/ns/shop/sa/other"])),
            (Shown::NotSpiffe, named(&["https://cluster.local/"])),
            (Shown::Nameless, named(&[])),
            (Shown::OtherDomain, named(&["spiffe://other.local/ns/shop/sa/client"])),
            (Shown::Untrusted, Ca::new("stranger").workload(CLIENT)),
            (Shown::Expired, of_client(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1))),
            (Shown::NotYetValid, of_client(|params| params.not_before = rcgen::date_time_ymd(2100, 1, 1))),
            (Shown::Revoked, of_client(|params| params.serial_number = Some(vec![REVOKED].into()))),
            (Shown::Nul, named(&[nul.as_str()])),
            (Shown::TooLong, at_the_end_of_a_long_chain(ca)),
        ])
    }

    /// `None` for nothing.
    pub(super) fn get(&self, shown: Shown) -> Option<&Pem> {
        self.0.iter().find(|(known, _)| *known == shown).map(|(_, pem)| pem)
    }
}

fn at_the_end_of_a_long_chain(ca: &Ca) -> Pem {
    let mut between = vec![ca.under("0")];
    while between.len() < AUTHORITIES_BETWEEN {
        let next = between[between.len() - 1].under(&between.len().to_string());
        between.push(next);
    }
    let mut pem = between[between.len() - 1].workload(CLIENT);
    between.iter().rev().for_each(|authority| pem.chain.push_str(&authority.pem));
    pem
}
