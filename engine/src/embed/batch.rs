//! Texts that run together: of about the same length, and no more than there is room for.

use std::collections::BTreeMap;

/// Of a row, the part that may be padding.
const PADDING_PARTS: usize = 4;

/// A text that runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) request: u64,
    pub(super) text: usize,
    pub(super) ids: Vec<u32>,
}

/// Texts that are to run together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) texts: Vec<Running>,
    /// Length of the first, which is the longest: all rows are filled up to it.
    pub(super) row_len: usize,
}

impl Batch {
    pub(super) fn has_room(&self, budget_tokens: usize) -> bool {
        self.texts.is_empty() || (self.texts.len() + 1) * self.row_len <= budget_tokens
    }

    /// The length and place of the longest text waiting that is no longer than the others, and
    /// not so short that too much would be filled up.
    pub(super) fn longest_fitting(
        &self,
        waiting: &BTreeMap<(usize, usize), Vec<u32>>,
    ) -> Option<(usize, usize)> {
        let longest = if self.texts.is_empty() { usize::MAX } else { self.row_len };
        let fitting = waiting.range(..=(longest, usize::MAX)).next_back();
        let &(len, text) = fitting?.0;
        let row_len = self.row_len.max(len);
        ((row_len - len) * PADDING_PARTS <= row_len).then_some((len, text))
    }
}
