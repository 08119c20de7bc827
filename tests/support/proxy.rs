//! A proxy in this process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use config::compile::{ExplicitListener, ListenTarget};
use weft::app::{self, Bound, Running, Settings, Workload};

use crate::client::Request;
use crate::{Mesh, eventually, metrics};

/// A proxy that serves a [`Mesh`]. It ends with the value.
#[derive(Debug)]
pub struct TestProxy {
    /// What it reads.
    pub mesh: Mesh,
    running: Running,
    bound: Bound,
}

/// How a [`TestProxy`] is started.
#[derive(Debug)]
pub struct Start {
    mesh: Mesh,
    settings: Settings,
}

impl TestProxy {
    /// A proxy for the workload `client` of namespace `shop`, with one worker, that listens nowhere yet.
    pub fn of(mesh: Mesh) -> Start {
        let settings = Settings {
            config_directories: vec![mesh.directory().to_owned()],
            config_files: Vec::new(),
            mesh_config: None,
            workload: Workload {
                pod: None,
                namespace: "shop".to_owned(),
                labels: BTreeMap::from([("app".to_owned(), "client".to_owned())]),
                service_account: "client".to_owned(),
                ip: "10.244.1.10".parse().ok(),
                ..Workload::default()
            },
            listeners: Vec::new(),
            admin: any(),
            health_port: None,
            agent: None,
            prometheus_port: None,
            workers: 1,
            seed: None,
            allow_unenforced_security: false,
            drain_time: app::DRAIN_TIME,
            resolving: app::Resolving::default(),
            dns_port: None,
            termination: app::Termination::default(),
            limits: config::Limits::default(),
            logging: None,
            static_resources: config::Update::default(),
            mode: config::compile::Mode::Explicit,
        };
        Start { mesh, settings }
    }

    /// Where listener number `index` listens, in the order they were asked for.
    pub fn listener(&self, index: usize) -> SocketAddr {
        self.bound.listeners[index]
    }

    /// Where the admin console listens.
    pub fn admin(&self) -> SocketAddr {
        self.bound.admin
    }

    /// Where the health port is that [`Start::health_port`] asked for.
    pub fn health(&self) -> SocketAddr {
        let port = self.bound.health.expect("there is a health port").port();
        // It listens on all addresses.
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Where the agent's port is, where `agent` is set.
    pub fn agent(&self) -> SocketAddr {
        let port = self.bound.agent.expect("there is an agent's port").port();
        // It listens on all addresses.
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Where names are answered, where `dns_port` is set.
    pub fn dns(&self) -> SocketAddr {
        self.bound.dns.expect("names are answered")
    }

    /// A page of the admin console.
    pub async fn page(&self, path: &str) -> String {
        Request::get(path).send(self.admin()).await.text()
    }

    /// Waits until a proxy that was only started is ready.
    pub async fn becomes_ready(&mut self) {
        let bound = tokio::time::timeout(crate::PATIENCE, self.running.ready()).await;
        self.bound = bound.expect("the proxy is ready in time").expect("the proxy is ready");
    }

    /// Number of the generation that is served.
    pub async fn generation(&self) -> u64 {
        let generation = self.metric("weft_config_generation", &[]).await.unwrap_or(0.0);
        // Whole numbers are written without a fraction.
        generation.to_string().parse().expect("a whole number")
    }

    /// Waits until a generation after `before` is served.
    pub async fn generation_after(&self, before: u64) -> u64 {
        eventually("a new generation is published", || async {
            Some(self.generation().await).filter(|generation| *generation > before)
        })
        .await
    }

    /// Writes a file of the mesh and waits until what follows from it is served.
    pub async fn publish(&self, file: &str, text: &str) -> u64 {
        let before = self.generation().await;
        self.mesh.write(file, text);
        self.generation_after(before).await
    }

    /// The sum of all series of a metric that carry these labels; `None` when there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        metrics::sum(&self.page("/stats/prometheus").await, name, labels)
    }

    /// A figure of a cluster of namespace `shop` from the console's `/clusters`, such as `rq_active`; of all its
    /// subsets together.
    pub async fn figure(&self, service: &str, name: &str) -> u64 {
        let page = self.page("/clusters").await;
        let of_cluster = format!("|{service}.shop.svc.cluster.local::default_priority::{name}::");
        let values = page.lines().filter_map(|line| line.split_once(&of_cluster).map(|(_, value)| value));
        values.map(|value| value.parse::<u64>().expect("a number")).sum()
    }

    /// Waits until a figure of a cluster is as it should be.
    pub async fn figure_is(&self, service: &str, name: &str, wanted: u64) {
        eventually(&format!("{name} of {service} is {wanted}"), || async {
            (self.figure(service, name).await == wanted).then_some(())
        })
        .await;
    }

    /// Waits until a page of the console has this.
    pub async fn page_has(&self, page: &str, text: &str) {
        eventually(&format!("{page} has {text}"), || async {
            self.page(page).await.contains(text).then_some(())
        })
        .await;
    }

    /// Waits until the limit has been counted.
    pub async fn reached(&self, limit: &str) {
        eventually(limit, || async {
            let count = self.metric("weft_limit_reached_total", &[("limit", limit)]).await;
            count.filter(|count| *count > 0.0)
        })
        .await;
    }

    /// Begins to drain it.
    pub fn drain(&self) {
        self.running.drain();
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) {
        self.running.ended().await;
    }
}

impl Start {
    /// A listener for one service of namespace `shop`, whatever the Host.
    #[must_use]
    pub fn listen(self, service: &str, port: u16) -> Start {
        self.listen_to(ListenTarget::Service { host: format!("{service}.shop").into(), port })
    }

    /// A listener for all HTTP services of a port, chosen by Host.
    #[must_use]
    pub fn listen_outbound(self, port: u16) -> Start {
        self.listen_to(ListenTarget::Outbound { port })
    }

    fn listen_to(mut self, target: ListenTarget) -> Start {
        self.settings.listeners.push(ExplicitListener { address: any(), target });
        self
    }

    /// A port that tells readiness and life.
    #[must_use]
    pub fn health_port(self) -> Start {
        self.set(|settings| settings.health_port = Some(0))
    }

    /// Any other setting.
    #[must_use]
    pub fn set(mut self, change: impl FnOnce(&mut Settings)) -> Start {
        change(&mut self.settings);
        self
    }

    /// Limits of the process, by name.
    #[must_use]
    pub fn limits(self, limits: &[(&str, u64)]) -> Start {
        self.set(|settings| {
            limits.iter().for_each(|(name, value)| settings.limits.set(name, *value).expect("a limit"));
        })
    }

    /// A further file with objects.
    #[must_use]
    pub fn config_file(mut self, file: PathBuf) -> Start {
        self.settings.config_files.push(file);
        self
    }

    /// What it would read.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// What it would be started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts it and waits until it is ready.
    pub async fn ready(self) -> TestProxy {
        let mut proxy = self.start();
        proxy.becomes_ready().await;
        proxy
    }

    /// Starts it without waiting. Only the admin console is known to listen.
    pub fn start(self) -> TestProxy {
        let running = app::start(self.settings).expect("the proxy starts");
        let bound = Bound {
            admin: running.admin(),
            health: running.health(),
            agent: None,
            prometheus: None,
            dns: running.dns(),
            listeners: Vec::new(),
        };
        TestProxy { mesh: self.mesh, running, bound }
    }
}

/// Loopback, and a port that the kernel chooses.
fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
