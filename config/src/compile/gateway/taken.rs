//! Servers of one address that get nothing of what they ask for, because one before them has it.

use super::{Kind, Written, kind};
use crate::hashed::HashMap;
use crate::istio::Server;

/// What the servers of an address have.
#[derive(Default)]
pub(crate) struct Taken<'s> {
    /// What the first speaks, which all others have to.
    pub(super) first: Option<(Kind, Written<'s>)>,
    hosts: HashMap<(Box<str>, String), Written<'s>>,
}

impl<'s> Taken<'s> {
    /// The first server, where its rules come before those of others for whatever comes: where it speaks TCP.
    pub(crate) fn first_of_tcp(&self) -> Option<Written<'s>> {
        self.first.filter(|(kind, _)| *kind == Kind::Tcp).map(|(_, first)| first)
    }

    /// Takes what a server asks for, or says which one has what of it. As istiod does: a server with `tls` gets nothing that
    /// names a host which one with `tls` before it has, where they only lead to HTTPS, too; and one that speaks another
    /// protocol than the first, or TCP after it, also where istiod keeps one, of plain text right after the first, of TLS.
    #[inline]
    pub(crate) fn take(&mut self, own: Written<'s>, server: &Server) -> Result<(), (Written<'s>, String)> {
        let (first, oldest) = *self.first.get_or_insert((kind(server), own));
        let hosts = server.scoped_hosts(own.0.namespace()).filter(|_| server.tls.is_some());
        let hosts: Vec<_> = hosts.map(|(scope, host)| (scope.into(), host.to_lowercase())).collect();
        if let Some((before, host)) = hosts.iter().find_map(|it| Some((*self.hosts.get(it)?, &it.1))) {
            return Err((before, format!("`tls` for `{host}`")));
        }
        self.hosts.extend(hosts.into_iter().map(|host| (host, own)));
        if kind(server) == first { Ok(()) } else { Err((oldest, "what comes".to_owned())) }
    }
}

/// What follows from that for most servers.
pub(crate) const LEFT_OUT: &str = ": this server is left out";

/// What there is to say of a server where the one `before` it has what it wants, and the remedy.
pub(crate) fn is_that_of(
    (object, index): Written<'_>,
    wanted: &str,
    server: &Server,
) -> (String, &'static str) {
    let (first, port) = (object.origin_at(&format!("spec.servers[{index}]")), server.port.number);
    let of_first = object.spec.servers.get(index).map_or(port, |first| first.port.number);
    let led = match of_first == port {
        true => String::new(),
        false => format!(" whose port {of_first} leads to the same port of the workload and"),
    };
    let what = format!("{wanted} on port {port} is that of {first},{led} which comes first");
    (what, "put them into one server, or give this one another port or other hosts")
}
