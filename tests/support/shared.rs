//! Reference data that is not part of the project: a sample mesh, recorded streams.

use std::path::PathBuf;

use crate::skip::skip;

/// Environment variable that names the directory of reference data.
const SHARED: &str = "WEFT_SHARED";

/// The directory of the sample mesh, if it is there: in `$WEFT_SHARED`, or in `../shared` beside the workspace. `test`
/// is recorded as skipped when it is not.
pub fn shop(test: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shop = std::env::var_os(SHARED).map_or_else(beside, PathBuf::from).join("mesh/shop");
    if shop.is_dir() {
        return Some(shop);
    }
    skip(test, &format!("no sample mesh at {}; set {SHARED}", shop.display()));
    None
}
