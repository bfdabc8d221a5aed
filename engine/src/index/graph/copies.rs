//! Copies of rows, one on each NUMA node but the first: searches read the nearest.
//!
//! Rows are changed in one place. What was changed is noted, and until it was copied as well, all
//! searches read there.

use std::ops::Range;
use std::sync::Arc;

use super::storage::zeros;
use crate::arena::Placement;
use crate::error::Result;
use crate::os::memory::GrowingBytes;

/// More changes than that are not noted one by one.
const CHANGED_MAX: usize = 1 << 18;

/// Copies beside the rows themselves.
pub(super) struct Copies {
    placement: Arc<Placement>,
    others: Vec<GrowingBytes>,
    /// Rows that were changed since.
    changed: Vec<u32>,
    /// There was no memory for them.
    is_given_up: bool,
}

impl Copies {
    /// None yet.
    pub(super) fn new(placement: Arc<Placement>) -> Self {
        Self { placement, others: Vec::new(), changed: Vec::new(), is_given_up: false }
    }

    pub(super) fn placement(&self) -> &Arc<Placement> {
        &self.placement
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.others.len()
    }

    /// Where they lie, of so many bytes each.
    pub(super) fn addresses(&self, len_bytes: usize) -> impl Iterator<Item = Range<usize>> {
        let start = |copy: &GrowingBytes| copy.reservation().addresses().start;
        self.others.iter().map(start).map(move |start| start..start + len_bytes)
    }

    /// A row is being changed.
    #[inline]
    pub(super) fn note(&mut self, id: u32) {
        if self.others.is_empty() || self.changed.last() == Some(&id) {
            return;
        }
        self.changed.push(id);
        if self.changed.len() > CHANGED_MAX {
            // To copy everything again costs no more.
            self.others.clear();
            self.changed.clear();
        }
    }

    /// The copy that is nearest to the CPU that this thread is on; none if that is the rows
    /// themselves.
    #[inline]
    pub(super) fn nearest(&self) -> Option<&[u8]> {
        if self.others.is_empty() || !self.changed.is_empty() {
            return None;
        }
        let copy = self.placement.nearest_copy().checked_sub(1)?;
        self.others.get(copy).map(|copy| &**copy)
    }

    /// Copies what was changed, or everything at first.
    pub(super) fn renew(&mut self, rows: &[u8], stride_bytes: usize) {
        let others_count = self.placement.copies_count() - 1;
        if others_count == 0 || self.is_given_up {
            return;
        }
        let renewed = match self.others.is_empty() {
            true => self.copy_all(rows, others_count),
            false => self.copy_changed(rows, stride_bytes),
        };
        if let Err(error) = renewed {
            tracing::warn!(%error, "a graph has no copies; searches read it on one node");
            self.others.clear();
            self.is_given_up = true;
        }
        self.changed.clear();
    }

    fn copy_all(&mut self, rows: &[u8], others_count: usize) -> Result<()> {
        for copy in 1..=others_count {
            let mut bytes = zeros(rows.len(), (&self.placement, copy))?;
            bytes[..rows.len()].copy_from_slice(rows);
            self.others.push(bytes);
        }
        Ok(())
    }

    fn copy_changed(&mut self, rows: &[u8], stride_bytes: usize) -> Result<()> {
        for copy in &mut self.others {
            copy.grow_to(rows.len())?;
            for id in &self.changed {
                let row = *id as usize * stride_bytes..(*id as usize + 1) * stride_bytes;
                copy[row.clone()].copy_from_slice(&rows[row]);
            }
        }
        Ok(())
    }
}
