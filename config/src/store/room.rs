//! How much memory objects take together: what files claim, and the last good versions of what they claim in vain.
//!
//! Never more than `objects_bytes_total_max`. The last good versions stay, so that it is what a text brings that finds no
//! room: what is read is bounded by what other files leave, and as what the text spoils goes on to hold beside what it
//! brings, the last that it brings is refused then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Claim, Record, Standing, Store, Trouble};
use crate::finding::{Finding, Severity, Untold, code};
use crate::origin::ObjectRef;
use crate::yaml::{Guard, bytes_refused, past_total};

impl Record {
    /// The first one counts.
    pub(super) fn sort(&mut self) {
        self.claims.sort_by(|a, b| a.order().cmp(&b.order()));
    }

    /// Bytes of what holds though nothing claims it, while the claims are in order.
    pub(super) fn bytes_kept(&self) -> usize {
        let is_claimed = match self.claims.first() {
            // It holds, or will.
            Some(first) if first.value.is_some() => true,
            _ => self.claims.iter().any(|claim| self.holds(claim)),
        };
        self.serving.as_ref().filter(|_| !is_claimed).map_or(0, |held| held.bytes)
    }

    fn holds(&self, claim: &Claim) -> bool {
        claim.value.is_some() && claim.value.as_ref() == self.serving.as_ref().map(|held| &held.value)
    }
}

impl Claim {
    /// Bytes of memory that what there is to say about it takes, and that it is refused.
    pub(super) fn told(&self) -> usize {
        self.trouble.as_ref().map_or(0, |trouble| bytes_refused(&trouble.findings))
    }

    /// Refuses it for want of room.
    fn refuse(&mut self, object: &ObjectRef, total: usize, guard: Option<Guard>) {
        let place = self.place();
        let (what, remedy) = past_total(total);
        let finding = Finding {
            place: Some(place.clone()),
            severity: Severity::Error,
            code: code::LIMIT_EXCEEDED,
            object: Some(object.clone()),
            path: String::new(),
            what,
            remedy,
        };
        (self.value, self.bytes) = (None, 0);
        self.trouble = Some(Box::new(Trouble { line: place.line, findings: [finding].into(), guard }));
    }
}

impl Store {
    /// Whether of `object` something holds that is to be kept for a claim which was there `before`.
    pub(super) fn holds_last(
        &self,
        object: &Arc<ObjectRef>,
        before: &BTreeMap<Arc<ObjectRef>, Vec<Claim>>,
    ) -> bool {
        let is_held = || self.records.get(object).is_some_and(|record| record.serving.is_some());
        before.contains_key(object) && is_held()
    }

    /// Takes from a claim what there is no room to tell. Whether it is to be kept: one that is refused is for the sake of what
    /// holds in its place, or of what it guards.
    pub(super) fn tell(
        &self,
        object: &ObjectRef,
        claim: &mut Claim,
        holds: bool,
        untold: &mut Untold,
    ) -> bool {
        if self.told + claim.told() <= self.limits.findings_bytes_total_max {
            return true;
        }
        let place = claim.place();
        let Some(trouble) = &mut claim.trouble else { return true };
        // Of those that are empty it is known already.
        untold.add(&std::mem::take(&mut trouble.findings), Some(object), Some(&place));
        let is_kept = holds || trouble.guard.is_some() || claim.value.is_some();
        if claim.value.is_some() {
            claim.trouble = None;
        }
        is_kept
    }

    /// How many errors are not told, for want of room.
    pub fn untold(&self) -> usize {
        self.files.values().map(|file| file.untold).sum()
    }

    /// How often a limit was met without that being told, for want of room, by its name.
    pub fn untold_limits(&self) -> BTreeMap<&'static str, usize> {
        let mut limits = BTreeMap::new();
        for (limit, count) in self.files.values().flat_map(|file| &file.untold_limits) {
            *limits.entry(*limit).or_default() += count;
        }
        limits
    }

    /// Bytes of memory that the objects of `file` may take beside those of all other files. Its own count as if its text
    /// replaced them all; [`Store::make_room`] sees to those that it does not.
    pub(super) fn room_for(&self, file: &str) -> usize {
        let objects = self.files.get(file).map(|file| &*file.objects);
        let records = objects.into_iter().flatten().filter_map(|object| self.records.get(object));
        let own = records.map(|record| {
            let claims = record.claims.iter().filter(|claim| &*claim.file == file);
            record.kept + claims.map(|claim| claim.bytes).sum::<usize>()
        });
        self.limits.objects_bytes_total_max.saturating_sub(self.bytes - own.sum::<usize>())
    }

    /// Refuses what the text of `file` has brought, the last first, until there is room for what goes on to hold because the
    /// text spoils it. `guards` are what its objects guard, by their numbers. To be called before anything of it is elected.
    pub(super) fn make_room(
        &mut self,
        file: &Arc<str>,
        touched: &BTreeSet<Arc<ObjectRef>>,
        guards: &mut BTreeMap<u32, Guard>,
        untold: &mut Untold,
    ) {
        let max = self.limits.objects_bytes_total_max;
        let (mut kept, mut kept_before, mut brought) = (0, 0, Vec::new());
        for object in touched {
            let Some(record) = self.records.get_mut(object) else { continue };
            record.sort();
            kept += record.bytes_kept();
            kept_before += record.kept;
            brought.extend(record.claims.iter().filter_map(|claim| {
                let is_new = claim.standing == Standing::Written && claim.revision == self.revision;
                (claim.file == *file && is_new && claim.value.is_some())
                    .then(|| (claim.number, object.clone()))
            }));
        }
        brought.sort();
        while let Some((number, object)) = brought.pop()
            && self.bytes + kept - kept_before > max
        {
            let Some(record) = self.records.get_mut(&object) else { continue };
            let before = record.bytes_kept();
            let held = record.serving.as_ref().map_or(0, |held| held.bytes);
            let mut claims = record.claims.iter_mut();
            let Some(claim) = claims.find(|claim| claim.file == *file && claim.number == number) else {
                continue;
            };
            // What takes less than what would hold in its place makes room itself.
            if claim.bytes <= held {
                continue;
            }
            self.bytes -= claim.bytes;
            self.told -= claim.told();
            claim.refuse(&object, max, guards.remove(&number));
            if self.told + claim.told() > self.limits.findings_bytes_total_max {
                let place = claim.place();
                let findings = claim.trouble.as_mut().map(|trouble| std::mem::take(&mut trouble.findings));
                untold.add(&findings.unwrap_or_default(), Some(&object), Some(&place));
            }
            self.told += claim.told();
            kept = kept + record.bytes_kept() - before;
        }
    }
}

/// Bytes of memory that claims take.
pub(super) fn bytes_of(claims: &[Claim]) -> usize {
    claims.iter().map(|claim| claim.bytes).sum()
}

/// Bytes of memory that what there is to say about them takes.
pub(super) fn told_of(claims: &[Claim]) -> usize {
    claims.iter().map(Claim::told).sum()
}
