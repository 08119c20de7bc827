//! Bounds on what a text may cost to read.

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
    /// Problems told of one document.
    pub document_problems_max: usize,
    /// Problems told of one file; past it, of every object only the first, and of documents that are none only how many.
    pub file_problems_max: usize,
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
        document_problems_max: 64,
        file_problems_max: 10_000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}
