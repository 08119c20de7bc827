//! The code of every [`Finding`](super::Finding): one stable name a kind of finding, for filters and pipelines.
//!
//! A code once released keeps its name and meaning. This is the only list; findings name their code by constant.

/// Error. The text is not YAML.
pub const MALFORMED_YAML: &str = "malformed-yaml";
/// Error. A limit on the size of a text was passed; the limit is named.
pub const LIMIT_EXCEEDED: &str = "limit-exceeded";
/// Error. A document does not tell which object it is: no `apiVersion`, `kind` or `metadata.name`.
pub const NO_IDENTITY: &str = "no-identity";
/// Error. A field is written twice.
pub const DUPLICATE_KEY: &str = "duplicate-key";
/// Error. A field that its kind does not have.
pub const UNKNOWN_FIELD: &str = "unknown-field";
/// Error. A kind of `*.istio.io` that Istio does not have.
pub const UNKNOWN_KIND: &str = "unknown-kind";
/// Error. A version of `*.istio.io` in which that kind is not served.
pub const UNKNOWN_VERSION: &str = "unknown-version";
/// Error. A value of the wrong type: text where a number belongs, a list where a mapping belongs.
pub const WRONG_TYPE: &str = "wrong-type";
/// Error. A value of the right type that its field cannot have.
pub const BAD_VALUE: &str = "bad-value";
/// Error. A regular expression that does not compile, or is too big.
pub const BAD_REGEX: &str = "bad-regex";
/// Error. A field that is required.
pub const MISSING_FIELD: &str = "missing-field";
/// Error. Fields that exclude each other.
pub const CONFLICTING_FIELDS: &str = "conflicting-fields";
/// Error. The same object is written in two places.
pub const DUPLICATE_OBJECT: &str = "duplicate-object";

/// Warning. A kind of Istio's that weft does not honour yet.
pub const KIND_NOT_HONOURED: &str = "kind-not-honoured";
/// Warning. A value that the kernel does not take; the next to it that it takes holds.
pub const VALUE_BOUNDED: &str = "value-bounded";
/// Warning. A field of Istio's that weft does not honour yet; the rest of its object holds.
pub const FIELD_NOT_HONOURED: &str = "field-not-honoured";
/// Warning. Something that guards trust and is not enforced yet, so that weft refuses the traffic it guards.
pub const SECURITY_NOT_ENFORCED: &str = "security-not-enforced";
/// Warning. A field that Istio has deprecated.
pub const DEPRECATED_FIELD: &str = "deprecated-field";
/// Warning. A value that does nothing, or less than it seems to.
pub const INEFFECTIVE_VALUE: &str = "ineffective-value";
/// Warning. A rule that can never match: the rules before it take all it would, or nothing can meet it where it is used.
pub const UNREACHABLE_RULE: &str = "unreachable-rule";
/// Warning. A match that does nothing: one before it takes the same requests, or nothing can meet it.
pub const INEFFECTIVE_MATCH: &str = "ineffective-match";
/// Warning. A host that no service has.
pub const DANGLING_HOST: &str = "dangling-host";
/// Warning. A host whose service the clients of a rule do not see, because it is not exported to them.
pub const HIDDEN_HOST: &str = "hidden-host";
/// Warning. A subset that no DestinationRule defines.
pub const DANGLING_SUBSET: &str = "dangling-subset";
/// Warning. A port that the service does not have.
pub const DANGLING_PORT: &str = "dangling-port";
/// Warning. A Gateway that does not exist.
pub const DANGLING_GATEWAY: &str = "dangling-gateway";
/// Warning. A selector of a Gateway whose labels no pod has.
pub const DANGLING_SELECTOR: &str = "dangling-selector";
/// Warning. A host of a VirtualService that no server has of the gateways it is for.
pub const UNSERVED_HOST: &str = "unserved-host";
/// Warning. A delegate that does not exist, or is not one.
pub const DANGLING_DELEGATE: &str = "dangling-delegate";
/// Warning. A rule of a delegate that is left out, because it matches what the rule that delegates does not.
pub const CONFLICTING_DELEGATE: &str = "conflicting-delegate";
/// Warning. An EndpointSlice of a service that does not exist.
pub const DANGLING_SERVICE: &str = "dangling-service";
/// Warning. A destination without a port for a service with several.
pub const AMBIGUOUS_PORT: &str = "ambiguous-port";
/// Warning. A subset whose labels no endpoint of the service carries.
pub const EMPTY_SUBSET: &str = "empty-subset";
/// Warning. Endpoints of a service do not take what they are sent: not the TLS mode that a DestinationRule says, or not the
/// plain text that it leaves.
pub const CONFLICTING_TLS_MODE: &str = "conflicting-tls-mode";
/// Warning. Two objects claim the same host, and Istio lets one of them hold.
pub const CONFLICTING_HOST: &str = "conflicting-host";

/// Warning. An endpoint whose Pod is not there, so that neither its labels nor its locality are known; it is left out.
pub const ENDPOINT_WITHOUT_POD: &str = "endpoint-without-pod";
/// Warning. An address that serves one port of a service by two numbers; only the first is used.
pub const REPEATED_ENDPOINT: &str = "repeated-endpoint";
/// Warning. A listener for a service that does not exist.
pub const UNKNOWN_LISTEN_SERVICE: &str = "unknown-listen-service";
/// Warning. A listener for a port that its service does not have, or does not serve as HTTP.
pub const UNKNOWN_LISTEN_PORT: &str = "unknown-listen-port";
/// Warning. An address and port that two services want, or two servers of gateways, whose connections nothing tells apart;
/// one of them holds.
pub const CONFLICTING_LISTENER: &str = "conflicting-listener";
/// Warning. An access log format with an operator weft does not have; Istio's default format is used.
pub const ACCESS_LOG_FORMAT: &str = "access-log-format";
/// Warning. Node metadata that cannot be read; what holds without it is done.
pub const UNUSABLE_METADATA: &str = "unusable-metadata";
/// Warning. A name of which DNS tells no address.
pub const UNRESOLVED_NAME: &str = "unresolved-name";
/// Warning. A rule that cannot be compiled.
pub const UNUSABLE_RULE: &str = "unusable-rule";
/// Warning. A secret that TLS needs and that is missing or cannot be used; what was there before serves, if there was.
pub const UNUSABLE_SECRET: &str = "unusable-secret";
/// Warning. A certificate that should have been renewed, or holds no longer.
pub const EXPIRING_CERTIFICATE: &str = "expiring-certificate";
/// Warning. No new identity of the workload comes from where it should, or what comes is refused; the last good one serves.
pub const IDENTITY_SOURCE: &str = "identity-source";
/// Error. A listener of the configuration that cannot listen where it should: nobody is served there until it can.
pub const LISTENER_NOT_BOUND: &str = "listener-not-bound";
/// Error. The workload that weft is told to stand beside is not in the configuration.
pub const UNKNOWN_WORKLOAD: &str = "unknown-workload";
/// Error. A file that cannot be read.
pub const UNREADABLE_FILE: &str = "unreadable-file";
/// Warning. A `mesh.yaml` or a ConfigMap that is not read, because another MeshConfig wins over it.
pub const MESH_CONFIG_OVERRIDDEN: &str = "mesh-config-overridden";
/// Warning. A directory of the configuration without a single file of it.
pub const EMPTY_DIRECTORY: &str = "empty-directory";

/// Warning. What is written now holds after a restart only.
pub const NEEDS_RESTART: &str = "needs-restart";

/// Note. A ConfigMap with the MeshConfig of another revision or namespace.
pub const MESH_CONFIG_ELSEWHERE: &str = "mesh-config-elsewhere";

/// Note. Outlier detection that can eject nobody, with as few endpoints as there are.
pub const NEVER_EJECTS: &str = "never-ejects";
/// Note. Objects of a kind that weft does not read.
pub const KIND_SKIPPED: &str = "kind-skipped";
/// Note. Objects that stay as they were last read, because their file or document is bad now.
pub const LAST_GOOD_SERVES: &str = "last-good-serves";
