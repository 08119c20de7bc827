//! Asking DNS, as the pod's resolver configuration says.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use config::DnsFamily;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{MAX_TTL, system_conf};

use super::names::{Answer, Key};
use super::pace::Paced;

/// Asks, and reads long answers one after another.
pub(super) type Resolver = hickory_resolver::Resolver<Paced>;

/// Time after which an answer is not waited for any longer, whatever `resolv.conf` says of timeouts and attempts.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(30);

/// Time for which addresses of one family wait for those of the other; then they are used alone.
const FAMILY_WAIT_MAX: Duration = Duration::from_secs(1);

/// Where servers listen whose port nobody tells.
const DNS_PORT: u16 = 53;

/// Names that are written on this machine.
const HOSTS_FILE: &str = "/etc/hosts";

/// Whom DNS is asked from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolving {
    /// The file with servers, search domains and options.
    pub resolv_conf: PathBuf,
    /// Servers to ask instead of those in that file; none for those.
    pub servers: Vec<SocketAddr>,
}

impl Default for Resolving {
    fn default() -> Resolving {
        Resolving { resolv_conf: "/etc/resolv.conf".into(), servers: Vec::new() }
    }
}

impl Resolving {
    /// The servers to ask, and the first search domain.
    ///
    /// # Errors
    ///
    /// When the file cannot be read and no server is told otherwise.
    pub(crate) fn read(&self) -> Result<(Vec<SocketAddr>, Option<String>), String> {
        let file = self.resolv_conf.display();
        let text = fs::read(&self.resolv_conf).unwrap_or_default();
        let config = match parse(&text) {
            Ok((config, _)) => config,
            Err(_) if !self.servers.is_empty() => ResolverConfig::default(),
            Err(error) => return Err(format!("{file}: {error}")),
        };
        let servers = match &self.servers[..] {
            [] => config.name_servers.iter().map(|server| (server.ip, DNS_PORT).into()).collect(),
            told => told.to_vec(),
        };
        Ok((servers, config.search.first().map(|search| search.to_ascii())))
    }
}

/// Asks; made anew when a file it goes by changes.
pub(super) struct Asker {
    resolving: Resolving,
    files: [Vec<u8>; 2],
    resolver: Result<Resolver, String>,
}

impl Asker {
    /// Has read nothing yet.
    pub(super) fn new(resolving: Resolving) -> Asker {
        let resolver = build(&resolving, &[]);
        Asker { resolving, files: [Vec::new(), Vec::new()], resolver }
    }

    /// What to ask with now, or why there is nothing.
    pub(super) fn resolver(&mut self) -> Result<Resolver, String> {
        let read = |path: &Path| fs::read(path).unwrap_or_default();
        let files = [read(&self.resolving.resolv_conf), read(Path::new(HOSTS_FILE))];
        if files != self.files {
            self.resolver = build(&self.resolving, &files[0]);
            self.files = files;
        }
        self.resolver.clone()
    }
}

fn build(resolving: &Resolving, resolv_conf: &[u8]) -> Result<Resolver, String> {
    let file = resolving.resolv_conf.display();
    let (mut config, mut options) = match parse(resolv_conf) {
        Ok(read) => read,
        Err(_) if !resolving.servers.is_empty() => (ResolverConfig::default(), ResolverOpts::default()),
        Err(error) => return Err(format!("{file}: {error}")),
    };
    if !resolving.servers.is_empty() {
        config.name_servers = resolving.servers.iter().copied().map(server).collect();
    }
    // The answers are kept elsewhere.
    options.cache_size = 0;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.num_concurrent_reqs = 1;
    let mut builder = Resolver::builder_with_config(config, Paced::default());
    *builder.options_mut() = options;
    builder.build().map_err(|error| format!("{file}: {error}"))
}

/// What the file says, without search domains that are no names: the servers are asked all the same, as by libc.
fn parse(text: &[u8]) -> Result<(ResolverConfig, ResolverOpts), NetError> {
    let mut kept = String::with_capacity(text.len());
    for line in String::from_utf8_lossy(text).lines() {
        let mut words = line.split([';', '#']).next().unwrap_or_default().split_whitespace();
        let keyword = words.next().unwrap_or_default();
        kept.push_str(keyword);
        for word in words {
            if matches!(keyword, "search" | "domain") && Name::from_str_relaxed(word).is_err() {
                tracing::warn!(domain = word, "a search domain of resolv.conf is no name; it is left out");
                continue;
            }
            kept.push(' ');
            kept.push_str(word);
        }
        kept.push('\n');
    }
    system_conf::parse_resolv_conf(kept)
}

fn server(address: SocketAddr) -> NameServerConfig {
    let by = |protocol: ProtocolConfig| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(address.ip(), true, vec![by(ProtocolConfig::Udp), by(ProtocolConfig::Tcp)])
}

/// What came of asking for addresses of one family.
type Told = Result<Records, NetError>;

/// What is of use in an answer, which takes a megabyte where there are thousands of records in it and is not kept.
struct Records {
    addresses: Vec<IpAddr>,
    /// Their time to live, in seconds; what is written in the hosts file has the longest there is, and tells none.
    ttl: Option<u32>,
}

/// Asks for the addresses of a name, of which at most `most` are taken.
pub(super) async fn ask(resolver: Result<Resolver, String>, key: Key, most: usize) -> Answer {
    let resolver = match resolver {
        Ok(resolver) => resolver,
        Err(why) => return Answer::Failed(why),
    };
    let lookup = |record_type| lookup(&resolver, &key.host, record_type, most);
    let told = match key.family {
        DnsFamily::V4Only => vec![lookup(RecordType::A).await],
        DnsFamily::V6Only => vec![lookup(RecordType::AAAA).await],
        DnsFamily::All => both(lookup(RecordType::A), lookup(RecordType::AAAA)).await,
    };
    let (mut addresses, mut ttl, mut none, mut failure) = (Vec::new(), None, "it has no address", None);
    for told in told {
        match told {
            Ok(records) => {
                addresses.extend(records.addresses);
                ttl = [ttl, records.ttl].into_iter().flatten().min();
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(no))) => {
                if no.response_code == ResponseCode::NXDomain {
                    none = "there is no such name";
                }
            }
            Err(error) => failure = Some(error.to_string()),
        }
    }
    addresses.truncate(most);
    match failure {
        _ if !addresses.is_empty() => {
            Answer::Addresses(addresses, ttl.map(|ttl| Duration::from_secs(ttl.into())))
        }
        Some(why) => Answer::Failed(why),
        None => Answer::None(none),
    }
}

async fn lookup(resolver: &Resolver, host: &str, record_type: RecordType, most: usize) -> Told {
    resolver.clear_lookup_cache(host, record_type);
    let lookup = tokio::time::timeout(LOOKUP_TIME_MAX, resolver.lookup(host, record_type)).await;
    let lookup = lookup.unwrap_or(Err(NetError::Timeout))?;
    let records = lookup.answers();
    let addresses = records.iter().filter_map(|record| record.data.ip_addr()).take(most).collect();
    let ttl = records.iter().map(|record| record.ttl).filter(|ttl| *ttl < MAX_TTL).min();
    Ok(Records { addresses, ttl })
}

/// What came of asking for both families at once, in this order; of one alone when the other is late.
async fn both(v4: impl Future<Output = Told>, v6: impl Future<Output = Told>) -> Vec<Told> {
    let (mut v4, mut v6) = (pin!(v4), pin!(v6));
    let told = tokio::select! {
        biased;
        told = &mut v4 => {
            let other = tokio::time::timeout(patience(&told), v6).await;
            [Some(told), other.ok()]
        }
        told = &mut v6 => {
            let other = tokio::time::timeout(patience(&told), v4).await;
            [other.ok(), Some(told)]
        }
    };
    told.into_iter().flatten().collect()
}

/// How long what one family told waits for the other one. Nothing waits as long as it takes. What is written in the hosts
/// file is all there is: the other family, too, is there at once or not at all.
fn patience(told: &Told) -> Duration {
    match told {
        Ok(records) if records.addresses.is_empty() => LOOKUP_TIME_MAX,
        Ok(Records { ttl: None, .. }) => Duration::ZERO,
        Ok(_) => FAMILY_WAIT_MAX,
        Err(_) => LOOKUP_TIME_MAX,
    }
}

#[cfg(test)]
#[path = "resolver/tests.rs"]
mod tests;
