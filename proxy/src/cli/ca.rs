//! `weft ca`: an authority for demos, tests and meshes without istiod, over Istio's own service.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use config::istio::GoDuration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use xds_client::certificate::authority::Authority;
use xds_client::certificate::server::{self, Asked, Issue, Refusal};

use crate::time;

/// Bytes of the file with tokens.
const TOKENS_BYTES_MAX: u64 = 1_048_576;
/// Characters of a token at least: one that can be guessed is nobody's.
const TOKEN_CHARACTERS_MIN: usize = 16;
/// How long the certificate of the server itself holds, which is made anew at each start.
const SERVER_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Certificates hold so long at least.
const VALIDITY_MIN: Duration = Duration::from_secs(1);

/// Issue certificates of workloads from a root of one's own, as istiod does.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Directory of the root: root-cert.pem, which workloads believe, and root-key.pem. A root is made when there is none.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// File that says who gets which identity: on each line a token and a SPIFFE identity. Lines that begin with # are
    /// remarks. It is read for each request.
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,

    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:15012", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Listen though the address is not loopback: whoever reaches it may guess at tokens.
    #[arg(long)]
    allow_remote: bool,

    /// Name or address in the certificate of the server, by which workloads believe it; may be given several times.
    #[arg(long = "name", value_name = "NAME", default_values = ["localhost", "127.0.0.1", "::1", "istiod.istio-system.svc"])]
    names: Vec<String>,

    /// The longest that a certificate holds, such as 24h; shorter ones are issued when they are asked for.
    #[arg(long, default_value = "24h", value_parser = parse_duration, value_name = "DURATION")]
    max_ttl: Duration,

    /// File that is written with the address that was bound, once it listens.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  who gets what, and an authority for it:
    echo \"$(openssl rand -hex 16) spiffe://cluster.local/ns/shop/sa/web\" > tokens
    weft ca --dir ca/ --tokens tokens
  a workload that asks it; the token's file and the root are where a pod has them:
    mkdir -p /var/run/secrets/tokens /var/run/secrets/istio
    cut -d' ' -f1 tokens > /var/run/secrets/tokens/istio-token
    cp ca/root-cert.pem /var/run/secrets/istio/
    CA_ADDR=127.0.0.1:15012 weft run --config config/ --namespace shop --service-account web ...

What it is not: it asks no Kubernetes whose a token is, tokens do not end by themselves, nothing is revoked, and the key of its
root lies in a file. Whoever reads that file or the tokens is whom they please. A mesh that has istiod, or another authority,
should ask that.";

fn parse_duration(text: &str) -> Result<Duration, String> {
    match GoDuration::parse(text)?.0 {
        duration if duration >= VALIDITY_MIN => Ok(duration),
        _ => Err(format!("it is at least {VALIDITY_MIN:?}")),
    }
}

/// Issues until it is told to end.
pub(super) fn ca(arguments: &Arguments) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::fail(&why),
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let Arguments { dir, tokens, listen, allow_remote, names, max_ttl, ready_file } = arguments;
    if !allow_remote && !listen.ip().is_loopback() {
        return Err(format!("--listen {listen} is not loopback; say --allow-remote if that is meant"));
    }
    let now = time::wall();
    let authority = Authority::open(dir, "weft", now)?;
    let shown = authority.server(names, SERVER_LIFE, now)?;
    let tls = server::tls(&shown.certificate, &shown.key)?;
    let issuer = TokenIssuer { authority: Arc::new(authority), tokens: tokens.clone(), max_ttl: *max_ttl };
    // What is wrong with the tokens is better told now than to the first who asks.
    let known = issuer.known()?.len();
    let told = |error: io::Error| error.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(told)?;
    runtime.block_on(async {
        let listener =
            TcpListener::bind(listen).await.map_err(|error| format!("--listen {listen}: {error}"))?;
        let bound = listener.local_addr().map_err(told)?;
        if let Some(file) = ready_file {
            fs::write(file, format!("{bound}\n"))
                .map_err(|error| format!("--ready-file {}: {error}", file.display()))?;
        }
        tracing::info!(address = %bound, root = %dir.join("root-cert.pem").display(), tokens = known, "issuing");
        let mut terminate = signal(SignalKind::terminate()).map_err(told)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(told)?;
        tokio::select! {
            served = server::serve(listener, tls, issuer) => served.map_err(told),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

/// Issues to whom a file of tokens names.
#[derive(Clone)]
pub(super) struct TokenIssuer {
    pub(super) authority: Arc<Authority>,
    pub(super) tokens: PathBuf,
    pub(super) max_ttl: Duration,
}

impl TokenIssuer {
    /// Identities by token.
    fn known(&self) -> Result<HashMap<String, String>, String> {
        let told = |why: &dyn std::fmt::Display| format!("{}: {why}", self.tokens.display());
        let length = fs::metadata(&self.tokens).map_err(|error| told(&error))?.len();
        if length > TOKENS_BYTES_MAX {
            return Err(told(&format!("it has {length} bytes, and {TOKENS_BYTES_MAX} are read at most")));
        }
        let text = fs::read_to_string(&self.tokens).map_err(|error| told(&error))?;
        parse_tokens(&text).map_err(|why| told(&why))
    }
}

/// Identities by token, of a file's text. Nothing of a token is told.
fn parse_tokens(text: &str) -> Result<HashMap<String, String>, String> {
    let mut known = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let told = |why: &str| format!("line {}: {why}", index + 1);
        let mut words = line.split_whitespace();
        let (Some(token), Some(identity), None) = (words.next(), words.next(), words.next()) else {
            return Err(told("it is not a token and an identity"));
        };
        if token.len() < TOKEN_CHARACTERS_MIN {
            return Err(told(&format!("the token has fewer than {TOKEN_CHARACTERS_MIN} characters")));
        }
        if !is_identity(identity) {
            return Err(told(
                "the identity is not one of SPIFFE, like spiffe://cluster.local/ns/shop/sa/web",
            ));
        }
        if known.insert(token.to_owned(), identity.to_owned()).is_some() {
            return Err(told("the token stands there twice"));
        }
    }
    Ok(known)
}

/// Whether it is `spiffe://TRUST-DOMAIN/PATH` of characters that SPIFFE allows.
fn is_identity(text: &str) -> bool {
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_segment = |segment: &str| !segment.is_empty() && segment.bytes().all(allowed);
    is_segment(domain) && path.split('/').all(|it| is_segment(it) && it != "." && it != "..")
}

impl Issue for TokenIssuer {
    async fn issue(&self, asked: Asked) -> Result<Vec<String>, Refusal> {
        let Asked { csr, validity_s, token, cluster_id: _ } = asked;
        let token = token.ok_or_else(|| Refusal::Unauthenticated("there is no token".to_owned()))?;
        let known = self.known().map_err(|why| {
            tracing::error!("nothing is issued: {why}");
            Refusal::Internal("the tokens cannot be read".to_owned())
        })?;
        // A lookup by hash: what it takes does not tell how much of a token was right.
        let identity = known.get(&token);
        let identity =
            identity.ok_or_else(|| Refusal::Unauthenticated("nobody has this token".to_owned()))?;
        let asked = u64::try_from(validity_s).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let validity = asked.unwrap_or(self.max_ttl).min(self.max_ttl);
        let leaf = self.authority.sign(&csr, identity, validity, time::wall());
        match &leaf {
            Ok(_) => tracing::info!(identity, seconds = validity.as_secs(), "issued"),
            Err(refusal) => tracing::warn!(identity, ?refusal, "refused"),
        }
        Ok(vec![leaf?, self.authority.root().to_owned()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_what() {
        let good = "# of the shop\n0123456789abcdef spiffe://cluster.local/ns/shop/sa/web\n\n \
                    0123456789abcdeg\tspiffe://corp/a\n";
        let known = parse_tokens(good).unwrap();
        assert_eq!(known.len(), 2);
        assert_eq!(known["0123456789abcdef"], "spiffe://cluster.local/ns/shop/sa/web");
        let check = |line: &str, expected: &str| {
            let why = parse_tokens(&format!("\n{line}")).unwrap_err();
            assert!(why.starts_with("line ") && why.contains(expected), "{line}: {why}");
            assert!(!why.contains("0123456789abcdef"), "a token is told: {why}");
        };
        check("0123456789abcdef", "not a token and an identity");
        check("0123456789abcdef spiffe://a/b c", "not a token and an identity");
        check("short spiffe://a/b", "fewer than 16");
        for bad in [
            "web",
            "https://a/b",
            "spiffe://a",
            "spiffe:///b",
            "spiffe://a//b",
            "spiffe://a/../b",
            "spiffe://a/b?c",
        ] {
            check(&format!("0123456789abcdef {bad}"), "not one of SPIFFE");
        }
        let twice = "0123456789abcdef spiffe://a/b\n0123456789abcdef spiffe://a/c";
        check(twice, "twice");
    }
}
