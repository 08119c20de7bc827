//! How an endpoint is chosen: `lb_policy`, its settings, and what is common to all.

use config::{LoadBalancingPolicy, SlowStart};
use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::v3 as kinds;

use crate::convert::Refused;
use crate::convert::at::At;
use crate::convert::table::{Choice, Message, Told, open, variants};
use crate::convert::values::{duration, enumerated, number, port};

/// Envoy's `healthy_panic_threshold` where nothing is said.
const HEALTHY_PANIC_PERCENT: u32 = 50;
/// Envoy's `aggression` where nothing is said.
const AGGRESSION: f64 = 1.0;
/// Envoy's `min_weight_percent` where nothing is said.
const MIN_WEIGHT_PERCENT: f64 = 10.0;

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        pb::cluster::LbPolicy::MESSAGE,
        pb::cluster::LbConfig::MESSAGE,
        pb::cluster::RoundRobinLbConfig::MESSAGE,
        pb::cluster::LeastRequestLbConfig::MESSAGE,
        pb::cluster::OriginalDstLbConfig::MESSAGE,
        pb::cluster::SlowStartConfig::MESSAGE,
        core::RuntimeDouble::MESSAGE,
        pb::cluster::CommonLbConfig::MESSAGE,
        pb::cluster::common_lb_config::LocalityConfigSpecifier::MESSAGE,
    ]
}

variants!(pb::cluster::LbPolicy as "envoy.config.cluster.v3.Cluster.LbPolicy" {
    honoured: RoundRobin, LeastRequest, Random, ClusterProvided;
    not_run:
        RingHash = "the least loaded of two endpoints is chosen, whatever the hash",
        Maglev = "the least loaded of two endpoints is chosen, whatever the hash";
    refused: LoadBalancingPolicyConfig;
});

variants!(pb::cluster::LbConfig as "envoy.config.cluster.v3.Cluster.lb_config" {
    honoured: LeastRequestLbConfig, RoundRobinLbConfig, OriginalDstLbConfig;
    not_run:
        RingHashLbConfig = "there is no ring, as endpoints are not chosen by a hash yet",
        MaglevLbConfig = "there is no table, as endpoints are not chosen by a hash yet";
});

variants!(pb::cluster::common_lb_config::LocalityConfigSpecifier
    as "envoy.config.cluster.v3.Cluster.CommonLbConfig.locality_config_specifier" {
    honoured: LocalityWeightedLbConfig;
    not_run: ZoneAwareLbConfig = "the own zone is not preferred by the number of endpoints in each";
});

/// The policy and its slow start.
pub(super) struct Balancing {
    pub(super) policy: LoadBalancingPolicy,
    pub(super) slow_start: Option<SlowStart>,
}

pub(super) fn balancing(
    policy: i32,
    settings: Option<pb::cluster::LbConfig>,
    at: &At<'_>,
) -> Result<Balancing, Refused> {
    use pb::cluster::{LbConfig, LbPolicy};
    let at_policy = at.field("lb_policy");
    let policy = match enumerated::<LbPolicy>(policy, &at_policy)?.choose(&at_policy)? {
        LbPolicy::RoundRobin => LoadBalancingPolicy::RoundRobin,
        LbPolicy::LeastRequest | LbPolicy::RingHash | LbPolicy::Maglev => LoadBalancingPolicy::LeastRequest,
        LbPolicy::Random => LoadBalancingPolicy::Random,
        LbPolicy::ClusterProvided => LoadBalancingPolicy::ClusterProvided { port: None },
        LbPolicy::LoadBalancingPolicyConfig => return Err(at_policy.not_honoured()),
    };
    let mut policy = policy;
    let slow_start = match settings.map(|told| told.choose(at)).transpose()? {
        Some(LbConfig::RoundRobinLbConfig(told)) => {
            open!(told, at, pb::cluster::RoundRobinLbConfig as "envoy.config.cluster.v3.Cluster.RoundRobinLbConfig" {
                honoured: slow_start_config;
            });
            slow_start(slow_start_config, &at.field("round_robin_lb_config").field("slow_start_config"))?
        }
        Some(LbConfig::LeastRequestLbConfig(told)) => {
            let at = at.field("least_request_lb_config");
            open!(told, at, pb::cluster::LeastRequestLbConfig as "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig" {
                honoured: slow_start_config;
                refused: choice_count, active_request_bias;
            });
            slow_start(slow_start_config, &at.field("slow_start_config"))?
        }
        Some(LbConfig::OriginalDstLbConfig(told)) => {
            policy = provided(told, policy, &at.field("original_dst_lb_config"))?;
            None
        }
        _ => None,
    };
    Ok(Balancing { policy, slow_start })
}

/// The policy of who goes where the client wanted to go, but for the port.
fn provided(
    told: pb::cluster::OriginalDstLbConfig,
    policy: LoadBalancingPolicy,
    at: &At<'_>,
) -> Result<LoadBalancingPolicy, Refused> {
    open!(told, at, pb::cluster::OriginalDstLbConfig as "envoy.config.cluster.v3.Cluster.OriginalDstLbConfig" {
        honoured: upstream_port_override;
        harmless: http_header_name = "it is only read where `use_http_header` is set";
        refused: use_http_header, metadata_key;
    });
    if !matches!(policy, LoadBalancingPolicy::ClusterProvided { .. }) {
        return Err(at.refuse("the clusters it is for have the policy CLUSTER_PROVIDED"));
    }
    let at = at.field("upstream_port_override");
    let port = number(upstream_port_override).map(|told| port(told, &at)).transpose()?;
    if port == Some(0) {
        return Err(at.refuse("0 is no port to go to"));
    }
    Ok(LoadBalancingPolicy::ClusterProvided { port })
}

fn slow_start(told: Option<pb::cluster::SlowStartConfig>, at: &At<'_>) -> Result<Option<SlowStart>, Refused> {
    let Some(told) = told else { return Ok(None) };
    open!(told, at, pb::cluster::SlowStartConfig as "envoy.config.cluster.v3.Cluster.SlowStartConfig" {
        honoured: slow_start_window, aggression, min_weight_percent;
    });
    let Some(window) = duration(slow_start_window, &at.field("slow_start_window"))? else { return Ok(None) };
    let mut steepness = AGGRESSION;
    if let Some(told) = aggression {
        let at = at.field("aggression");
        open!(told, at, core::RuntimeDouble as "envoy.config.core.v3.RuntimeDouble" {
            honoured: default_value;
            harmless: runtime_key = "there is no runtime that could say otherwise";
        });
        if !(default_value >= 1.0 && default_value.is_finite()) {
            return Err(at.field("default_value").refuse(format!("{default_value} is not 1 or more")));
        }
        steepness = default_value;
    }
    let share = percent(min_weight_percent, MIN_WEIGHT_PERCENT, &at.field("min_weight_percent"))?;
    Ok(Some(SlowStart { window, aggression: steepness, min_weight_percent: share }))
}

/// A share in percent.
fn percent(told: Option<kinds::Percent>, default: f64, at: &At<'_>) -> Result<f64, Refused> {
    let Some(kinds::Percent { value }) = told else { return Ok(default) };
    if (0.0..=100.0).contains(&value) {
        Ok(value)
    } else {
        Err(at.refuse(format!("{value} is no percentage")))
    }
}

/// What holds for every policy.
pub(super) struct Common {
    pub(super) healthy_panic_percent: u32,
    pub(super) locality_weighted: bool,
}

pub(super) fn common(told: Option<pb::cluster::CommonLbConfig>, at: &At<'_>) -> Result<Common, Refused> {
    let mut common = Common { healthy_panic_percent: HEALTHY_PANIC_PERCENT, locality_weighted: false };
    let Some(told) = told else { return Ok(common) };
    open!(told, at, pb::cluster::CommonLbConfig as "envoy.config.cluster.v3.Cluster.CommonLbConfig" {
        honoured: healthy_panic_threshold, locality_config_specifier;
        harmless: update_merge_window = "weft waits for changes to settle before it publishes them";
        not_run: consistent_hashing_lb_config = "endpoints are not chosen by a hash yet";
        refused: ignore_new_hosts_until_first_hc, close_connections_on_host_set_change, override_host_status;
    });
    let at_threshold = at.field("healthy_panic_threshold");
    let threshold = percent(healthy_panic_threshold, f64::from(HEALTHY_PANIC_PERCENT), &at_threshold)?;
    // Whole percents are all that Istio has; between 0 and 100 they fit.
    common.healthy_panic_percent = (0..=100_u32)
        .find(|whole| f64::from(*whole) == threshold)
        .ok_or_else(|| at_threshold.refuse("weft knows whole percents only"))?;
    common.locality_weighted = matches!(
        locality_config_specifier.map(|told| told.choose(at)).transpose()?,
        Some(pb::cluster::common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(_))
    );
    Ok(common)
}
