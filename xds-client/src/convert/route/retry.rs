//! `config.route.v3.RetryPolicy`.

use std::time::Duration;

use config::{RetryBackOff, RetryCondition, RetryConditions, RetryPolicy};
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use pb::retry_policy::{RetryBackOff as ToldBackOff, RetryHostPredicate, RetryPriority};
use pb::retry_policy::{retry_host_predicate, retry_priority};

use crate::convert::at::At;
use crate::convert::table::{Choice, Message, Told, open, variants};
use crate::convert::values::{duration, needed, number, status};
use crate::convert::{Refused, typed};

/// Envoy's `num_retries` where nothing is said.
const RETRIES: u32 = 1;
/// Envoy's `base_interval` where nothing is said.
const BASE_INTERVAL: Duration = Duration::from_millis(25);
/// Envoy's `max_interval` where nothing is said, as a multiple of the base.
const MAX_INTERVAL_FACTOR: u32 = 10;
/// Tries after which priorities are looked at again: those that were tried are avoided from the second on.
const UPDATE_FREQUENCY: i32 = 2;

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        pb::RetryPolicy::MESSAGE,
        ToldBackOff::MESSAGE,
        RetryHostPredicate::MESSAGE,
        retry_host_predicate::ConfigType::MESSAGE,
        PreviousHostsPredicate::MESSAGE,
        RetryPriority::MESSAGE,
        retry_priority::ConfigType::MESSAGE,
        PreviousPrioritiesConfig::MESSAGE,
    ]
}

variants!(retry_host_predicate::ConfigType as "envoy.config.route.v3.RetryPolicy.RetryHostPredicate.config_type" {
    honoured: TypedConfig;
});

variants!(retry_priority::ConfigType as "envoy.config.route.v3.RetryPolicy.RetryPriority.config_type" {
    honoured: TypedConfig;
});

pub(super) fn policy(told: pb::RetryPolicy, at: &At<'_>) -> Result<RetryPolicy, Refused> {
    open!(told, at, pb::RetryPolicy as "envoy.config.route.v3.RetryPolicy" {
        honoured: retry_on, num_retries, per_try_timeout, retry_priority, retry_host_predicate,
            host_selection_retry_max_attempts, retriable_status_codes, retry_back_off;
        refused: per_try_idle_timeout, retry_options_predicates, rate_limited_retry_back_off, retriable_headers,
            retriable_request_headers, refresh_cluster_on_retry;
    });
    let mut avoid_previous_hosts = false;
    for (index, told) in retry_host_predicate.into_iter().enumerate() {
        previous_hosts(told, &at.index("retry_host_predicate", index))?;
        avoid_previous_hosts = true;
    }
    let at_priority = at.field("retry_priority");
    let avoid_previous_priorities = retry_priority.is_some();
    retry_priority.map(|told| previous_priorities(told, &at_priority)).transpose()?;
    let at_attempts = at.field("host_selection_retry_max_attempts");
    let attempts = match host_selection_retry_max_attempts {
        // Not said; once is what Envoy does anyway.
        0 => 1,
        told => u32::try_from(told).map_err(|_| at_attempts.refuse(format!("{told} is no count")))?,
    };
    let codes = retriable_status_codes.into_iter().enumerate();
    let codes = codes.map(|(index, told)| status(told, &at.index("retriable_status_codes", index)));
    Ok(RetryPolicy {
        retry_on: conditions(&retry_on, &at.field("retry_on"))?,
        retriable_status_codes: codes.collect::<Result<_, Refused>>()?,
        num_retries: number(num_retries).unwrap_or(RETRIES),
        per_try_timeout: duration(per_try_timeout, &at.field("per_try_timeout"))?.unwrap_or_default(),
        back_off: back_off(retry_back_off, &at.field("retry_back_off"))?,
        avoid_previous_hosts,
        host_selection_retry_max_attempts: attempts,
        avoid_previous_priorities,
    })
}

fn conditions(told: &str, at: &At<'_>) -> Result<RetryConditions, Refused> {
    let names = told.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| {
            RetryCondition::by_name(name)
                .ok_or_else(|| at.refuse(format!("weft knows no condition {name:?}")))
        })
        .collect()
}

fn back_off(told: Option<ToldBackOff>, at: &At<'_>) -> Result<RetryBackOff, Refused> {
    let default = RetryBackOff {
        base_interval: BASE_INTERVAL,
        max_interval: BASE_INTERVAL.saturating_mul(MAX_INTERVAL_FACTOR),
    };
    let Some(told) = told else { return Ok(default) };
    open!(told, at, ToldBackOff as "envoy.config.route.v3.RetryPolicy.RetryBackOff" {
        honoured: base_interval, max_interval;
    });
    let base = needed(duration(base_interval, &at.field("base_interval"))?, &at.field("base_interval"))?;
    let longest = duration(max_interval, &at.field("max_interval"))?;
    let max_interval = longest.unwrap_or_else(|| base.saturating_mul(MAX_INTERVAL_FACTOR));
    if base.is_zero() || max_interval < base {
        return Err(at.refuse("the base is over 0, and at most the maximum"));
    }
    Ok(RetryBackOff { base_interval: base, max_interval })
}

fn previous_hosts(told: RetryHostPredicate, at: &At<'_>) -> Result<(), Refused> {
    open!(told, at, RetryHostPredicate as "envoy.config.route.v3.RetryPolicy.RetryHostPredicate" {
        honoured: config_type;
        harmless: name = "the type of its configuration says what it is";
    });
    let retry_host_predicate::ConfigType::TypedConfig(config) = needed(config_type, at)?.choose(at)?;
    let at = at.field("typed_config");
    let told: PreviousHostsPredicate = typed::decode(&config, &at)?;
    open!(told, at, PreviousHostsPredicate
        as "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" {});
    Ok(())
}

fn previous_priorities(told: RetryPriority, at: &At<'_>) -> Result<(), Refused> {
    open!(told, at, RetryPriority as "envoy.config.route.v3.RetryPolicy.RetryPriority" {
        honoured: config_type;
        harmless: name = "the type of its configuration says what it is";
    });
    let retry_priority::ConfigType::TypedConfig(config) = needed(config_type, at)?.choose(at)?;
    let at = at.field("typed_config");
    let told: PreviousPrioritiesConfig = typed::decode(&config, &at)?;
    open!(told, at, PreviousPrioritiesConfig
        as "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig" {
        honoured: update_frequency;
    });
    if update_frequency != UPDATE_FREQUENCY {
        return Err(at.field("update_frequency").refuse(format!("weft knows {UPDATE_FREQUENCY} only")));
    }
    Ok(())
}
