//! Redirect rules: how a pod's traffic comes to the proxy.
//!
//! They are Istio's (istio-iptables and istio-nftables), by its arguments, and so is what they mean for the proxy:
//! outbound connections of the application arrive on the proxy's port (15001), inbound ones on the capture port (15006),
//! with their original destination told by the kernel; what the proxy's own user sends is left alone, and so is what
//! comes from 127.0.0.6 or ::6, from where the proxy dials the application.
//!
//! Read in this order: `arguments` (what is asked), `settings` (what that means, checked), `rule` and `rules` (the rules
//! as data, pure), `iptables` and `nftables` (the same as text), `apply` and `remove`, `verify`
//! (prove them with a connection). The kernel is reached by the tools of its maintainers only: iptables, nft and ip.
//!
//! Invariants: nothing is applied by halves, a failure or a signal takes back what was done before it; rules and chains that are not
//! ours stay as they are; what goes into a tool's input was parsed before, so no argument can smuggle in a rule.

mod apply;
mod arguments;
mod host;
mod interrupt;
mod iptables;
mod kernel;
mod lock;
mod network;
mod nftables;
mod print;
mod remove;
mod rule;
mod rules;
mod settings;
mod tools;
mod verify;

pub(crate) use apply::apply;
pub(crate) use arguments::Arguments;
pub(crate) use host::{Host, enter};
pub(crate) use print::print;
pub(crate) use remove::remove;
pub(crate) use settings::Settings;
pub(crate) use verify::verify;
