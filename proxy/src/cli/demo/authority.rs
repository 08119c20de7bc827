//! The authority of the demo: it issues what `weft ca` issues, to tokens that were drawn for this run.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use xds_client::certificate::authority::Authority;
use xds_client::certificate::client::Address;
use xds_client::certificate::server;

use super::super::ca::TokenIssuer;
use crate::app::{AuthorityRoots, IdentitySource, KeyKind, MeshAuthority};
use crate::time;

/// Where its files are, below the directory of the demo.
const DIRECTORY: &str = ".identity";
/// The root that workloads believe.
const ROOT_FILE: &str = "root-cert.pem";
/// Who gets which identity.
const TOKENS_FILE: &str = "tokens";

/// How long certificates hold.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// What identities of the demo begin with.
const NAMESPACE: &str = "spiffe://cluster.local/ns/shop/sa";

/// It issues for as long as it lives.
#[derive(Debug)]
pub(super) struct DemoAuthority {
    address: SocketAddr,
    directory: PathBuf,
    task: JoinHandle<()>,
}

/// The identity of a service account of the demo.
pub(super) fn identity(account: &str) -> String {
    format!("{NAMESPACE}/{account}")
}

impl DemoAuthority {
    /// Starts one that issues to these service accounts.
    pub(super) async fn start(directory: &Path, accounts: &[&str]) -> io::Result<DemoAuthority> {
        let directory = directory.join(DIRECTORY);
        fs::create_dir_all(&directory)?;
        let authority = Authority::new("the demo of weft", time::wall()).map_err(io::Error::other)?;
        fs::write(directory.join(ROOT_FILE), authority.root())?;
        let mut tokens = String::new();
        for account in accounts {
            let token = draw()?;
            write_secret(&directory.join(account), &token)?;
            tokens.push_str(&format!("{token} {}\n", identity(account)));
        }
        let tokens_file = directory.join(TOKENS_FILE);
        write_secret(&tokens_file, &tokens)?;
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let shown = authority.server(&[address.ip().to_string()], LIFE, time::wall());
        let shown = shown.map_err(io::Error::other)?;
        let tls = server::tls(&shown.certificate, &shown.key).map_err(io::Error::other)?;
        let issuer = TokenIssuer { authority: Arc::new(authority), tokens: tokens_file, max_ttl: LIFE };
        let task = tokio::spawn(async move {
            if let Err(error) = server::serve(listener, tls, issuer).await {
                tracing::error!(%error, "the demo's authority has ended");
            }
        });
        Ok(DemoAuthority { address, directory, task })
    }

    /// From where a workload of that service account has its identity.
    pub(super) fn source(&self, account: &str) -> IdentitySource {
        let roots = self.directory.join(ROOT_FILE);
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        IdentitySource::Authority(Box::new(MeshAuthority {
            address: Address { host, port, server_name: None },
            believed_by: AuthorityRoots::File(roots.clone()),
            roots,
            token: self.directory.join(account),
            key: KeyKind::EcdsaP256,
            validity: LIFE,
            grace_per_mille: 500,
            grace_jitter_per_mille: 10,
            cluster_id: "Kubernetes".to_owned(),
            signer: String::new(),
            output: None,
        }))
    }
}

impl Drop for DemoAuthority {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A token that nobody guesses.
fn draw() -> io::Result<String> {
    let mut bytes = [0; 16];
    let filled = default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| io::Error::other("there are no random numbers"))?;
    Ok(HEXLOWER.encode(&bytes))
}

/// Writes what nobody else may read. One of an earlier run is replaced.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
