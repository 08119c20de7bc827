//! AuthorizationPolicy: who may do what.

use serde::Deserialize;

use super::value::WorkloadSelector;

/// `security.istio.io` AuthorizationPolicy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationPolicy {
    /// The workloads it is for; without one those of its namespace, in the root namespace those of the mesh.
    pub selector: Option<WorkloadSelector>,
    /// The gateway or waypoint it is for.
    pub target_ref: Option<PolicyTargetReference>,
    /// The gateways or waypoints it is for.
    #[serde(default)]
    pub target_refs: Vec<PolicyTargetReference>,
    /// Any of these; none never matches, so that ALLOW without rules allows nothing.
    #[serde(default)]
    pub rules: Vec<AuthorizationRule>,
    /// What happens to requests that match.
    #[serde(default)]
    pub action: AuthorizationAction,
    /// Who decides, for CUSTOM.
    pub provider: Option<ExtensionProvider>,
}

/// What happens to requests that match.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuthorizationAction {
    /// They are allowed, and all others are not.
    #[default]
    Allow,
    /// They are denied.
    Deny,
    /// They are logged.
    Audit,
    /// Another service decides.
    Custom,
}

/// A service of MeshConfig that decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtensionProvider {
    /// Its name among `extensionProviders`.
    #[serde(default)]
    pub name: String,
}

/// An object that a policy is for, instead of a selector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTargetReference {
    /// Its group; empty for the core group.
    #[serde(default)]
    pub group: String,
    /// `Gateway`, `Service`, ...
    #[serde(default)]
    pub kind: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its namespace; must be the policy's.
    pub namespace: Option<String>,
}

/// One rule: all three parts must match; an empty part does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationRule {
    /// Who asks: any of these.
    #[serde(default)]
    pub from: Vec<AuthorizationFrom>,
    /// What is asked: any of these.
    #[serde(default)]
    pub to: Vec<AuthorizationTo>,
    /// Further conditions: all of these.
    #[serde(default)]
    pub when: Vec<AuthorizationCondition>,
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationFrom {
    /// All fields that are written.
    #[serde(default)]
    pub source: AuthorizationSource,
}

/// Fields of a source. Values are exact, `prefix*`, `*suffix` or `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names say it; what they mean will be said where they are enforced")]
pub struct AuthorizationSource {
    pub principals: Vec<String>,
    pub not_principals: Vec<String>,
    pub request_principals: Vec<String>,
    pub not_request_principals: Vec<String>,
    pub namespaces: Vec<String>,
    pub not_namespaces: Vec<String>,
    pub service_accounts: Vec<String>,
    pub not_service_accounts: Vec<String>,
    pub ip_blocks: Vec<String>,
    pub not_ip_blocks: Vec<String>,
    pub remote_ip_blocks: Vec<String>,
    pub not_remote_ip_blocks: Vec<String>,
    pub trust_domains: Vec<String>,
    pub not_trust_domains: Vec<String>,
}

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationTo {
    /// All fields that are written.
    #[serde(default)]
    pub operation: AuthorizationOperation,
}

/// Fields of an operation. Values are exact, `prefix*`, `*suffix` or `*`; paths also hold `{*}` and `{**}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names say it; what they mean will be said where they are enforced")]
pub struct AuthorizationOperation {
    pub hosts: Vec<String>,
    pub not_hosts: Vec<String>,
    pub ports: Vec<String>,
    pub not_ports: Vec<String>,
    pub methods: Vec<String>,
    pub not_methods: Vec<String>,
    pub paths: Vec<String>,
    pub not_paths: Vec<String>,
}

/// A condition on an attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationCondition {
    /// The attribute, such as `request.auth.claims[role]`.
    pub key: String,
    /// Any of these.
    #[serde(default)]
    pub values: Vec<String>,
    /// None of these.
    #[serde(default)]
    pub not_values: Vec<String>,
}
