//! Tests of compile as a whole: [`shop`] against what a real istiod says, the others by small meshes of their own.

mod auto_passthrough;
mod clusters;
mod compiler;
mod endpoints;
mod entries;
mod envoy;
mod gateway;
mod identities;
mod inbound;
mod listeners;
pub(super) mod mesh;
mod name_table;
mod outbound;
mod outlier;
mod products;
mod routes;
mod scale;
mod sharing;
mod shop;
mod sidecar;
mod virtual_services;
