//! Where clients come from.

use std::net::IpAddr;

use super::Guard;

/// The addresses that one client has alone: one of IPv4, and 2^64 of IPv6 (RFC 6177).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Network(u64);

impl Network {
    /// The one with this address.
    pub(crate) fn of(address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(address) => Network(u32::from(address).into()),
            IpAddr::V6(address) => Network((u128::from(address) >> 64) as u64),
        }
    }
}

impl Guard {
    /// The client comes from this address.
    pub(crate) fn comes_from(&self, address: IpAddr) {
        self.network.set(Network::of(address));
    }

    /// Where the client comes from.
    pub(crate) fn network(&self) -> Network {
        self.network.get()
    }
}
