//! Texts that many resources have in common, such as `default` or a version, each kept once: a large mesh would hold tens
//! of thousands of copies.

use crate::hashed::HashSet;
use std::cell::RefCell;
use std::sync::Arc;

/// The texts of one compile.
#[derive(Default)]
pub(super) struct Texts(RefCell<HashSet<Arc<str>>>);

impl Texts {
    /// `text`, shared with everybody who asked for the same.
    pub(super) fn get(&self, text: &str) -> Arc<str> {
        if text.is_empty() {
            return Arc::default();
        }
        let mut known = self.0.borrow_mut();
        if let Some(known) = known.get(text) {
            return known.clone();
        }
        let text: Arc<str> = text.into();
        known.insert(text.clone());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once() {
        let texts = Texts::default();
        let (one, other) = (texts.get("v1"), texts.get("v2"));
        assert!(Arc::ptr_eq(&one, &texts.get("v1")) && !Arc::ptr_eq(&one, &other));
        assert_eq!([&*one, &*other, &*texts.get("")], ["v1", "v2", ""]);
    }
}
