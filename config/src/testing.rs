//! What several tests share.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

use crate::yaml::typed::{self, Unknown};
use crate::yaml::{Limits, Path, build, documents};

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

/// A value of any type from the first document of a text.
///
/// # Errors
///
/// What is wrong with it, as text.
pub(crate) fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    read_yaml(text, Unknown::Ignored)
}

/// As [`from_yaml`], with a say about fields that the type does not have.
pub(crate) fn read_yaml<T: DeserializeOwned>(text: &str, unknown: Unknown) -> Result<T, String> {
    let document = documents(text).next().ok_or("the text holds nothing")?;
    let built = build(&document, &Limits::DEFAULT).map_err(|broken| broken.problem.what)?;
    let root = built.root.ok_or("the document holds nothing")?;
    let mut problems = built.problems;
    let value = typed::read(&root, &Path::Root, unknown, &mut problems);
    value.filter(|_| problems.is_empty()).ok_or_else(|| format!("{problems:?}"))
}
