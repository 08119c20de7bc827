//! Clients and servers that are not ours: curl, dig, wrk, h2load, nginx, openssl, sslyze, Envoy, Python's http.server, gRPC's
//! own interop suite.
//!
//! A test whose tool is missing is skipped, with `@no-TOOL` after its name.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod clients;
mod dig;
mod grpc;
mod mutual;
mod servers;
mod tls;
mod tools;
