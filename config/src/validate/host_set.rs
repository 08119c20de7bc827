//! Hosts and wildcards, asked which of them have names in common with another: in time that does not grow with their
//! number, because files decide how many there are.

use std::collections::BTreeSet;
use std::ops::Bound;

/// A set of hosts, some of which may begin with `*`, which stands for any beginning.
#[derive(Debug, Default)]
pub(crate) struct HostSet {
    /// Names, backwards, so that those with one ending are side by side.
    names: BTreeSet<String>,
    /// What follows the `*` of wildcards, backwards. None is the beginning of another: what a wider one stands for is
    /// in it.
    endings: BTreeSet<String>,
}

impl HostSet {
    /// Adds `host`.
    pub(crate) fn insert(&mut self, host: &str) {
        let Some(ending) = host.strip_prefix('*') else {
            self.names.insert(backwards(host));
            return;
        };
        let ending = backwards(ending);
        if self.ending_of(&ending).is_some() {
            return;
        }
        while let Some(narrower) = first_within(&self.endings, &ending).map(str::to_owned) {
            self.endings.remove(&narrower);
        }
        self.endings.insert(ending);
    }

    /// A host of the set that stands for every name that `host` stands for.
    pub(crate) fn covering(&self, host: &str) -> Option<String> {
        let (is_name, text) = match host.strip_prefix('*') {
            Some(ending) => (false, backwards(ending)),
            None => (true, backwards(host)),
        };
        if is_name && self.names.contains(&text) {
            return Some(host.to_owned());
        }
        self.ending_of(&text).map(wildcard)
    }

    /// A host of the set that has a name in common with `host`.
    pub(crate) fn overlapping(&self, host: &str) -> Option<String> {
        self.covering(host).or_else(|| {
            let ending = backwards(host.strip_prefix('*')?);
            let name = first_within(&self.names, &ending).map(backwards);
            name.or_else(|| first_within(&self.endings, &ending).map(wildcard))
        })
    }

    /// The ending that `text` has. No other ending is between it and `text`, as each of those would begin with it.
    fn ending_of(&self, text: &str) -> Option<&str> {
        let before = self.endings.range::<str, _>((Bound::Unbounded, Bound::Included(text))).next_back()?;
        text.starts_with(before.as_str()).then_some(before.as_str())
    }
}

/// The first text that begins with `beginning`.
fn first_within<'s>(texts: &'s BTreeSet<String>, beginning: &str) -> Option<&'s str> {
    let next = texts.range::<str, _>((Bound::Included(beginning), Bound::Unbounded)).next()?;
    next.starts_with(beginning).then_some(next.as_str())
}

fn wildcard(ending: &str) -> String {
    format!("*{}", backwards(ending))
}

fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::names::is_subset;

    /// Whether some name is one that both stand for.
    fn overlap(a: &str, b: &str) -> bool {
        is_subset(a, b) || is_subset(b, a)
    }

    /// It answers as comparing with each one does.
    #[test]
    fn it_answers_as_comparing_each_with_each() {
        let hosts =
            ["a.b", "*.b", "x.a.b", "*.a.b", "*", "c", "*c", "*.c", "b", "a.c", "xa.b", "*a.b", "", "ä.b"];
        // All sets of up to three of them, in each order.
        for one in hosts {
            for two in hosts {
                for three in hosts {
                    let mut set = HostSet::default();
                    let all = [one, two, three];
                    all.iter().for_each(|host| set.insert(host));
                    for asked in hosts {
                        let covered = all.iter().any(|host| is_subset(asked, host));
                        assert_eq!(set.covering(asked).is_some(), covered, "{asked} in {all:?}");
                        let found = set.overlapping(asked);
                        assert_eq!(
                            found.is_some(),
                            all.iter().any(|host| overlap(host, asked)),
                            "{asked} and {all:?}"
                        );
                        assert!(
                            found.iter().all(|found| all.contains(&found.as_str()) && overlap(found, asked))
                        );
                    }
                }
            }
        }
    }
}
