//! Text to typed objects, every error with its place.
//!
//! A text is split at its document markers, so that a malformed document leaves its neighbours alone. Each document
//! becomes a tree in which every value knows its line; first it is asked which object it is, then what it says.
//! Istio's kinds are read strictly, Kubernetes' ignore what weft does not read, everything else is skipped.
//!
//! JSON is YAML. Lists, as `kubectl get -o yaml` writes them, are taken apart. Nothing here panics on any text, and
//! all costs are bounded by [`Limits`].

mod build;
mod error;
mod guard;
mod identity;
mod kinds;
mod limits;
mod lines;
mod mesh_map;
mod path;
mod problem;
mod read;
mod scalar;
mod split;
mod suggest;
pub(crate) mod tree;
pub(crate) mod typed;

#[cfg(test)]
mod tests;

pub use build::text_of;
pub use guard::Guard;
pub use limits::Limits;
pub use lines::FieldLines;
pub use mesh_map::MeshMap;
pub use read::{FileRead, ObjectRead, read_file};

pub(crate) use build::build;
pub(crate) use mesh_map::{Lines, MESH_MAP};
pub(crate) use path::Path;
pub(crate) use problem::{Problem, Problems, Room, past_total};
pub(crate) use read::{Within, bytes_refused, read_file_within};
pub(crate) use split::{DocumentText as Document, documents};
pub(crate) use suggest::{nearest, remedy};
