//! End to end: a real proxy, real backends, real files, on loopback.

mod admin;
mod basics;
mod breakers;
mod churn;
mod generations;
mod hosts;
mod hot_swap;
mod http2_upstreams;
mod last_good;
mod limits;
mod matching;
mod outlier;
mod paths;
mod security;
