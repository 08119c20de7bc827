//! Maps and sets by hash, as a compile uses them: with a hash that is made for speed. Its seed differs from process to process,
//! and nobody who writes the objects sees how long a compile takes with which names.

use foldhash::fast::RandomState;

/// Values by key.
pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// Keys.
pub(crate) type HashSet<K> = std::collections::HashSet<K, RandomState>;

/// An empty map with room for so many.
pub(crate) fn map<K, V>(count: usize) -> HashMap<K, V> {
    HashMap::with_capacity_and_hasher(count, RandomState::default())
}

/// An empty set with room for so many.
pub(crate) fn set<K>(count: usize) -> HashSet<K> {
    HashSet::with_capacity_and_hasher(count, RandomState::default())
}
