//! Limits of the process: what no client, upstream or file may exceed. Each has a name with its unit last, a default, and
//! a line in `--help` and in the admin console; what meets one is counted in `weft_limit_reached_total`.
//!
//! Limits that belong to an object (a DestinationRule's connectionPool, say) are declared with that object.

use std::fmt;

/// A limit's name, what it bounds, and its value now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its name, with the unit last.
    pub name: &'static str,
    /// What it bounds.
    pub what: &'static str,
    /// Its value.
    pub value: u64,
}

/// A limit that cannot be set as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLimit(String);

impl fmt::Display for BadLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadLimit {}

/// Declares [`Limits`] and everything that goes through all of them, so that no limit is missing in one place.
macro_rules! limits {
    ($($(#[doc = $what:literal])+ $name:ident = $default:literal, $smallest:literal $(.. $largest:literal)?;)+) => {
        /// Limits of the process.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $what])+ pub $name: u64,)+
        }

        impl Default for Limits {
            fn default() -> Limits {
                Limits::DEFAULT
            }
        }

        impl Limits {
            /// What holds when nothing is said.
            pub const DEFAULT: Limits = Limits { $($name: $default,)+ };

            /// All of them, in order.
            pub fn entries(&self) -> Vec<Entry> {
                vec![$(Entry { name: stringify!($name), what: concat!($($what),+).trim_ascii(), value: self.$name },)+]
            }

            /// Sets one by its name.
            ///
            /// # Errors
            ///
            /// When there is no such limit, or the value is below or above what anything could work with.
            pub fn set(&mut self, name: &str, value: u64) -> Result<(), BadLimit> {
                let (field, smallest, largest) = match name {
                    $(stringify!($name) => {
                        // The first of these: a largest one is said of few.
                        let [largest, ..] = [$($largest,)? u64::MAX];
                        (&mut self.$name, $smallest, largest)
                    })+
                    _ => {
                        let names = [$(stringify!($name)),+].join(", ");
                        return Err(BadLimit(format!("there is no limit `{name}`; there are {names}")));
                    }
                };
                if value < smallest {
                    return Err(BadLimit(format!("{name} is at least {smallest}, not {value}")));
                }
                if value > largest {
                    return Err(BadLimit(format!("{name} is at most {largest}, not {value}")));
                }
                *field = value;
                Ok(())
            }
        }
    };
}

limits! {
    /// Bytes of a message's head: request line or status line, and headers (Envoy's `max_request_headers_kb`).
    head_bytes_max = 61_440, 8_192;
    /// Headers of a message (Envoy's `max_headers_count`); those of HTTP/2 are counted as they come, with the pseudo-headers.
    headers_max = 100, 1 .. 32_768;
    /// Bytes of the head of an upstream's answer (Envoy's `max_response_headers_kb`).
    upstream_head_bytes_max = 81_920, 8_192;
    /// Informational answers (1xx) that an HTTP/1 upstream may send before the one that counts.
    upstream_informational_heads_max = 32, 1;
    /// Bytes of the trailers of a message (part of Envoy's `max_request_headers_kb`).
    trailer_bytes_max = 16_384, 1_024 .. 4_294_967_295;
    /// Trailers of a message (part of Envoy's `max_headers_count`).
    trailers_max = 100, 1 .. 4_294_967_295;
    /// Bytes of chunk extensions and of spaces beside chunk sizes that a message of HTTP/1 may have; they are passed over.
    chunk_extension_bytes_max = 16_384, 0 .. 4_294_967_295;
    /// Time a client may take to send a head it has begun (Envoy's `request_headers_timeout`); 0 is no limit.
    head_time_max_ms = 60_000, 0;
    /// Time a client may take for the handshake of TLS, beside what its listener allows (Envoy's
    /// `transport_socket_connect_timeout`, 15 s from istiod); 0 is no limit of the process.
    tls_handshake_time_max_ms = 15_000, 0;
    /// Time a client's connection is kept without a request (Envoy's `idle_timeout`); 0 is no limit.
    downstream_idle_time_max_ms = 3_600_000, 0;
    /// Time a client's connection lasts that was let in by the certificate that the client showed, so that it shows it again: it
    /// is told to leave as if the proxy were drained, and bytes that are passed on end. 0 is no limit.
    authenticated_age_max_ms = 0, 0;
    /// Time that requests in flight have on a client's connection that would not be admitted any more, as when a policy is
    /// tightened or a certificate revoked; then they are cut.
    unadmitted_time_max_ms = 500, 0;
    /// Client connections of the process; 0 is half of the open files the process may have, but for the reserve
    /// of an eighth of them, between 8 and 512, that no connection takes.
    downstream_connections_max = 0, 0;
    /// Streams a client may have open at once on one HTTP/2 connection (RFC 9113 section 6.5.2).
    concurrent_streams_max = 1_024, 1;
    /// Bytes a peer may send on one HTTP/2 stream before they are handed on (Envoy's `initial_stream_window_size`).
    http2_stream_window_bytes = 262_144, 16_384;
    /// Bytes a client may send on one HTTP/2 connection before they are handed on (Envoy's
    /// `initial_connection_window_size`). It should be several streams' windows: one that nobody reads must not stop the
    /// others.
    http2_connection_window_bytes = 8_388_608, 65_535;
    /// HTTP/2 frames without payload of their own (PING, SETTINGS, WINDOW_UPDATE, PRIORITY and unknown ones) that a peer
    /// may send ahead of those it has earned by requests, answers, data and time.
    http2_control_frames_max = 1_000, 100;
    /// HTTP/2 streams that a peer may reset ahead of those it has earned by answers and time.
    http2_reset_frames_max = 1_000, 10;
    /// HTTP/2 DATA, HEADERS and CONTINUATION frames that carry nothing and end nothing, that a peer may send ahead of those
    /// it has earned.
    http2_empty_frames_max = 100, 10;
    /// HTTP/2 heads that an upstream may send ahead of those that its requests have earned: informational answers above all.
    http2_answer_heads_max = 1_000, 100;
    /// Requests of the process that wait for a connection to an upstream, whatever the clusters allow: istiod's default for
    /// each cluster is 2^32-1. One more is refused, and so is one for a cluster for which as many wait as there is room for: one alone
    /// may have half of them. 0 is one for each 16 KiB of `memory_bytes_max`, or 65,536 where that is none or
    /// makes more.
    pending_requests_max = 0, 0;
    /// Bytes of one request's body that are kept for a retry (Envoy's `per_connection_buffer_limit_bytes`). A longer body is
    /// not retried.
    replay_bytes_max = 1_048_576, 0;
    /// Bytes that all requests of the process together keep for a retry. A body that would pass it is not retried. 0 is an eighth
    /// of `memory_bytes_max`, or 64 MiB where that is none or more.
    replay_bytes_total_max = 0, 0;
    /// Bytes of HTTP/2 bodies that have come and wait in the process because the other side does not read them, all streams
    /// together, and of heads of answers that a client does not read. A stream that would pass it is reset, or its request answered
    /// 503; a connection that would by such heads is closed. 0 is half of `memory_bytes_max`, or no
    /// limit where that is none.
    unread_bytes_total_max = 0, 0;
    /// Bytes that clients have sent of heads, PROXY headers, ClientHellos and handshakes that are not whole, all connections together; 8 KiB of
    /// each do not count. A head of HTTP/1 that would pass it is answered 503, any other connection closed. Of requests sent ahead
    /// no more than half as many are read. 0 is an eighth of `memory_bytes_max`, or no limit where that is none.
    head_bytes_total_max = 0, 0;
    /// Bytes of requests that are not answered yet, all connections together: their heads and trailers, but for those up to 2 KiB,
    /// and 8 KiB for each request beyond the first four of its connection. For a
    /// request that would pass it the connection that has most is closed, if that has much more than its own; if none has, and its
    /// own has more than 16 KiB, it is answered 503. 0 is as many as memory allows: from one look at it to the next half of what is
    /// free below nine tenths of `memory_bytes_max`, or no limit where that is none.
    request_head_bytes_total_max = 0, 0;
    /// Bytes of heads and trailers of answers of HTTP/1 upstreams that are longer than 4 KiB, all together: of one that is not whole
    /// the room that it is read into, of another its fields until the client's connection has taken them. An answer that would pass it
    /// is refused, and its connection closed. 0 is an eighth of `memory_bytes_max`, or no limit where that is none.
    answer_head_bytes_total_max = 0, 0;
    /// Memory of the process above which connections and requests are refused; 0 is nine tenths of what the container
    /// may have, if that is bounded.
    memory_bytes_max = 0, 0;
    /// Bytes of memory that one object of the configuration may take, as far as they are known while it is read. One that
    /// would take more is refused, and its last good version stays.
    object_bytes_max = 134_217_728, 1_048_576;
    /// Bytes of memory that all objects of the configuration may take together; what is compiled of them takes about as much
    /// again. An object that would pass it is refused. 0 is a quarter of `memory_bytes_max`, or 1 GiB where that is none.
    objects_bytes_total_max = 0, 0;
    /// Routes or endpoints that are made of one object: hosts of a VirtualService times matches of its rules, hosts of a
    /// ServiceEntry times its ports and endpoints. An object that would make more is refused.
    object_products_max = 1_000_000, 1;
    /// Bytes that the compiled regular expressions of one object may take together. An object that would take more is refused.
    object_pattern_bytes_max = 67_108_864, 1_024;
    /// Routes, and clusters of subsets with the endpoints of all, that are made of all objects together: for each port of a
    /// service there is a route for each rule of its virtual service, and a cluster for each subset. What would be more is not
    /// made, and answers 503. 0 is one for each KiB of `memory_bytes_max`, or 1,000,000 where that is none.
    mesh_products_max = 0, 0;
    /// Bytes of memory that findings may take together, with the objects that are refused and about which they are; they are kept
    /// three times. What there is no room for is counted, and an object that is refused and nothing holds of is forgotten. 0 is
    /// one for each 32 bytes of `memory_bytes_max`, or 256 MiB where that is none.
    findings_bytes_total_max = 0, 0;
    /// Bytes of one file of the configuration, or of an identity. A file that is longer is not read. 0 is a quarter of
    /// `memory_bytes_max`, but 1 MiB at least, or 64 MiB where that is none or more.
    file_bytes_max = 0, 0;
    /// Documents of one file that hold anything; items of a List count too. A file with more is refused.
    file_documents_max = 100_000, 1;
    /// Problems that are told of one file; past it, of every object only the first, and of documents that are none only how many.
    file_problems_max = 10_000, 1;
    /// Bytes of one document. One that is longer is refused. A List of all objects of a cluster is one document, hence its size.
    document_bytes_max = 33_554_432, 1_024 .. 4_294_967_295;
    /// Scalars, lists and mappings of one document, those that aliases repeat included. One with more is refused. 0 is one for each
    /// 256 bytes of `memory_bytes_max`, or 2,000,000 where that is none or more.
    document_nodes_max = 0, 0;
    /// Lists and mappings inside each other. A document with more is refused; who reads it takes of the stack for each.
    document_depth_max = 64, 1 .. 256;
    /// Scalars, lists and mappings that the aliases of one document repeat. One with more is refused.
    alias_nodes_max = 10_000, 0;
    /// Findings of one severity that one look at one object tells; those past it are counted.
    object_findings_max = 256, 1;
    /// Problems that are told of the text of one object; those past it are counted.
    document_problems_max = 64, 1;
    /// Shortest time after which a name is asked of DNS again, whatever time to live it told.
    dns_refresh_min_ms = 1_000, 10;
    /// Longest time after which a name is asked of DNS again, whatever time to live it told.
    dns_refresh_max_ms = 86_400_000, 1_000;
    /// Names that DNS is asked for at once, for the clusters that want it, and one for each 32 open
    /// files at most; others wait for their turn.
    dns_lookups_max = 64, 1;
    /// Addresses that are taken of one name; more are left out.
    dns_addresses_max = 1_000, 1;
    /// Addresses of all names together, each for every endpoint that has the name: one that is asked for by three clusters counts
    /// three times. Past it names with most addresses have fewer, but one at least, and it is those that they had before. 0 is one for
    /// each 8 KiB of `memory_bytes_max`, or 1,000,000 where that is none.
    dns_addresses_total_max = 0, 0;
    /// Time that the start waits for the first answers of DNS; Envoy waits until all came or failed. 0 does not wait.
    dns_start_wait_max_ms = 100, 0;
    /// Time between two lines of the process's own log about connections that are closed for one reason, such as a policy
    /// that is not enforced. Those held back are counted and told together; 0 tells each.
    closed_log_interval_ms = 10_000, 0;
    /// Connections at once to each port of pages: the admin console, health, the agent's and metrics. Where a quarter of the files
    /// that connections may take are taken, it is a sixth of the reserve of open files. One more takes the place of the oldest
    /// that asks nothing.
    page_connections_max = 64, 2;
    /// Time that the first request of a connection to such a port may take.
    page_head_time_max_ms = 5_000, 100;
    /// Large pages of such a port that are made at once, each while it is sent; one more is answered 503.
    page_streams_max = 4, 1;
    /// Wait after its first failure, twice as long after each further one, and the shortest between two certificates. Whoever
    /// serves identities at a socket is asked again by the same.
    ca_retry_min_ms = 500, 10;
    /// The longest wait after such a failure.
    ca_retry_max_ms = 30_000, 10;
    /// Questions to the DNS proxy that wait for the answer of somebody else; one more is answered SERVFAIL.
    dns_forwards_max = 1_024, 1;
    /// Connections to the DNS proxy; one more is closed.
    dns_connections_max = 256, 1;
    /// Bytes of what a peer may say of its workload, in a header or before the bytes of a TCP connection. What is longer is not
    /// read, and the peer counted as one that says nothing.
    peer_metadata_bytes_max = 8_192, 512;
    /// Values of that header that each worker keeps as they were read; with one more it begins anew.
    peer_metadata_values_max = 1_024, 1;
    /// Workloads, and pairs of identities, that metrics of each worker tell apart at the other ends of its connections; further
    /// ones are counted together, as `overflow`.
    peers_max = 4_096, 1;
    /// Bytes that what each worker knows of them takes: a third for workloads and identities, past which further ones are
    /// `overflow`, too, and thirds for values of that header and for what was counted of each endpoint last, which are forgotten
    /// when there are more. 0 is a sixteenth of `memory_bytes_max` for all workers, or no limit where that is none.
    peer_bytes_max = 0, 0;
    /// Time that the end of the process waits until access logs are written; what is not by then is lost.
    access_log_end_time_max_ms = 1_000, 0;
    /// Bytes of memory of lines that wait to be written to access logs, those for one no more than is left for others; what does
    /// not fit is dropped, and counted in `weft_access_log_dropped_lines_total`. 0 is a sixteenth of `memory_bytes_max`, or 4 MiB
    /// where that is none or more.
    access_log_queued_bytes_max = 0, 0;
    /// Series of metrics; what would be one more is counted as `overflow`.
    metric_series_max = 40_000, 100 .. 1_000_000;
    /// Bytes of the values of labels that metrics may have, each counted once. A series of further ones is counted as `overflow`.
    metric_label_bytes_max = 16_777_216, 4_096;
    /// Bytes that series take, with their labels and their numbers on all workers. What would be one more is counted as
    /// `overflow`. 0 is an eighth of `memory_bytes_max`, but 1 MiB at least, or no limit where that is none.
    metric_bytes_total_max = 0, 0;
    /// Outcomes of requests that metrics tell apart by a host that nobody but clients told; requests with further ones are
    /// counted with the host `unknown`.
    metric_host_outcomes_max = 1_000, 0;
    /// Requests that failed or were sampled that each worker keeps for `/recorder`; the oldest goes first.
    recorder_requests_max = 4_096, 0;
    /// Bytes that they take on each worker. 0 is a 32nd of `memory_bytes_max` for all workers, or 4 MiB for each where that is
    /// none or more.
    recorder_bytes_max = 0, 0;
    /// Causes of failures that each worker counts apart for `/errors`; further ones are counted together.
    recorder_causes_max = 1_024, 1;
    /// One request in so many is recorded though it did not fail; 0 records none.
    recorder_sample_one_in = 1_000, 0;
    /// Bytes of an identity that a source hands on: its chain, key, roots and lists of revoked certificates. More is refused.
    identity_bytes_max = 1_048_576, 4_096;
    /// Certificates of its chain, with the workload's own. More is refused.
    identity_certificates_max = 10, 1;
    /// Time that the authority of the mesh may take to connect, to make a handshake and to answer.
    ca_answer_time_max_ms = 10_000, 100;
}

/// [`Limits::file_bytes_max`] and [`Limits::document_nodes_max`] where nothing is said; less where memory is bounded.
pub const FILE_BYTES_MAX: u64 = 67_108_864;
/// The same of the other.
pub const DOCUMENT_NODES_MAX: u64 = 2_000_000;
/// [`Limits::dns_addresses_total_max`] where nothing is said and memory is not bounded.
pub const DNS_ADDRESSES_TOTAL_MAX: u64 = 1_000_000;

impl Limits {
    /// Bytes that a file may have.
    pub const fn file_bytes(&self) -> u64 {
        if self.file_bytes_max == 0 { FILE_BYTES_MAX } else { self.file_bytes_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_by_name() {
        let mut limits = Limits::default();
        assert_eq!(limits.set("head_bytes_max", 10_000), Ok(()));
        assert_eq!(limits.head_bytes_max, 10_000);
        let unknown = limits.set("head_bytes", 1).unwrap_err().to_string();
        assert!(unknown.contains("there is no limit `head_bytes`") && unknown.contains("memory_bytes_max"));
        let small = limits.set("head_bytes_max", 1).unwrap_err().to_string();
        assert_eq!(small, "head_bytes_max is at least 8192, not 1");
        let large = limits.set("document_depth_max", 257).unwrap_err().to_string();
        assert_eq!(large, "document_depth_max is at most 256, not 257");
    }

    #[test]
    fn every_limit_says_what_it_bounds_and_can_be_set_to_its_default() {
        let mut limits = Limits::default();
        for Entry { name, what, value } in Limits::default().entries() {
            assert!(what.len() > 20 && what.ends_with('.'), "{name}: {what}");
            assert_eq!(limits.set(name, value), Ok(()), "{name}");
        }
        assert_eq!(limits, Limits::default());
    }
}
