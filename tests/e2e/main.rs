//! End to end: a real proxy, real backends, real files, on loopback.

mod access_log;
mod admin;
mod admission;
mod basics;
mod breakers;
mod churn;
mod generations;
mod hosts;
mod hot_swap;
mod http2_upstreams;
mod last_good;
mod limits;
mod local_answers;
mod matching;
mod metrics;
mod outlier;
mod paths;
mod request_headers;
mod retries;
mod rewriting;
mod security;
mod timeouts;
mod upstream_failures;
mod vanishing;
mod versions;
