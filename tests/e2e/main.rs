//! End to end: a real proxy, real backends, real files, on loopback.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod access_log;
mod admin;
mod admission;
mod basics;
mod blocked;
mod bodies;
mod breakers;
mod churn;
mod destinations;
mod dns;
mod dns_proxy;
mod ends;
mod generations;
mod grpc;
mod health;
mod hosts;
mod hot_swap;
mod http2_upstreams;
mod incidents;
mod last_good;
mod limits;
mod local_answers;
mod matching;
mod metrics;
mod open_files;
mod operations;
mod outlier;
mod page;
mod paths;
mod replay;
mod request_headers;
mod retries;
mod rewriting;
mod security;
mod server_first;
mod sniffing;
mod strangers;
mod tcp;
mod timeouts;
mod upstream_failures;
mod vanishing;
mod versions;
mod websocket;
mod xds;
