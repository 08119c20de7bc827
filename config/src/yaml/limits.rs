//! Bounds on what a text may cost to read.

use crate::limits as process;

/// What holds where nothing is said and memory is not bounded.
const OBJECTS_BYTES_TOTAL_MAX: u64 = 1 << 30;
const MESH_PRODUCTS_MAX: u64 = 1_000_000;
const FINDINGS_BYTES_TOTAL_MAX: u64 = 1 << 28;

/// Bounds that keep a text, also a hostile one, from costing more than it should.
///
/// A file past a bound is refused as a whole; a document past one is refused alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes_max: usize,
    /// Documents of one file that hold anything; items of a List count too.
    pub file_documents_max: usize,
    /// Bytes of one document.
    pub document_bytes_max: usize,
    /// Scalars, lists and mappings of one document, those that aliases repeat included.
    pub document_nodes_max: usize,
    /// Lists and mappings inside each other.
    pub document_depth_max: usize,
    /// Scalars, lists and mappings that the aliases of one document repeat.
    pub alias_nodes_max: usize,
    /// Problems told of one document; those past it are counted.
    pub document_problems_max: usize,
    /// Problems told of one file; past it, of every object only the first, and of documents that are none only how many.
    pub file_problems_max: usize,
    /// Bytes of memory that one object may take, as far as they are known while it is read.
    pub object_bytes_max: usize,
    /// Bytes of memory that all objects of a [`Store`](crate::store::Store) may take together.
    pub objects_bytes_total_max: usize,
    /// Bytes of memory that findings may take together, with the objects that are refused.
    pub findings_bytes_total_max: usize,
    /// Routes or endpoints that are made of one object.
    pub object_products_max: usize,
    /// Bytes that the compiled regular expressions of one object may take together.
    pub object_pattern_bytes_max: usize,
    /// Routes, and clusters with their endpoints, that are made of all objects together.
    pub mesh_products_max: usize,
    /// Findings of one severity that one look at one object tells; those past it are counted.
    pub object_findings_max: usize,
}

impl Limits {
    /// The bounds of a process of which nothing is said.
    pub const DEFAULT: Limits = Limits::of(&process::Limits::DEFAULT);

    /// The bounds of a process with these limits.
    pub const fn of(limits: &process::Limits) -> Limits {
        Limits {
            file_bytes_max: saturating(limits.file_bytes()),
            file_documents_max: saturating(limits.file_documents_max),
            document_bytes_max: saturating(limits.document_bytes_max),
            document_nodes_max: saturating(or(limits.document_nodes_max, process::DOCUMENT_NODES_MAX)),
            document_depth_max: saturating(limits.document_depth_max),
            alias_nodes_max: saturating(limits.alias_nodes_max),
            document_problems_max: saturating(limits.document_problems_max),
            file_problems_max: saturating(limits.file_problems_max),
            object_bytes_max: saturating(limits.object_bytes_max),
            objects_bytes_total_max: saturating(or(limits.objects_bytes_total_max, OBJECTS_BYTES_TOTAL_MAX)),
            findings_bytes_total_max: saturating(or(
                limits.findings_bytes_total_max,
                FINDINGS_BYTES_TOTAL_MAX,
            )),
            object_products_max: saturating(limits.object_products_max),
            object_pattern_bytes_max: saturating(limits.object_pattern_bytes_max),
            mesh_products_max: saturating(or(limits.mesh_products_max, MESH_PRODUCTS_MAX)),
            object_findings_max: saturating(limits.object_findings_max),
        }
    }
}

/// A limit, or where it is 0, what holds instead.
const fn or(limit: u64, otherwise: u64) -> u64 {
    if limit == 0 { otherwise } else { limit }
}

/// A limit of the process as a number of things in memory.
#[expect(clippy::cast_possible_truncation, reason = "compared before")]
const fn saturating(value: u64) -> usize {
    if value > usize::MAX as u64 { usize::MAX } else { value as usize }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}
