//! `config.core.v3.ConfigSource`: where further resources come from. weft takes them from the stream that it has.

use envoy_types::pb::envoy::config::core::v3 as core;

use super::Refused;
use super::at::At;
use super::table::{Choice, Message, Told, open, variants};
use super::values::needed;

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![core::ConfigSource::MESSAGE, core::config_source::ConfigSourceSpecifier::MESSAGE]
}

variants!(core::config_source::ConfigSourceSpecifier as "envoy.config.core.v3.ConfigSource.config_source_specifier" {
    honoured: Ads, Self_;
    refused: Path, PathConfigSource, ApiConfigSource;
});

/// Refuses any source but the aggregated stream.
pub(super) fn aggregated(told: Option<core::ConfigSource>, at: &At<'_>) -> Result<(), Refused> {
    open!(needed(told, at)?, at, core::ConfigSource as "envoy.config.core.v3.ConfigSource" {
        honoured: config_source_specifier;
        harmless:
            initial_fetch_timeout = "weft serves what it has, and waits for the rest",
            resource_api_version = "there is one version, 3";
        refused: authorities;
    });
    needed(config_source_specifier, at)?.choose(at).map(drop)
}
