//! RequestAuthentication: which JSON Web Tokens are valid.

use serde::Deserialize;

use super::authorization_policy::PolicyTargetReference;
use super::value::{GoDuration, WorkloadSelector};

/// `security.istio.io` RequestAuthentication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestAuthentication {
    /// The workloads it is for; without one those of its namespace, in the root namespace those of the mesh.
    pub selector: Option<WorkloadSelector>,
    /// The gateway or waypoint it is for.
    pub target_ref: Option<PolicyTargetReference>,
    /// The gateways or waypoints it is for.
    #[serde(default)]
    pub target_refs: Vec<PolicyTargetReference>,
    /// Who may issue tokens, and where they are found.
    #[serde(default)]
    pub jwt_rules: Vec<JwtRule>,
}

/// Tokens of one issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtRule {
    /// `iss` of the token.
    #[serde(default)]
    pub issuer: String,
    /// Any of these must be in `aud`.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Where the keys are fetched from.
    pub jwks_uri: Option<String>,
    /// The keys themselves.
    pub jwks: Option<String>,
    /// Headers that carry the token.
    #[serde(default)]
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that carry it.
    #[serde(default)]
    pub from_params: Vec<String>,
    /// Cookies that carry it.
    #[serde(default)]
    pub from_cookies: Vec<String>,
    /// Header that tells the workload the payload.
    pub output_payload_to_header: Option<String>,
    /// Whether the workload sees the token.
    pub forward_original_token: Option<bool>,
    /// Headers that tell the workload single claims.
    #[serde(default)]
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Bound on fetching the keys.
    pub timeout: Option<GoDuration>,
    /// Claims that hold several values, separated by spaces.
    #[serde(default)]
    pub space_delimited_claims: Vec<String>,
}

/// A header that carries a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtHeader {
    /// Its name.
    pub name: String,
    /// What stands before the token.
    pub prefix: Option<String>,
}

/// A claim as a header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimToHeader {
    /// The header.
    pub header: String,
    /// The claim.
    pub claim: String,
}
