//! Sidecars come and go, and their configuration changes, while others talk to their pods.

mod families;
mod gateway;
mod gone;
mod guard;
mod hostile;
mod looped;
mod mesh;
mod network;
mod ports;
mod probes;
mod restart;
mod silent;
mod sniffing;
mod streams;
mod websocket;
