//! The rules as data: a pure function of the settings.
//!
//! Rules stand in the order in which Istio 1.32 adds them, which within a chain is the order in which they are tried.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv6Addr};

use config::{WORKLOAD_SOURCE_V4, WORKLOAD_SOURCE_V6};

use super::rule::{Action, Chain, Cidr, Family, Interface, Match, Rule, Table};
use super::settings::{Dns, Groups, InboundPorts, Mode, Ranges, Settings};

/// In TPROXY mode, the mark of what the proxy sends to its own pod's address, so that it is caught as inbound.
const OUTBOUND_MARK: u32 = 1338;

/// Where questions for names go.
const DNS_PORT: u16 = 53;

/// Where the agent answers them.
const AGENT_DNS_PORT: u16 = 15053;

/// Zone of connection tracking between the agent and the resolvers.
const ZONE_OF_RESOLVERS: u16 = 1;

/// Zone of connection tracking between the application and the agent.
const ZONE_OF_APPLICATION: u16 = 2;

/// All rules for these settings.
pub(crate) fn rules(settings: &Settings) -> Vec<Rule> {
    let mut list = List { settings, rules: Vec::new() };
    list.interfaces();
    list.invalid();
    list.targets();
    list.inbound();
    list.outbound_head();
    list.proxy_users();
    list.proxy_groups();
    list.owner_groups();
    list.dns();
    list.outbound_tail();
    if settings.mode == Mode::Tproxy {
        list.marks();
    }
    list.rules
}

/// The rules so far.
struct List<'a> {
    settings: &'a Settings,
    rules: Vec<Rule>,
}

impl List<'_> {
    fn add(&mut self, table: Table, chain: Chain, matches: impl Into<Vec<Match>>, action: Action) {
        let matches = matches.into();
        self.push(Rule { table, chain, family: None, first: false, matches, action });
    }

    /// Puts a rule before everything that is in the chain.
    fn add_first(&mut self, chain: Chain, matches: impl Into<Vec<Match>>, action: Action) {
        let matches = matches.into();
        self.push(Rule { table: Table::Nat, chain, family: None, first: true, matches, action });
    }

    /// A rule that names an address is for its family only; one for IPv6 is left out where there is none.
    fn push(&mut self, mut rule: Rule) {
        let of_match = |part: &Match| match part {
            Match::From(cidr) | Match::To(cidr) | Match::NotTo(cidr) => Some(cidr.family()),
            _ => None,
        };
        rule.family = rule.family.or_else(|| rule.matches.iter().find_map(of_match));
        if self.settings.ipv6 || rule.family != Some(Family::V6) {
            self.rules.push(rule);
        }
    }

    /// The loopback addresses of both families that applications use among themselves.
    fn loopbacks(&self) -> [Cidr; 2] {
        [self.settings.loopback, Cidr::host(IpAddr::V6(Ipv6Addr::LOCALHOST))]
    }

    /// Interfaces that are left alone, and those whose inbound traffic comes from a virtual machine.
    fn interfaces(&mut self) {
        let settings = self.settings;
        let tables = match settings.mode {
            Mode::Redirect => &[Table::Nat][..],
            Mode::Tproxy => &[Table::Nat, Table::Mangle],
        };
        for table in tables {
            for interface in &settings.exclude_interfaces {
                self.add(*table, Chain::Prerouting, [Match::In(interface.clone())], Action::Return);
                self.add(*table, Chain::Output, [Match::Out(interface.clone())], Action::Return);
            }
        }
        for interface in &settings.virtual_interfaces {
            self.add_first(Chain::Prerouting, [Match::In(interface.clone())], Action::Return);
        }
    }

    /// Drops what is out of a connection's window, which the kernel would answer with a reset.
    fn invalid(&mut self) {
        if self.settings.drop_invalid {
            let jump = Action::Jump(Chain::Drop);
            self.add(Table::Mangle, Chain::Prerouting, [Match::Invalid], jump);
            self.add(Table::Mangle, Chain::Drop, [], Action::Drop);
        }
    }

    /// The port of tunnels, which the proxy listens on itself, and the two redirects.
    fn targets(&mut self) {
        let settings = self.settings;
        let to_tunnel = [Match::Tcp, Match::ToPort(settings.tunnel_port)];
        self.add(Table::Nat, Chain::Inbound, to_tunnel, Action::Return);
        self.add(Table::Nat, Chain::Redirect, [Match::Tcp], Action::Redirect(settings.proxy_port));
        self.add(Table::Nat, Chain::InboundRedirect, [Match::Tcp], Action::Redirect(settings.inbound_port));
    }

    /// What arrives.
    fn inbound(&mut self) {
        let settings = self.settings;
        let table = match settings.mode {
            Mode::Redirect => Table::Nat,
            Mode::Tproxy => Table::Mangle,
        };
        if settings.mode == Mode::Tproxy {
            self.inbound_marked();
        }
        if settings.inbound == InboundPorts::None {
            return;
        }
        if settings.mode == Mode::Tproxy {
            self.tproxy_targets();
        }
        self.add(table, Chain::Prerouting, [Match::Tcp], Action::Jump(Chain::Inbound));
        match &settings.inbound {
            InboundPorts::None => {}
            InboundPorts::AllExcept(ports) => {
                for port in ports {
                    self.add(table, Chain::Inbound, [Match::Tcp, Match::ToPort(*port)], Action::Return);
                }
                self.catch(&[Match::Tcp]);
            }
            InboundPorts::Only(ports) => {
                for port in ports {
                    self.catch(&[Match::Tcp, Match::ToPort(*port)]);
                }
            }
        }
    }

    /// Gives inbound connections that match to the proxy.
    fn catch(&mut self, matches: &[Match]) {
        match self.settings.mode {
            Mode::Redirect => {
                self.add(Table::Nat, Chain::Inbound, matches, Action::Jump(Chain::InboundRedirect));
            }
            Mode::Tproxy => {
                let established = [matches, &[Match::Established]].concat();
                self.add(Table::Mangle, Chain::Inbound, established, Action::Jump(Chain::Divert));
                self.add(Table::Mangle, Chain::Inbound, matches, Action::Jump(Chain::Tproxy));
            }
        }
    }

    /// What TPROXY must not catch: what it has caught already, what the proxy dials, and what an application sends to
    /// the pod's own address.
    fn inbound_marked(&mut self) {
        let mark = self.settings.tproxy_mark;
        let (table, chain) = (Table::Mangle, Chain::Inbound);
        self.add(table, chain, [Match::Tcp, Match::Mark(mark)], Action::Return);
        for source in [WORKLOAD_SOURCE_V4, WORKLOAD_SOURCE_V6] {
            let from_proxy = [Match::Tcp, Match::From(Cidr::host(source)), Match::In(loopback())];
            self.add(table, chain, from_proxy, Action::Return);
        }
        let from_application = [Match::Tcp, Match::In(loopback()), Match::NotMark(OUTBOUND_MARK)];
        self.add(table, chain, from_application, Action::Return);
    }

    /// The two ends of TPROXY: to the socket that has the connection, or to the proxy's listener.
    fn tproxy_targets(&mut self) {
        let (port, mark) = (self.settings.inbound_port, self.settings.tproxy_mark);
        self.add(Table::Mangle, Chain::Divert, [], Action::SetMark(mark));
        self.add(Table::Mangle, Chain::Divert, [], Action::Accept);
        for loopback in self.loopbacks() {
            let matches = [Match::NotTo(loopback), Match::Tcp];
            self.add(Table::Mangle, Chain::Tproxy, matches, Action::Tproxy { port, mark });
        }
    }

    /// What leaves, up to whose it is: ports that are left alone, and the proxy's connections to its application.
    fn outbound_head(&mut self) {
        let settings = self.settings;
        self.add(Table::Nat, Chain::Output, [], Action::Jump(Chain::Outbound));
        for port in &settings.outbound_ports_exclude {
            for protocol in [Match::Tcp, Match::Udp] {
                self.add(Table::Nat, Chain::Outbound, [protocol, Match::ToPort(*port)], Action::Return);
            }
        }
        for source in [WORKLOAD_SOURCE_V4, WORKLOAD_SOURCE_V6] {
            let from_proxy = [Match::Out(loopback()), Match::From(Cidr::host(source))];
            self.add(Table::Nat, Chain::Outbound, from_proxy, Action::Return);
        }
    }

    fn proxy_users(&mut self) {
        let settings = self.settings;
        for user in &settings.users {
            // Where the agent answers questions for names, what it asks itself over TCP must not come back as inbound.
            let mut not_to = vec![settings.tunnel_port];
            if settings.dns.is_some() {
                not_to.insert(0, DNS_PORT);
            }
            self.proxy_owner(&not_to, &Match::User(user.clone()), Match::NotUser(user.clone()));
        }
    }

    fn proxy_groups(&mut self) {
        let settings = self.settings;
        for group in &settings.groups {
            let not_to = [settings.tunnel_port];
            self.proxy_owner(&not_to, &Match::Group(group.clone()), Match::NotGroup(group.clone()));
        }
    }

    /// What an owner sends whose traffic is the proxy's: to the pod's own address it is inbound; all else is not caught.
    fn proxy_owner(&mut self, not_to: &[u16], proxy: &Match, others: Match) {
        let settings = self.settings;
        for address in self.loopbacks() {
            // The application calls its own service: application, proxy outbound, proxy inbound, application.
            let to_itself = [
                Match::Out(loopback()),
                Match::NotTo(address),
                Match::Tcp,
                Match::NotToPorts(not_to.to_vec()),
                proxy.clone(),
            ];
            self.add(Table::Nat, Chain::Outbound, to_itself, Action::Jump(Chain::InboundRedirect));
        }
        // An application that calls itself by its address or by localhost is left alone, unless loopback is asked for.
        if !settings.catches_loopback() {
            let mut matches = vec![Match::Out(loopback())];
            if settings.dns.is_some() {
                // A resolver may be on localhost; what asks it over TCP is caught further down.
                matches.extend([Match::Tcp, Match::NotToPorts(vec![DNS_PORT])]);
            }
            matches.push(others);
            self.add(Table::Nat, Chain::Outbound, matches, Action::Return);
        }
        self.add(Table::Nat, Chain::Outbound, [proxy.clone()], Action::Return);
    }

    /// Groups whose traffic is not caught.
    fn owner_groups(&mut self) {
        match &self.settings.owner_groups {
            Groups::AllExcept(groups) => {
                for group in groups {
                    self.add(Table::Nat, Chain::Outbound, [Match::Group(group.clone())], Action::Return);
                }
            }
            Groups::Only(groups) => {
                let none_of: Vec<Match> = groups.iter().cloned().map(Match::NotGroup).collect();
                self.add(Table::Nat, Chain::Outbound, none_of, Action::Return);
            }
        }
    }

    /// What leaves, by where it goes.
    fn outbound_tail(&mut self) {
        let settings = self.settings;
        for address in self.loopbacks() {
            self.add(Table::Nat, Chain::Outbound, [Match::To(address)], Action::Return);
        }
        for range in &settings.exclude {
            self.add(Table::Nat, Chain::Outbound, [Match::To(*range)], Action::Return);
        }
        let redirect = Action::Jump(Chain::Redirect);
        for port in &settings.outbound_ports {
            self.add(Table::Nat, Chain::Outbound, [Match::Tcp, Match::ToPort(*port)], redirect);
        }
        match &settings.include {
            Ranges::All => {
                self.add(Table::Nat, Chain::Outbound, [], redirect);
                for interface in &settings.virtual_interfaces {
                    self.add_first(Chain::Prerouting, [Match::In(interface.clone())], redirect);
                }
            }
            Ranges::Only(ranges) => {
                for range in ranges {
                    for interface in &settings.virtual_interfaces {
                        let matches = [Match::In(interface.clone()), Match::To(*range)];
                        self.add_first(Chain::Prerouting, matches, redirect);
                    }
                    self.add(Table::Nat, Chain::Outbound, [Match::To(*range)], redirect);
                }
            }
        }
    }

    /// Marks by which TPROXY routes answers back to the proxy.
    fn marks(&mut self) {
        let settings = self.settings;
        let (table, mark) = (Table::Mangle, settings.tproxy_mark);
        self.add(table, Chain::Prerouting, [Match::Tcp, Match::Mark(mark)], Action::SaveMark);
        let from_proxy = [Match::Tcp, Match::Out(loopback()), Match::Mark(mark)];
        self.add(table, Chain::Output, from_proxy, Action::Return);
        let users = settings.users.iter().cloned().map(Match::User);
        for owner in users.chain(settings.groups.iter().cloned().map(Match::Group)) {
            for address in self.loopbacks() {
                let to_itself = [Match::NotTo(address), Match::Tcp, Match::Out(loopback()), owner.clone()];
                self.add(table, Chain::Output, to_itself, Action::SetMark(OUTBOUND_MARK));
            }
        }
        self.add(table, Chain::Output, [Match::Tcp, Match::ConnectionMark(mark)], Action::RestoreMark);
    }

    /// Questions for names go to the agent; its own go on to the resolvers.
    fn dns(&mut self) {
        let settings = self.settings;
        let Some(dns) = &settings.dns else { return };
        self.add(Table::Raw, Chain::Output, [], Action::Jump(Chain::OutboundDns));
        self.jump_for(dns, Table::Nat, Chain::Outbound, Chain::OutboundDns);
        for protocol in [Match::Tcp, Match::Udp] {
            for server in servers(dns) {
                let mut matches = vec![protocol.clone(), Match::ToPort(DNS_PORT)];
                matches.extend(server.map(Match::To));
                self.add(Table::Nat, Chain::OutboundDns, matches, Action::Redirect(AGENT_DNS_PORT));
            }
        }
        self.zones(dns);
    }

    /// Two zones of connection tracking keep the application's questions apart from the agent's, which may have the
    /// same addresses and ports.
    fn zones(&mut self, dns: &Dns) {
        let settings = self.settings;
        let (table, chain) = (Table::Raw, Chain::OutboundDns);
        let users = settings.users.iter().cloned().map(Match::User);
        for owner in users.chain(settings.groups.iter().cloned().map(Match::Group)) {
            let asks = [Match::Udp, Match::ToPort(DNS_PORT), owner.clone()];
            self.add(table, chain, asks, Action::Zone(ZONE_OF_RESOLVERS));
            let answers = [Match::Udp, Match::FromPort(AGENT_DNS_PORT), owner];
            self.add(table, chain, answers, Action::Zone(ZONE_OF_APPLICATION));
        }
        self.jump_for(dns, table, Chain::Prerouting, Chain::Inbound);
        for server in servers(dns) {
            let mut asks = vec![Match::Udp, Match::ToPort(DNS_PORT)];
            asks.extend(server.map(Match::To));
            self.add(table, chain, asks, Action::Zone(ZONE_OF_APPLICATION));
            let mut answers = vec![Match::Udp, Match::FromPort(DNS_PORT)];
            answers.extend(server.map(Match::From));
            self.add(table, Chain::Inbound, answers, Action::Zone(ZONE_OF_RESOLVERS));
        }
    }

    /// A jump for the families that have resolvers.
    fn jump_for(&mut self, dns: &Dns, table: Table, chain: Chain, to: Chain) {
        let has = |family| servers(dns).iter().flatten().any(|server| server.family() == family);
        let family = match (dns, has(Family::V4), has(Family::V6)) {
            (Dns::Everywhere, ..) | (_, true, true) => None,
            (_, true, false) => Some(Family::V4),
            (_, false, true) => Some(Family::V6),
            (_, false, false) => return,
        };
        let action = Action::Jump(to);
        self.push(Rule { table, chain, family, first: false, matches: Vec::new(), action });
    }
}

/// The resolvers that are asked, one range each; `None` stands for any.
fn servers(dns: &Dns) -> Vec<Option<Cidr>> {
    match dns {
        Dns::Everywhere => vec![None],
        Dns::Servers(servers) => servers.iter().map(|server| Some(Cidr::host(*server))).collect(),
    }
}

/// The loopback interface.
fn loopback() -> Interface {
    Interface("lo".to_owned())
}
