//! `config.core.v3.Address` and what is like one.

use std::net::{IpAddr, SocketAddr};

use config::{CidrRange, Locality};
use envoy_types::pb::envoy::config::core::v3 as core;

use super::Refused;
use super::at::At;
use super::table::{Choice, Message, Told, open, variants};
use super::values::{needed, number, port};

variants!(core::address::Address as "envoy.config.core.v3.Address.address" {
    honoured: SocketAddress;
    refused: Pipe, EnvoyInternalAddress;
});

variants!(core::socket_address::PortSpecifier as "envoy.config.core.v3.SocketAddress.port_specifier" {
    honoured: PortValue;
    refused: NamedPort;
});

/// A host, which may be a name, and a port.
pub(super) fn host_and_port(told: Option<core::Address>, at: &At<'_>) -> Result<(String, u16), Refused> {
    let told = needed(told, at)?;
    open!(told, at, core::Address as "envoy.config.core.v3.Address" { honoured: address; });
    let address = needed(address, at)?.choose(at)?;
    let core::address::Address::SocketAddress(told) = address else { return Err(at.not_honoured()) };
    of_socket(told, &at.field("socket_address"))
}

fn of_socket(told: core::SocketAddress, at: &At<'_>) -> Result<(String, u16), Refused> {
    open!(told, at, core::SocketAddress as "envoy.config.core.v3.SocketAddress" {
        honoured: protocol, address, port_specifier;
        harmless: ipv4_compat = "an address of IPv6 is used as it is written";
        refused: resolver_name, network_namespace_filepath;
    });
    if protocol != 0 {
        return Err(at.field("protocol").refuse("weft speaks TCP only"));
    }
    let told = needed(port_specifier, &at.field("port_value"))?.choose(at)?;
    let core::socket_address::PortSpecifier::PortValue(told) = told else { return Err(at.not_honoured()) };
    if address.is_empty() {
        return Err(at.field("address").refuse("it is missing"));
    }
    Ok((address, port(told, &at.field("port_value"))?))
}

/// An address of IP, with its port.
pub(super) fn socket(told: Option<core::Address>, at: &At<'_>) -> Result<SocketAddr, Refused> {
    let (host, port) = host_and_port(told, at)?;
    let ip: IpAddr = host.parse().map_err(|_| {
        at.field("socket_address").field("address").refuse(format!("{host:?} is no IP address"))
    })?;
    Ok(SocketAddr::new(ip, port))
}

/// An address to connect from; its port is for the kernel to choose.
pub(super) fn source(told: Option<core::SocketAddress>, at: &At<'_>) -> Result<IpAddr, Refused> {
    let (host, port) = of_socket(needed(told, at)?, at)?;
    if port != 0 {
        return Err(at.field("port_value").refuse("weft lets the kernel choose the port"));
    }
    host.parse().map_err(|_| at.field("address").refuse(format!("{host:?} is no IP address")))
}

/// A range of addresses.
pub(super) fn range(told: core::CidrRange, at: &At<'_>) -> Result<CidrRange, Refused> {
    open!(told, at, core::CidrRange as "envoy.config.core.v3.CidrRange" {
        honoured: address_prefix, prefix_len;
    });
    let bits = u8::try_from(number(prefix_len).unwrap_or_default()).ok();
    let range =
        address_prefix.parse().ok().zip(bits).and_then(|(address, bits)| CidrRange::new(address, bits));
    range.ok_or_else(|| at.refuse(format!("{address_prefix:?} has no prefix of so many bits")))
}

/// A place.
pub(super) fn locality(told: Option<core::Locality>, at: &At<'_>) -> Result<Locality, Refused> {
    let Some(told) = told else { return Ok(Locality::default()) };
    open!(told, at, core::Locality as "envoy.config.core.v3.Locality" { honoured: region, zone, sub_zone; });
    Ok(Locality { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() })
}

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![
        core::Address::MESSAGE,
        core::address::Address::MESSAGE,
        core::SocketAddress::MESSAGE,
        core::socket_address::PortSpecifier::MESSAGE,
        core::CidrRange::MESSAGE,
        core::Locality::MESSAGE,
    ]
}
