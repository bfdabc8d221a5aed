//! Which texts run together.
//!
//! A batch is padded to its longest text, so texts of like length belong together;
//! and its size is limited by tokens, not texts, because tokens are what time and
//! memory are made of.

use super::tokenize::Tokens;

/// Positions, padding included, that a batch may have.
///
/// Measured with all-MiniLM-L6-v2 on 500 package descriptions (17 tokens on average) on
/// a machine that had other work, CPU milliseconds a text in a session of one thread,
/// best of four: 6.2 with 64 positions, 5.7 with 128, 5.4 with 192, 5.6 with 256, 5.8
/// with 512, 6.4 with 1,024. From 128 to 512 is within the noise. A small batch is also
/// what a query has to wait for while texts are indexed.
pub(super) const BUDGET_TOKENS: usize = 256;

/// Texts of one batch: rows of equal length.
#[derive(Debug)]
pub(super) struct Batch<'t> {
    /// Which of the texts, row by row.
    pub(super) texts: &'t [usize],
    /// Tokens in a row.
    pub(super) row_len: usize,
}

/// Returns the indices of `tokens`, shortest first.
pub(super) fn by_length(tokens: &[Tokens]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|&index| tokens[index].ids.len());
    order
}

/// Splits `order`, shortest first, into batches of at most `budget_tokens` positions.
///
/// A text longer than the budget is a batch of its own.
pub(super) fn batches<'t>(
    tokens: &[Tokens],
    order: &'t [usize],
    budget_tokens: usize,
) -> Vec<Batch<'t>> {
    let mut batches = Vec::new();
    let mut rest = order;
    while !rest.is_empty() {
        let fits = |count: &usize| count * tokens[rest[count - 1]].ids.len() <= budget_tokens;
        let count = (1..=rest.len()).take_while(fits).last().unwrap_or(1);
        let (texts, after) = rest.split_at(count);
        batches.push(Batch { texts, row_len: tokens[texts[count - 1]].ids.len() });
        rest = after;
    }
    batches
}

impl Batch<'_> {
    /// Returns the token ids and the mask, row by row.
    ///
    /// Shapes: both are `[texts, row_len]`; rows are filled up with `pad_token_id`,
    /// where the mask is 0.
    pub(super) fn inputs(&self, tokens: &[Tokens], pad_token_id: u32) -> (Vec<i64>, Vec<i64>) {
        let len = self.texts.len() * self.row_len;
        let (mut ids, mut mask) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for (row, &text) in self.texts.iter().enumerate() {
            ids.extend(tokens[text].ids.iter().map(|&id| i64::from(id)));
            mask.resize(ids.len(), 1);
            ids.resize((row + 1) * self.row_len, i64::from(pad_token_id));
            mask.resize(ids.len(), 0);
        }
        (ids, mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lens: &[usize]) -> Vec<Tokens> {
        let tokens = |&len: &usize| Tokens { ids: vec![len as u32; len], truncated: false };
        lens.iter().map(tokens).collect()
    }

    fn split(lens: &[usize], budget_tokens: usize) -> Vec<(Vec<usize>, usize)> {
        let tokens = texts(lens);
        let order = by_length(&tokens);
        let batches = batches(&tokens, &order, budget_tokens);
        batches.iter().map(|batch| (batch.texts.to_vec(), batch.row_len)).collect()
    }

    #[test]
    fn batches_keep_the_budget_and_every_text() {
        assert_eq!(split(&[], 8), []);
        assert_eq!(split(&[4, 2, 2, 3], 8), [(vec![1, 2], 2), (vec![3, 0], 4)]);
        assert_eq!(split(&[2, 2, 2, 2, 2], 8), [(vec![0, 1, 2, 3], 2), (vec![4], 2)]);
        assert_eq!(split(&[9, 1, 20], 8), [(vec![1], 1), (vec![0], 9), (vec![2], 20)]);
    }

    #[test]
    fn rows_are_filled_up_and_masked() {
        let tokens = texts(&[3, 1]);
        let order = by_length(&tokens);
        let batches = batches(&tokens, &order, 100);
        let (ids, mask) = batches[0].inputs(&tokens, 7);
        assert_eq!(ids, [1, 7, 7, 3, 3, 3]);
        assert_eq!(mask, [1, 0, 0, 1, 1, 1]);
    }
}
