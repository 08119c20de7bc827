//! Where a DestinationRule writes the fields by which it tells the settings of a cluster.

use super::destination_rules::{Merged, RuleSubset};
use super::traffic_policy::Policy;
use crate::istio::{DestinationRule, TrafficPolicy};
use crate::objects::Object;
use crate::origin::Origin;
use crate::resource::{Fields, Setting, Told, ToldBy};

/// Each setting that a rule may tell, the block it is told in, and its field there; where there are several, the one that
/// counts first.
const FIELDS: [(Setting, Block, &[&str]); 13] = [
    (Setting::LoadBalancing, Block::LoadBalancer, &["simple"]),
    (Setting::Locality, Block::LoadBalancer, &["localityLbSetting"]),
    (Setting::ConnectTimeout, Block::ConnectionPool, &["tcp.connectTimeout"]),
    (Setting::MaxConnectionDuration, Block::ConnectionPool, &["tcp.maxConnectionDuration"]),
    (Setting::IdleTimeout, Block::ConnectionPool, &["http.idleTimeout", "tcp.idleTimeout"]),
    (Setting::TcpIdleTimeout, Block::ConnectionPool, &["tcp.idleTimeout"]),
    (Setting::Protocol, Block::ConnectionPool, &["http.useClientProtocol", "http.h2UpgradePolicy"]),
    (Setting::OutlierDetection, Block::OutlierDetection, &[""]),
    (Setting::MaxConnections, Block::ConnectionPool, &["tcp.maxConnections"]),
    (Setting::MaxPendingRequests, Block::ConnectionPool, &["http.http1MaxPendingRequests"]),
    (Setting::MaxRequests, Block::ConnectionPool, &["http.http2MaxRequests"]),
    (Setting::MaxRetries, Block::ConnectionPool, &["http.maxRetries"]),
    (Setting::Tls, Block::Tls, &["mode"]),
];

/// A block of a traffic policy.
#[derive(Clone, Copy)]
enum Block {
    LoadBalancer,
    ConnectionPool,
    OutlierDetection,
    Tls,
}

impl Block {
    fn name(self) -> &'static str {
        match self {
            Block::LoadBalancer => "loadBalancer",
            Block::ConnectionPool => "connectionPool",
            Block::OutlierDetection => "outlierDetection",
            Block::Tls => "tls",
        }
    }

    /// Whether two policies have this very block.
    fn is_same(self, one: &Policy<'_>, other: &Policy<'_>) -> bool {
        fn same<T>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_some_and(|(one, other)| std::ptr::eq(one, other))
        }
        match self {
            Block::LoadBalancer => same(one.load_balancer, other.load_balancer),
            Block::ConnectionPool => same(one.connection_pool, other.connection_pool),
            Block::OutlierDetection => same(one.outlier_detection, other.outlier_detection),
            Block::Tls => same(one.tls, other.tls),
        }
    }
}

/// Where the fields are written by which `rule`, for `subset` if there is one, tells what `told` says that it does: those of
/// the blocks that `policy` was made of.
pub(super) fn fields(
    policy: &Policy<'_>,
    told: Told,
    rule: Option<&Merged<'_>>,
    subset: Option<&RuleSubset<'_>>,
) -> Option<Box<Fields>> {
    let is_told = |setting: &Setting| told.by(*setting) == ToldBy::Object;
    let mut fields = Vec::new();
    for (setting, block, names) in FIELDS.into_iter().filter(|(setting, ..)| is_told(setting)) {
        let of_subset = subset.and_then(RuleSubset::policy);
        let all = [of_subset, rule.and_then(Merged::policy)];
        let written = all
            .into_iter()
            .flatten()
            .find_map(|(object, written, path)| Some((object, prefix(policy, block, written, &path)?)));
        if let Some((object, prefix)) = written {
            fields.push((setting, origin(object, &format!("{prefix}.{}", block.name()), names)));
        }
    }
    (!fields.is_empty()).then(|| Box::new(Fields(fields.into())))
}

/// The rule, or the subset of it, that says the `tls` of `policy`.
pub(super) fn asking_for_tls(
    policy: &Policy<'_>,
    rule: Option<&Merged<'_>>,
    subset: Option<&RuleSubset<'_>>,
) -> Option<Origin> {
    let says_it = |written| prefix(policy, Block::Tls, written, "").is_some();
    let of_subset = subset.filter(|subset| subset.policy().is_some_and(|(_, written, _)| says_it(written)));
    match of_subset {
        Some(subset) => Some(subset.origin().clone()),
        None => rule.and_then(Merged::policy).map(|(object, ..)| object.origin()),
    }
}

/// The path of what holds the block: the policy at `path`, or its settings of a port.
fn prefix(policy: &Policy<'_>, block: Block, written: &TrafficPolicy, path: &str) -> Option<String> {
    if block.is_same(policy, &Policy::whole(written)) {
        return Some(path.to_owned());
    }
    let mut ports = written.port_level_settings.iter();
    let index = ports.position(|settings| block.is_same(policy, &Policy::whole_of_port(settings)))?;
    Some(format!("{path}.portLevelSettings[{index}]"))
}

/// The first of these fields that is written.
fn origin(object: &Object<DestinationRule>, block: &str, names: &[&str]) -> Origin {
    let whole = object.origin_at(block);
    let of = |name: &&str| match *name {
        "" => whole.clone(),
        name => object.origin_at(&format!("{block}.{name}")),
    };
    // A field that is not written has the place of its block.
    names.iter().map(of).find(|origin| *origin != whole).unwrap_or(whole)
}
