//! The part of a scrub that reads the journal: every entry against its hash and the one before.

use std::ops::ControlFlow;

use super::{RESTORE, Scrub};
use crate::error::Result;

/// Entries read in one step.
const STEP_COUNT: u64 = 1000;

impl Scrub<'_> {
    /// The cursor is the number of the last entry that was read, which the next is compared with.
    pub(super) fn journal(&mut self) -> Result<ControlFlow<()>> {
        let mut last = self.progress.cursor.as_slice().try_into().map_or(0, u64::from_be_bytes);
        loop {
            let before = last;
            let mut bytes = 0;
            let read = self.store.state.read_journal(before, |entry, _| {
                last = entry.number;
                bytes += (entry.action.len() + entry.details.len()) as u64;
                last < before + STEP_COUNT
            });
            if let Err(error) = read {
                // What follows a broken entry is chained to nothing that could be trusted.
                let fault = self.state_fault(error.chain(), RESTORE);
                self.fault(fault);
                return Ok(self.read(bytes));
            }
            self.progress.cursor = last.to_be_bytes().to_vec();
            let flow = self.read(bytes);
            if flow.is_break() || last < before + STEP_COUNT {
                return Ok(flow);
            }
        }
    }
}
