//! Which vectors may be in an answer.

use super::twins::Twins;

/// A set of vectors, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VertexSet {
    words: Vec<u64>,
    len: usize,
}

impl VertexSet {
    /// Without any.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one; says whether it is new.
    pub fn insert(&mut self, id: u32) -> bool {
        let (word, bit) = (id as usize / 64, 1 << (id % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += usize::from(is_new);
        is_new
    }

    /// Puts one out; says whether it was in it.
    pub fn remove(&mut self, id: u32) -> bool {
        let was_in = self.contains(id);
        if was_in {
            self.words[id as usize / 64] &= !(1 << (id % 64));
            self.len -= 1;
        }
        was_in
    }

    /// Whether it is in it.
    #[inline]
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.words.get(id as usize / 64).is_some_and(|word| word & 1 << (id % 64) != 0)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.words).flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(index * 64 + bit)
            })
        })
    }
}

impl FromIterator<u32> for VertexSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut set = Self::new();
        ids.into_iter().for_each(|id| _ = set.insert(id));
        set
    }
}

/// What an answer may hold.
#[derive(Clone, Copy)]
pub enum GraphFilter<'a> {
    /// Everything.
    All,
    /// These.
    Among(&'a VertexSet),
    /// Those of which it says yes. It is asked often.
    Where(&'a dyn Fn(u32) -> bool),
}

impl GraphFilter<'_> {
    #[inline]
    pub(super) fn passes(&self, id: u32) -> bool {
        match self {
            Self::All => true,
            Self::Among(set) => set.contains(id),
            Self::Where(passes) => passes(id),
        }
    }

    pub(super) fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }
}

/// What a traversal counts as found: with a filter, what passes and was not removed. Without one
/// everything is, and those that were removed are left out of the answer alone.
#[derive(Clone, Copy)]
pub(super) struct Findable<'a> {
    pub(super) filter: GraphFilter<'a>,
    pub(super) removed: &'a VertexSet,
    pub(super) twins: &'a Twins,
}

impl Findable<'_> {
    /// Whether a vertex is, or one of its twins.
    #[inline]
    pub(super) fn has(&self, id: u32) -> bool {
        let passes = self.filter.passes(id) && !self.removed.contains(id);
        passes || self.twins.of(id).iter().any(|twin| self.filter.passes(*twin))
    }

    pub(super) fn is_all(&self) -> bool {
        self.filter.is_all()
    }
}

impl std::fmt::Debug for GraphFilter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("All"),
            Self::Among(set) => write!(f, "Among({})", set.len()),
            Self::Where(_) => f.write_str("Where"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let ids = [0, 63, 64, 1000, 7, 64];
        let set: VertexSet = ids.into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 7, 63, 64, 1000]);
        assert_eq!((set.len(), set.is_empty()), (5, false));
        assert!(set.contains(1000) && !set.contains(1001) && !set.contains(u32::MAX));
        assert!(VertexSet::new().iter().next().is_none());
        let mut less = set.clone();
        assert!(less.remove(64) && !less.remove(64) && !less.remove(u32::MAX));
        assert_eq!((less.len(), less.contains(64), less.contains(63)), (4, false, true));
    }
}
