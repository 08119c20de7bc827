//! What several tests share.

use std::path::PathBuf;

/// Environment variable that names the directory of reference data.
const SHARED: &str = "WEFT_SHARED";

/// The sample mesh of the reference data.
pub(crate) struct Shop(PathBuf);

impl Shop {
    /// The text of one of its files.
    pub(crate) fn read(&self, file: &str) -> String {
        let path = self.0.join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// The sample mesh, if the reference data is there: in `$WEFT_SHARED`, or in `../shared` beside the workspace.
/// A test without it says that it is skipped.
pub(crate) fn shop() -> Option<Shop> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os(SHARED).map_or_else(beside, PathBuf::from);
    let shop = shared.join("mesh/shop");
    if shop.is_dir() {
        return Some(Shop(shop));
    }
    println!("SKIP: no sample mesh at {}; set {SHARED}", shop.display());
    None
}
