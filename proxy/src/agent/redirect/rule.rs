//! One redirect rule as data; the vocabulary that both back ends write in their own words.

use std::fmt;
use std::net::IpAddr;

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub(crate) fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// A range of addresses. Host bits may be set; the kernel ignores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    /// An address in it.
    pub(crate) address: IpAddr,
    /// How many leading bits are fixed; at most 32 or 128.
    pub(crate) bits: u8,
}

impl Cidr {
    /// The range of one address.
    pub(crate) fn host(address: IpAddr) -> Cidr {
        Cidr { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Its family.
    pub(crate) fn family(self) -> Family {
        Family::of(self.address)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Marks, TPROXY and what is dropped.
    Mangle,
    /// Redirects.
    Nat,
    /// Zones of connection tracking.
    Raw,
}

impl Table {
    /// All of them, in the order of their names, in which they are written.
    pub(crate) const ALL: [Table; 3] = [Table::Mangle, Table::Nat, Table::Raw];

    /// Its name in iptables, and the end of its name in nftables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Table::Mangle => "mangle",
            Table::Nat => "nat",
            Table::Raw => "raw",
        }
    }
}

/// A chain: the kernel's two that we hang ours into, and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    /// The kernel's, for what arrives.
    Prerouting,
    /// The kernel's, for what a local process sends.
    Output,
    /// Decides on what arrives.
    Inbound,
    /// Decides on what is sent.
    Outbound,
    /// Sends questions for names to the agent.
    OutboundDns,
    /// To the proxy's outbound port.
    Redirect,
    /// To the proxy's inbound port.
    InboundRedirect,
    /// Marks packets of a connection that the proxy has already.
    Divert,
    /// To the proxy's inbound port, without changing the destination.
    Tproxy,
    /// Drops.
    Drop,
}

impl Chain {
    /// All of them, in the order in which nft is told them.
    pub(crate) const ALL: [Chain; 10] = [
        Chain::Prerouting,
        Chain::Output,
        Chain::Inbound,
        Chain::Redirect,
        Chain::InboundRedirect,
        Chain::Outbound,
        Chain::OutboundDns,
        Chain::Divert,
        Chain::Tproxy,
        Chain::Drop,
    ];

    /// Whether the kernel has it by itself.
    pub(crate) fn is_built_in(self) -> bool {
        matches!(self, Chain::Prerouting | Chain::Output)
    }
}

/// A user or a group, as iptables and nft take it: a number, or a name of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner(pub(super) String);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A network interface, or with `+` at the end all whose names begin so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface(pub(super) String);

impl Interface {
    /// Its name, and whether names that only begin so are meant too.
    pub(crate) fn name(&self) -> (&str, bool) {
        self.0.strip_suffix('+').map_or((&self.0, false), |name| (name, true))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a packet has to be for a rule to hold; all matches of a rule have to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Arrived by this interface.
    In(Interface),
    /// Leaves by this interface.
    Out(Interface),
    /// From this range.
    From(Cidr),
    /// To this range.
    To(Cidr),
    /// To anywhere else.
    NotTo(Cidr),
    /// From this port.
    FromPort(u16),
    /// To this port.
    ToPort(u16),
    /// To none of these ports.
    NotToPorts(Vec<u16>),
    /// Sent by a socket of this user.
    User(Owner),
    /// Sent by anything else.
    NotUser(Owner),
    /// Sent by a socket of this group.
    Group(Owner),
    /// Sent by anything else.
    NotGroup(Owner),
    /// Of a connection that is established, or belongs to one.
    Established,
    /// Of no connection that the kernel can make out.
    Invalid,
    /// Bears this mark.
    Mark(u32),
    /// Bears another mark, or none.
    NotMark(u32),
    /// Of a connection that bears this mark.
    ConnectionMark(u32),
}

/// What is done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Back to the chain before; in a chain of the kernel's, on its way.
    Return,
    /// On its way.
    Accept,
    /// Away with it.
    Drop,
    /// Through another chain.
    Jump(Chain),
    /// To this port of the machine, with the destination changed.
    Redirect(u16),
    /// To this port of the machine, with the destination as it was.
    Tproxy {
        /// Port of a transparent listener.
        port: u16,
        /// Mark by which the packet is routed to this machine.
        mark: u32,
    },
    /// Mark it.
    SetMark(u32),
    /// Give its connection its mark.
    SaveMark,
    /// Give it the mark of its connection.
    RestoreMark,
    /// Track its connection in this zone.
    Zone(u16),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Where: the table,
    pub(crate) table: Table,
    /// and the chain.
    pub(crate) chain: Chain,
    /// The only family it is for; both when not given.
    pub(crate) family: Option<Family>,
    /// Whether it goes before all that is in the chain, somebody else's rules too, instead of behind.
    pub(crate) first: bool,
    /// What it holds for.
    pub(crate) matches: Vec<Match>,
    /// What it does.
    pub(crate) action: Action,
}

impl Rule {
    /// Whether it is for packets of this family.
    pub(crate) fn is_for(&self, family: Family) -> bool {
        self.family.is_none_or(|only| only == family)
    }
}
