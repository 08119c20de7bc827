//! The table. A line stands for each combination of what it lists.

use super::certificates::Shown::{
    self, Expired, Good, Nameless, NotSpiffe, NotYetValid, Nothing, Nul, OtherDomain, Revoked, TooLong,
    TwoUris, Untrusted,
};
use super::places::Mode::{
    self, Disable, IstioMutual, Mutual, OptionalMutual, Passthrough, Permissive, Simple, Strict,
};
use super::{Asks, NO_CHAIN, Offers, Outcome};

/// What is expected.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    Http,
    Bytes,
    Exchanged,
    Untouched,
    Refused(&'static str),
}

impl Expected {
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Expected::Http => Outcome::Http,
            Expected::Bytes => Outcome::Bytes,
            Expected::Exchanged => Outcome::Exchanged,
            Expected::Untouched => Outcome::Untouched,
            Expected::Refused(reason) => Outcome::Refused(reason.to_owned()),
        }
    }
}

/// Where, what is shown, what is offered, the name that is asked for, and what becomes of it.
type Line = (&'static [Mode], &'static [Shown], &'static [Offers], &'static [Asks], Expected);

const PLAIN_TEXT: Offers = None;
/// What a sidecar offers for HTTP/1.1, for HTTP/2 and for bytes.
const MESH_HTTP1: Offers = Some(&["istio-http/1.1", "istio", "http/1.1"]);
const MESH_HTTP2: Offers = Some(&["istio-h2", "istio", "h2"]);
const MESH_BYTES: Offers = Some(&["istio-peer-exchange", "istio"]);
const ISTIO_HTTP1: Offers = Some(&["istio-http/1.1"]);
const ISTIO: Offers = Some(&["istio"]);
/// What clients outside a mesh offer.
const HTTP1: Offers = Some(&["http/1.1"]);
const HTTP2: Offers = Some(&["h2"]);
const BROWSER: Offers = Some(&["h2", "http/1.1"]);
const NOTHING: Offers = Some(&[]);

const WORKLOADS: &[Mode] = &[Strict, Permissive];
/// Where clients must show a certificate that an authority of the mesh signed.
const ALL_MUTUAL: &[Mode] = &[Mutual, IstioMutual];
const OWN: &[Asks] = &[Asks::Own];
const ANY_NAME: &[Asks] = &[Asks::Own, Asks::Other, Asks::Nothing];
const UNKNOWN_NAME: &[Asks] = &[Asks::Other, Asks::Nothing];

const MISSING: Expected = Expected::Refused("certificate_missing");
const NO_WORKLOAD: Expected = Expected::Refused("certificate_not_of_a_workload");
const OTHER_NAME: Expected = Expected::Refused("certificate_not_of_a_wanted_name");
const UNKNOWN_ISSUER: Expected = Expected::Refused("certificate_unknown_issuer");
const EXPIRED: Expected = Expected::Refused("certificate_expired");
const NOT_YET: Expected = Expected::Refused("certificate_not_yet_valid");
const REVOKED: Expected = Expected::Refused("certificate_revoked");
const INVALID: Expected = Expected::Refused("certificate_invalid");
const CLOSED: Expected = Expected::Refused(NO_CHAIN);

/// Certificates that are good by their chain, and by nothing else.
const SIGNED: &[Shown] = &[TwoUris, NotSpiffe, Nameless, OtherDomain];
const NO_NAME_OF_A_WORKLOAD: &[Shown] = &[TwoUris, NotSpiffe, Nameless, Nul];
/// What is looked at where nobody asks for a certificate.
const SOME: &[Shown] = &[Good, Nothing, Expired, Untrusted];
const MESH: &[Offers] = &[MESH_HTTP1, MESH_HTTP2, MESH_BYTES];
const OUTSIDE: &[Offers] = &[HTTP1, HTTP2, NOTHING];

pub(super) const TABLE: &[Line] = &[
    // A workload lets in workloads of its trust domain, by what they offer; what name they ask for is all the same.
    (WORKLOADS, &[Good], &[MESH_HTTP1, MESH_HTTP2, ISTIO_HTTP1], ANY_NAME, Expected::Http),
    (WORKLOADS, &[Good], &[MESH_BYTES], ANY_NAME, Expected::Exchanged),
    (WORKLOADS, &[Good], &[ISTIO], ANY_NAME, Expected::Bytes),
    (WORKLOADS, &[Nothing], MESH, OWN, MISSING),
    (WORKLOADS, NO_NAME_OF_A_WORKLOAD, MESH, OWN, NO_WORKLOAD),
    (WORKLOADS, &[OtherDomain], MESH, OWN, OTHER_NAME),
    (WORKLOADS, &[Untrusted], MESH, OWN, UNKNOWN_ISSUER),
    (WORKLOADS, &[Expired], MESH, OWN, EXPIRED),
    (WORKLOADS, &[NotYetValid], MESH, OWN, NOT_YET),
    (WORKLOADS, &[Revoked], MESH, OWN, REVOKED),
    (WORKLOADS, &[TooLong], MESH, OWN, INVALID),
    // In STRICT, what offers nothing of Istio's must show the same; in PERMISSIVE, it is the application's.
    (&[Strict], &[Good], OUTSIDE, OWN, Expected::Bytes),
    (&[Strict], &[Nothing], OUTSIDE, OWN, MISSING),
    (&[Strict], &[Expired], OUTSIDE, OWN, EXPIRED),
    (&[Strict], &[Untrusted], OUTSIDE, OWN, UNKNOWN_ISSUER),
    (&[Permissive], SOME, OUTSIDE, OWN, Expected::Untouched),
    // Plain text, and where nothing else is spoken.
    (&[Strict], &[Nothing], &[PLAIN_TEXT], OWN, CLOSED),
    (&[Permissive, Disable], &[Nothing], &[PLAIN_TEXT], OWN, Expected::Http),
    (&[Disable], SOME, &[MESH_HTTP1, MESH_BYTES, HTTP2, NOTHING], OWN, Expected::Untouched),
    // A gateway's server is found by the name that is asked for, and what is offered parts nobody.
    (&[Simple], SOME, &[HTTP1, HTTP2, BROWSER, ISTIO, NOTHING], OWN, Expected::Http),
    (&[OptionalMutual], &[Good, Nothing], &[HTTP1, HTTP2, BROWSER, ISTIO, NOTHING], OWN, Expected::Http),
    (ALL_MUTUAL, &[Good], &[HTTP1, HTTP2, BROWSER, ISTIO, NOTHING], OWN, Expected::Http),
    (&[Passthrough], SOME, &[HTTP1, HTTP2, NOTHING], OWN, Expected::Untouched),
    (&[Simple, Mutual], &[Good, Nothing], &[HTTP1, HTTP2], UNKNOWN_NAME, CLOSED),
    (&[Simple], &[Nothing], &[PLAIN_TEXT], OWN, CLOSED),
    // Whom it lets in: whoever was signed, where no names are asked for.
    (&[Mutual, OptionalMutual], SIGNED, &[HTTP1], OWN, Expected::Http),
    (&[Mutual, OptionalMutual], &[Nul], &[HTTP1], OWN, INVALID),
    (&[IstioMutual], NO_NAME_OF_A_WORKLOAD, &[HTTP1], OWN, NO_WORKLOAD),
    (&[IstioMutual], &[OtherDomain], &[HTTP1], OWN, Expected::Http),
    (ALL_MUTUAL, &[Nothing], &[HTTP1, HTTP2], OWN, MISSING),
    (&[Mutual, OptionalMutual, IstioMutual], &[Untrusted], &[HTTP1, HTTP2], OWN, UNKNOWN_ISSUER),
    (&[Mutual, OptionalMutual, IstioMutual], &[Expired], &[HTTP1, HTTP2], OWN, EXPIRED),
    (&[Mutual, OptionalMutual, IstioMutual], &[NotYetValid], &[HTTP1, HTTP2], OWN, NOT_YET),
    (&[Mutual, OptionalMutual, IstioMutual], &[Revoked], &[HTTP1, HTTP2], OWN, REVOKED),
    (&[Mutual, OptionalMutual, IstioMutual], &[TooLong], &[HTTP1, HTTP2], OWN, INVALID),
];
