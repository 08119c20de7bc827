//! The same question to weft and, where it is installed, to a stock Envoy with the same resources.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::envoy::Envoy;
use crate::proxy::{Start, TestProxy};

/// weft, and perhaps Envoy.
#[derive(Debug)]
pub struct Sides {
    /// weft.
    pub weft: TestProxy,
    /// Envoy, where it is installed.
    pub envoy: Option<Envoy>,
}

/// One of the two.
#[derive(Debug, Clone, Copy)]
pub enum Side<'s> {
    /// weft.
    Weft(&'s TestProxy),
    /// Envoy.
    Envoy(&'s Envoy),
}

impl Start {
    /// Starts weft, and beside it Envoy, and waits until both are ready.
    pub async fn both(self) -> Sides {
        let envoy = Envoy::start(self.settings()).await;
        Sides { weft: self.ready().await, envoy }
    }
}

impl Sides {
    /// Both, or only weft.
    pub fn each(&self) -> impl Iterator<Item = Side<'_>> {
        std::iter::once(Side::Weft(&self.weft)).chain(self.envoy.as_ref().map(Side::Envoy))
    }
}

impl Side<'_> {
    /// Its name, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Side::Weft(_) => "weft",
            Side::Envoy(_) => "Envoy",
        }
    }

    /// Whether it is weft.
    pub fn is_weft(self) -> bool {
        matches!(self, Side::Weft(_))
    }

    /// Where listener number `index` listens.
    pub fn listener(self, index: usize) -> SocketAddr {
        match self {
            Side::Weft(proxy) => proxy.listener(index),
            Side::Envoy(envoy) => envoy.listener(index),
        }
    }

    /// Where its admin console listens.
    pub fn admin(self) -> SocketAddr {
        match self {
            Side::Weft(proxy) => proxy.admin(),
            Side::Envoy(envoy) => envoy.admin(),
        }
    }

    /// Its access log, when the mesh says `weft` writes to this file.
    pub fn log(self, weft: &std::path::Path) -> PathBuf {
        match self {
            Side::Weft(_) => weft.to_owned(),
            Side::Envoy(_) => PathBuf::from(format!("{}.envoy", weft.display())),
        }
    }
}
