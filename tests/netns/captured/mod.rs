//! The sample mesh with its traffic captured: every pod has a network of its own, joined to the others by a bridge, the
//! redirect rules that `weft redirect apply` makes, the binary as its sidecar, and applications that know of neither. What
//! one pod sends another goes through both sidecars. The virtual addresses of services are nowhere.

mod bytes;
mod catalog;
mod explained;
mod gateway;
mod identified;
mod legacy;
mod mutual;
mod network;
mod outside;
mod renewal;
mod search;
mod shared_port;
mod sockets;
mod tls;
mod transparent;
