//! Labels of objects, kept small: a mesh has tens of thousands of objects with two or three labels each, and a map of
//! the standard library takes half a kilobyte for one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

/// The labels of an object, or those that a selector asks for, by key. What says the same in many objects may be shared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The labels of `map`; `text` gives the string to keep for a key or value, which may be shared.
    pub(crate) fn new(map: &BTreeMap<String, String>, mut text: impl FnMut(&str) -> Arc<str>) -> Labels {
        Labels(map.iter().map(|(key, value)| (text(key), text(value))).collect())
    }

    /// The value of a label.
    pub fn get(&self, label: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(key, _)| (**key).cmp(label)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same as a map of its own.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

impl From<&BTreeMap<String, String>> for Labels {
    fn from(map: &BTreeMap<String, String>) -> Labels {
        Labels::new(map, |text| text.into())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
        BTreeMap::deserialize(deserializer).map(|map| Labels::from(&map))
    }
}

/// Labels that can be asked for, however they are kept.
pub(crate) trait LabelSet {
    /// The value of a label.
    fn value(&self, label: &str) -> Option<&str>;
}

impl LabelSet for Labels {
    fn value(&self, label: &str) -> Option<&str> {
        self.get(label)
    }
}

impl LabelSet for BTreeMap<String, String> {
    fn value(&self, label: &str) -> Option<&str> {
        self.get(label).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_by_key() {
        let map: BTreeMap<String, String> =
            [("version", "v1"), ("app", "web"), ("", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let labels = Labels::from(&map);
        let found = ["app", "version", "", "ap", "web", "z"].map(|key| labels.get(key));
        assert_eq!(found, [Some("web"), Some("v1"), Some(""), None, None, None]);
        assert_eq!(labels.to_map(), map);
        assert!(!labels.is_empty() && Labels::default().is_empty());
    }
}
