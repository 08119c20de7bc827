//! How a decision tells its reasons.
//!
//! Decision functions take a `&mut impl Trace`. Traffic passes [`NoTrace`], which costs nothing; explanations and
//! tests pass something that remembers. So there is one implementation of every decision.

use super::filter_chain::Field;

/// Why a rule does not apply to a request: the first condition that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// The path.
    Path,
    /// The header matcher with this index.
    Header(usize),
    /// The query parameter matcher with this index.
    QueryParameter(usize),
    /// CONNECT, which only a rule made for it may take.
    Connect,
}

/// Is told the steps of a decision as they are made.
pub(crate) trait Trace {
    /// The virtual host with this index was chosen, because of this domain.
    fn virtual_host(&mut self, index: usize, domain: &str) {
        let _ = (index, domain);
    }

    /// No virtual host has the request's host.
    fn no_virtual_host(&mut self) {}

    /// The rule with this index of the chosen virtual host does not apply.
    fn rule_mismatch(&mut self, index: usize, why: Mismatch) {
        let _ = (index, why);
    }

    /// This priority of the cluster was drawn; in panic all its endpoints are used, healthy or not.
    fn priority_drawn(&mut self, index: usize, in_panic: bool) {
        let _ = (index, in_panic);
    }

    /// This endpoint of the cluster was drawn; a retry may draw again.
    fn endpoint_drawn(&mut self, index: usize) {
        let _ = index;
    }

    /// This locality of the priority, of those that are weighed, has its turn.
    fn locality_drawn(&mut self, index: usize) {
        let _ = index;
    }

    /// These two endpoints of the cluster were drawn, and the one with fewer requests in flight is taken.
    fn least_request(&mut self, first: usize, second: usize) {
        let _ = (first, second);
    }

    /// The filter chain with this index was left behind for what it wants in this field.
    fn chain_mismatch(&mut self, index: usize, why: Field) {
        let _ = (index, why);
    }

    /// The filter chain with this index serves the connection.
    fn chain_match(&mut self, index: usize) {
        let _ = index;
    }

    /// The rule with this index applies.
    fn rule_match(&mut self, index: usize) {
        let _ = index;
    }
}

/// Remembers nothing.
pub(crate) struct NoTrace;

impl Trace for NoTrace {}
