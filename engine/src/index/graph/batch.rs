//! Some items of one expansion, chosen without branches: which are chosen is as good as random, and
//! a processor that guesses wrong loses more time than it takes to look at one.

use op_dbus_formats::graph_file::DEGREE_MAX;

/// As many items as a vertex has neighbours at most.
#[derive(Clone, Copy)]
pub(super) struct Batch<T> {
    items: [T; DEGREE_MAX as usize],
    len: usize,
}

impl<T: Copy + Default> Default for Batch<T> {
    fn default() -> Self {
        Self { items: [T::default(); DEGREE_MAX as usize], len: 0 }
    }
}

/// The slots of a block whose bits are set.
#[inline(always)]
pub(super) fn slots(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let slot = (bits != 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        slot
    })
}

impl<T: Copy> Batch<T> {
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Takes those items that are wanted.
    ///
    /// # Panics
    /// If there are more than fit.
    #[inline(always)]
    pub(super) fn extend_if(&mut self, items: impl Iterator<Item = (T, bool)>) {
        // A variable of its own stays in a register.
        let mut len = self.len;
        for (item, is_wanted) in items {
            self.items[len] = item;
            len += usize::from(is_wanted);
        }
        self.len = len;
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline(always)]
    pub(super) fn items(&self) -> &[T] {
        &self.items[..self.len]
    }

    #[inline(always)]
    pub(super) fn items_mut(&mut self) -> &mut [T] {
        &mut self.items[..self.len]
    }
}
