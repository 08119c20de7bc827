//! An authority of the mesh that can misbehave, over Istio's service and TLS.

#![allow(clippy::unwrap_used, reason = "in a test, what is not as expected ends the test")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rcgen::{CertificateParams, SanType};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use weft::app::{AuthorityRoots, IdentitySource, KeyKind, MeshAuthority};
use xds_client::certificate::client::Address;
use xds_client::certificate::server::{self, Asked, Issue, Refusal};

use crate::tls::Ca;

/// What it does when it is asked.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// It issues what was asked for.
    Honest,
    /// It says nothing for so long, and is honest then.
    Slow(Duration),
    /// It issues to somebody else.
    OtherIdentity,
    /// It issues one with two identities.
    TwoIdentities,
    /// It issues for another key.
    OtherKey,
    /// It issues one that has ended.
    Expired,
    /// Another root signs.
    Untrusted,
    /// It answers with twenty certificates.
    Long,
    /// It answers with so many bytes.
    Huge(usize),
    /// It leaves out the root.
    Alone,
    /// It answers with what is no certificate.
    Garbage,
    /// It knows that token and no other.
    Knows(String),
    /// It issues nothing to anybody.
    Denies,
}

/// The authority of a test. It ends with the value.
#[derive(Debug)]
pub struct TestAuthority {
    /// Where it listens.
    pub address: SocketAddr,
    /// What was asked, in order.
    pub asked: Arc<Mutex<Vec<Asked>>>,
    files: TempDir,
    state: Arc<Mutex<State>>,
    ca: Arc<Ca>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    life: Duration,
    signs: Arc<Ca>,
}

#[derive(Clone)]
struct Answers {
    asked: Arc<Mutex<Vec<Asked>>>,
    state: Arc<Mutex<State>>,
}

impl TestAuthority {
    /// One whose certificates hold for so long. It writes its root, and a token, where [`TestAuthority::source`] reads them.
    pub async fn start(life: Duration) -> TestAuthority {
        let ca = Arc::new(Ca::new("mesh"));
        let files = tempfile::tempdir().unwrap();
        let state = State { behaviour: Behaviour::Honest, life, signs: ca.clone() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut authority = TestAuthority {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            files,
            state: Arc::new(Mutex::new(state)),
            ca,
            task: None,
        };
        authority.write("roots.pem", &authority.ca.pem);
        authority.write("token", "the token of a test\n");
        authority.serve(listener);
        authority
    }

    fn serve(&mut self, listener: TcpListener) {
        let shown = self.ca.issue("localhost", |params| {
            params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        });
        let tls = server::tls(&shown.chain, &shown.key).unwrap();
        let answers = Answers { asked: self.asked.clone(), state: self.state.clone() };
        self.task = Some(tokio::spawn(async move { drop(server::serve(listener, tls, answers).await) }));
    }

    /// From now on it does that.
    pub fn does(&self, behaviour: Behaviour) {
        self.state.lock().behaviour = behaviour;
    }

    /// From now on that root signs.
    pub fn signs_with(&self, ca: &Arc<Ca>) {
        self.state.lock().signs = ca.clone();
    }

    /// The root it began with.
    pub fn ca(&self) -> &Arc<Ca> {
        &self.ca
    }

    /// Nobody listens any more.
    pub async fn goes(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// It listens again, where it did.
    pub async fn comes_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    /// Writes `roots.pem` or `token` at once, as whoever rotates does it.
    pub fn write(&self, name: &str, text: &str) {
        let draft = self.files.path().join(format!(".{name}"));
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.files.path().join(name)).unwrap();
    }

    /// Where its files are.
    pub fn path(&self) -> &Path {
        self.files.path()
    }

    /// How a workload asks it.
    pub fn asking(&self) -> MeshAuthority {
        let roots = self.files.path().join("roots.pem");
        MeshAuthority {
            address: Address { host: "127.0.0.1".to_owned(), port: self.address.port(), server_name: None },
            believed_by: AuthorityRoots::File(roots.clone()),
            roots,
            token: self.files.path().join("token"),
            key: KeyKind::EcdsaP256,
            validity: Duration::from_secs(3600),
            grace_per_mille: 500,
            grace_jitter_per_mille: 10,
            cluster_id: "Kubernetes".to_owned(),
            signer: String::new(),
            output: None,
        }
    }

    /// The same, as the source of an identity.
    pub fn source(&self) -> IdentitySource {
        IdentitySource::Authority(Box::new(self.asking()))
    }
}

impl Drop for TestAuthority {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Issue for Answers {
    async fn issue(&self, asked: Asked) -> Result<Vec<String>, Refusal> {
        self.asked.lock().push(asked.clone());
        let (behaviour, life, ca) = {
            let state = self.state.lock();
            (state.behaviour.clone(), state.life, state.signs.clone())
        };
        let aged = |params: &mut CertificateParams| {
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
            let at = |since: Duration| SystemTime::UNIX_EPOCH + since;
            params.not_before = at(now.saturating_sub(Duration::from_secs(120))).into();
            params.not_after = at(now + life).into();
        };
        let signed = |ca: &Ca, change: &dyn Fn(&mut CertificateParams)| {
            let leaf = ca.sign(&asked.csr, |params| {
                aged(params);
                change(params);
            });
            Ok(vec![leaf, ca.pem.clone()])
        };
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        let other = "spiffe://cluster.local/ns/shop/sa/other";
        match behaviour {
            Behaviour::Honest => signed(&ca, &|_| {}),
            Behaviour::Slow(time) => {
                tokio::time::sleep(time).await;
                signed(&ca, &|_| {})
            }
            Behaviour::OtherIdentity => signed(&ca, &|params| params.subject_alt_names = vec![uri(other)]),
            Behaviour::TwoIdentities => signed(&ca, &|params| params.subject_alt_names.push(uri(other))),
            Behaviour::OtherKey => {
                Ok(vec![ca.workload("spiffe://cluster.local/ns/shop/sa/client").chain, ca.pem.clone()])
            }
            Behaviour::Expired => signed(&ca, &|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)),
            Behaviour::Untrusted => signed(&Ca::new("mesh"), &|_| {}),
            Behaviour::Long => {
                let mut chain = signed(&ca, &|_| {})?;
                chain.resize(20, ca.pem.clone());
                Ok(chain)
            }
            Behaviour::Huge(bytes) => Ok(vec!["x".repeat(bytes), ca.pem.clone()]),
            Behaviour::Alone => signed(&ca, &|_| {}).map(|chain| chain[..1].to_vec()),
            Behaviour::Garbage => Ok(vec!["-----BEGIN CERTIFICATE-----\nAA==".to_owned(), ca.pem.clone()]),
            Behaviour::Knows(token) if asked.token.as_deref() != Some(&token) => {
                Err(Refusal::Unauthenticated("who are you?\n\u{1b}[31m".to_owned()))
            }
            Behaviour::Knows(_) => signed(&ca, &|_| {}),
            Behaviour::Denies => Err(Refusal::Denied("nobody gets anything".to_owned())),
        }
    }
}
