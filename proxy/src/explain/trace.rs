//! A trace that remembers.

use crate::snapshot::{Field, Mismatch, Trace};

/// The steps of a decision, as they were made.
#[derive(Debug, Default)]
pub(super) struct Remembers {
    /// The virtual host, and the domain by which it was chosen.
    pub(super) virtual_host: Option<(usize, String)>,
    /// Rules that do not apply, and why; `None` for what was recorded, where that may be what is not.
    pub(super) mismatches: Vec<(usize, Option<Mismatch>)>,
    /// Whether the path was too long to be recorded whole.
    pub(super) path_is_cut: bool,
    /// Chains that were left behind, and for which field.
    pub(super) chains: Vec<(usize, Field)>,
    /// The priority that was drawn last, and whether it is in panic.
    pub(super) priority: Option<(usize, bool)>,
    /// The weighed locality of it that had its turn.
    pub(super) locality: Option<usize>,
    /// The two endpoints whose requests in flight were compared.
    pub(super) compared: Option<(usize, usize)>,
}

impl Trace for Remembers {
    fn virtual_host(&mut self, index: usize, domain: &str) {
        self.virtual_host = Some((index, domain.to_owned()));
    }

    fn rule_mismatch(&mut self, index: usize, why: Mismatch) {
        self.mismatches.push((index, Some(why)));
    }

    fn chain_mismatch(&mut self, index: usize, why: Field) {
        self.chains.push((index, why));
    }

    fn priority_drawn(&mut self, index: usize, in_panic: bool) {
        self.priority = Some((index, in_panic));
    }

    fn locality_drawn(&mut self, index: usize) {
        self.locality = Some(index);
    }

    fn least_request(&mut self, first: usize, second: usize) {
        self.compared = Some((first, second));
    }
}
