//! Pages about the process: `/server_info`, `/memory`, `/certs`.

use std::time::{Instant, SystemTime};

use config::envoy_json;
use serde_json::{Value, json};

use crate::control::{IdentityState, Status};
use crate::snapshot::Snapshot;
use crate::telemetry::format::utc_seconds;
use crate::tls::{AlternativeName, Certificate};
use crate::{overload, time};

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// What does not change while the process lives.
#[derive(Debug)]
pub(crate) struct Process {
    /// When it began.
    pub(crate) started: Instant,
    /// What it was told at its start: `command_line_options` of Envoy's page.
    pub(crate) options: Value,
}

/// `/server_info`, Envoy's `envoy.admin.v3.ServerInfo`.
pub(super) fn server_info(status: &Status, process: &Process) -> Value {
    let uptime = format!("{}s", time::now().saturating_duration_since(process.started).as_secs());
    let node = status.last_published().map(|published| {
        let mut dump = envoy_json::bootstrap_dump(&published.proxy);
        dump.pointer_mut("/bootstrap/node").map(Value::take).unwrap_or_default()
    });
    let mut options = process.options.clone();
    if let (Some(options), Some(started)) = (options.as_object_mut(), status.workers()) {
        options.insert("concurrency".to_owned(), json!(started.workers));
    }
    json!({
        "version": concat!("weft/", env!("CARGO_PKG_VERSION")),
        "state": status.state().name(),
        "uptime_current_epoch": uptime,
        // There is one epoch: weft hands over to no successor.
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "hot_restart_initializing": false,
        "command_line_options": options,
        // Who it is may have to be read first.
        "node": node.unwrap_or_else(|| json!({})),
    })
}

/// `/memory`, Envoy's `envoy.admin.v3.Memory`. What the allocator knows of itself it is not asked yet; that is `null`, and
/// what is told says where it is from.
pub(super) fn memory() -> Value {
    json!({
        "allocated": null,
        "heap_size": null,
        "pageheap_unmapped": null,
        "pageheap_free": null,
        "total_thread_cache": null,
        // As all of Envoy's: a 64-bit number, which in protobuf's JSON is text.
        "total_physical_bytes": overload::Memory::default().used().map(|bytes| bytes.to_string()),
        "weft": {
            "total_physical_bytes": "resident pages of the process, from /proc/self/statm",
            "null": "the allocator is not asked for it yet",
        },
    })
}

/// `/certs`, Envoy's `envoy.admin.v3.Certificates`: an entry for each filter chain that terminates TLS, by listener. `path`
/// names the secret, where Envoy says `<inline>`. Where the identity of the workload is handed on, `weft` says by whom.
pub(super) fn certs(snapshot: &Snapshot, identity: Option<&IdentityState>) -> Value {
    let mut listeners: Vec<_> = snapshot.listeners.iter().collect();
    listeners.sort_by_key(|(name, _)| *name);
    let servers = listeners.into_iter().flat_map(|(_, listener)| listener.tls.iter().flatten());
    let now = time::wall();
    let certificates = servers.map(|server| {
        let shown = server.shown();
        let details = |certificates: &[Certificate]| -> Vec<Value> {
            certificates.iter().map(|certificate| certificate_details(certificate, now)).collect()
        };
        json!({ "ca_cert": details(shown.roots.as_slice()), "cert_chain": details(&shown.chain) })
    });
    let mut page = json!({ "certificates": certificates.collect::<Vec<Value>>() });
    if let (Some(IdentityState { source, trouble, renewal }), Some(page)) = (identity, page.as_object_mut()) {
        let renewal = renewal.map(utc_seconds);
        let told = json!({ "identity_source": source, "trouble": trouble, "renewal_time": renewal });
        page.insert("weft".to_owned(), told);
    }
    page
}

/// Envoy's `envoy.admin.v3.CertificateDetails`.
fn certificate_details(certificate: &Certificate, now: SystemTime) -> Value {
    let names = certificate.names.iter().map(|name| match name {
        AlternativeName::Dns(name) => json!({ "dns": name }),
        AlternativeName::Uri(name) => json!({ "uri": name }),
        AlternativeName::Ip(name) => json!({ "ip_address": name }),
    });
    let left = certificate.expiration.duration_since(now).unwrap_or_default();
    json!({
        "path": certificate.secret,
        "serial_number": certificate.serial_number,
        "subject_alt_names": names.collect::<Vec<Value>>(),
        // As all of Envoy's: a 64-bit number, which in protobuf's JSON is text.
        "days_until_expiration": (left.as_secs() / DAY_S).to_string(),
        "valid_from": utc_seconds(certificate.valid_from),
        "expiration_time": utc_seconds(certificate.expiration),
    })
}
