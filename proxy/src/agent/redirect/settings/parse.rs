//! One value of an argument or a variable, and what it may be.

use std::time::Duration;

use config::istio::GoDuration;

use super::super::rule::{Cidr, Interface, Owner};
use super::{Mode, Ranges, Variant};

/// Longest name of an interface in the kernel.
const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// Longest name of a user or group.
const OWNER_NAME_BYTES_MAX: usize = 32;

/// Routing tables of the kernel's own (default, main, local), which must not be changed.
const ROUTE_TABLES_RESERVED: [u32; 3] = [253, 254, 255];

/// A value, and where it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    /// The argument or variable.
    pub(crate) source: String,
    /// What it says.
    pub(crate) text: String,
}

impl Value {
    /// A sentence about a value that is not as it should.
    pub(crate) fn wrong(&self, why: &str) -> String {
        format!("{}: `{}`: {why}", self.source, self.text)
    }

    fn parse<T>(&self, what: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        parse(&self.text).ok_or_else(|| self.wrong(what))
    }

    /// Items between commas, without empty ones and the blanks around them.
    fn list<T>(&self, what: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
        let items = self.text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(|item| parse(item).ok_or_else(|| self.wrong(&format!("`{item}` {what}")))).collect()
    }

    /// As Go reads a boolean; an empty variable is false.
    pub(crate) fn boolean(&self) -> Result<bool, String> {
        self.parse("is neither true nor false", |text| match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        })
    }

    pub(crate) fn port(&self) -> Result<u16, String> {
        self.parse("is not a port; write a number from 1 to 65535", port)
    }

    pub(crate) fn ports(&self) -> Result<Vec<u16>, String> {
        self.list("is not a port; write numbers from 1 to 65535, with commas between them", port)
    }

    pub(crate) fn owners(&self) -> Result<Vec<Owner>, String> {
        self.list("is not a user or group; write numbers or names, with commas between them", owner)
    }

    pub(crate) fn interfaces(&self) -> Result<Vec<Interface>, String> {
        self.list("is not the name of an interface; write names such as `eth0`, or `veth+`", interface)
    }

    /// Ranges, of which `*` is none.
    pub(crate) fn cidrs(&self) -> Result<Vec<Cidr>, String> {
        self.list("is not a range of addresses; write them such as `10.0.0.0/8` or `10.0.0.1/32`", cidr)
    }

    pub(crate) fn ranges(&self) -> Result<Ranges, String> {
        if self.text == "*" { Ok(Ranges::All) } else { self.cidrs().map(Ranges::Only) }
    }

    pub(crate) fn loopback(&self) -> Result<Cidr, String> {
        let is_one = |cidr: &Cidr| cidr.address.is_ipv4() && cidr.address.is_loopback() && cidr.bits >= 8;
        let loopback = |text: &str| cidr(text).filter(is_one);
        self.parse("is not a range of IPv4 loopback addresses; write it such as `127.0.0.1/32`", loopback)
    }

    pub(crate) fn mode(&self) -> Result<Mode, String> {
        self.parse("is not a mode; write REDIRECT or TPROXY", |text| match text {
            "" | "REDIRECT" => Some(Mode::Redirect),
            "TPROXY" => Some(Mode::Tproxy),
            _ => None,
        })
    }

    pub(crate) fn variant(&self) -> Result<Option<Variant>, String> {
        self.parse("is not a kind of iptables; write nft or legacy", |text| match text {
            "" => Some(None),
            "nft" => Some(Some(Variant::Nft)),
            "legacy" => Some(Some(Variant::Legacy)),
            _ => None,
        })
    }

    /// A mark; without one every packet would be routed to this machine.
    pub(crate) fn mark(&self) -> Result<u32, String> {
        self.parse("is not a mark; write a number above 0", |text| text.parse().ok().filter(|mark| *mark > 0))
    }

    pub(crate) fn route_table(&self) -> Result<u32, String> {
        let free = |table: &u32| *table > 0 && !ROUTE_TABLES_RESERVED.contains(table);
        let what = "is not a routing table of one's own; write a number above 0 other than 253 to 255";
        self.parse(what, |text| text.parse().ok().filter(free))
    }

    pub(crate) fn duration(&self) -> Result<Duration, String> {
        GoDuration::parse(&self.text).map(|GoDuration(duration)| duration).map_err(|why| self.wrong(&why))
    }
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

fn owner(text: &str) -> Option<Owner> {
    let name = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && text.len() <= OWNER_NAME_BYTES_MAX
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    // A number in another form, such as `01`, would not be found again.
    let number = |text: &str| text.parse::<u32>().is_ok_and(|number| number.to_string() == text);
    (number(text) || name(text)).then(|| Owner(text.to_owned()))
}

fn interface(text: &str) -> Option<Interface> {
    let name = text.strip_suffix('+').unwrap_or(text);
    let starts = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let is_one = starts
        && text.len() <= INTERFACE_NAME_BYTES_MAX
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-@".contains(c));
    is_one.then(|| Interface(text.to_owned()))
}

fn cidr(text: &str) -> Option<Cidr> {
    let (address, bits) = text.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    let digits = bits.bytes().all(|byte| byte.is_ascii_digit());
    let bits = bits.parse().ok().filter(|bits| digits && *bits <= max)?;
    Some(Cidr { address, bits })
}
