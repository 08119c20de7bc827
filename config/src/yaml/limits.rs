//! Bounds on what a text may cost to read.

use crate::limits as process;

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
    /// The bounds weft reads with. A List of all objects of a cluster is one document, hence its size.
    pub const DEFAULT: Limits = Limits {
        file_bytes_max: 64 << 20,
        file_documents_max: 100_000,
        document_bytes_max: 32 << 20,
        document_nodes_max: 2_000_000,
        document_depth_max: 64,
        alias_nodes_max: 10_000,
        document_problems_max: saturating(process::Limits::DEFAULT.document_problems_max),
        file_problems_max: 10_000,
        object_bytes_max: saturating(process::Limits::DEFAULT.object_bytes_max),
        objects_bytes_total_max: 1 << 30,
        object_products_max: saturating(process::Limits::DEFAULT.object_products_max),
        object_pattern_bytes_max: saturating(process::Limits::DEFAULT.object_pattern_bytes_max),
        mesh_products_max: 1_000_000,
        object_findings_max: saturating(process::Limits::DEFAULT.object_findings_max),
    };

    /// Names of those that are fixed: no process sets them.
    pub(crate) const OF_TEXT: [&str; 7] = [
        "file_bytes_max",
        "file_documents_max",
        "document_bytes_max",
        "document_nodes_max",
        "document_depth_max",
        "alias_nodes_max",
        "file_problems_max",
    ];

    /// The bounds of a process with these limits.
    pub fn of(limits: &process::Limits) -> Limits {
        let total = saturating(limits.objects_bytes_total_max);
        let products = saturating(limits.mesh_products_max);
        Limits {
            document_problems_max: saturating(limits.document_problems_max),
            object_bytes_max: saturating(limits.object_bytes_max),
            objects_bytes_total_max: if total == 0 { Limits::DEFAULT.objects_bytes_total_max } else { total },
            object_products_max: saturating(limits.object_products_max),
            object_pattern_bytes_max: saturating(limits.object_pattern_bytes_max),
            mesh_products_max: if products == 0 { Limits::DEFAULT.mesh_products_max } else { products },
            object_findings_max: saturating(limits.object_findings_max),
            ..Limits::DEFAULT
        }
    }
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
