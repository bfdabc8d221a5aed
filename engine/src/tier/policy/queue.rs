//! A queue of slots from which any slot can be taken out.
//!
//! A doubly linked list whose links lie in one array, by slot: nothing is allocated for an
//! operation, and a slot that is taken out leaves nothing behind that could meet its next life.

const NONE: u32 = u32::MAX;

/// Links of a slot: to who came after it, and before it.
#[derive(Clone, Copy, Debug)]
struct Link {
    newer: u32,
    older: u32,
}

/// Slots in the order in which they came.
#[derive(Debug)]
pub(super) struct Queue {
    links: Vec<Option<Link>>,
    newest: u32,
    oldest: u32,
    len: u32,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { links: Vec::new(), newest: NONE, oldest: NONE, len: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        (self.len > 0).then_some(self.oldest)
    }

    pub(super) fn contains(&self, slot: u32) -> bool {
        self.links.get(slot as usize).is_some_and(Option::is_some)
    }

    /// Puts a slot at the end; one that is in the queue moves there.
    pub(super) fn push(&mut self, slot: u32) {
        self.remove(slot);
        let index = slot as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, None);
        }
        let older = self.newest;
        self.links[index] = Some(Link { newer: NONE, older });
        match self.link(older) {
            Some(link) => link.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
        self.len += 1;
    }

    /// Takes a slot out; says whether it was in the queue.
    pub(super) fn remove(&mut self, slot: u32) -> bool {
        let Some(link) = self.links.get_mut(slot as usize).and_then(Option::take) else {
            return false;
        };
        match self.link(link.newer) {
            Some(newer) => newer.older = link.older,
            None => self.newest = link.older,
        }
        match self.link(link.older) {
            Some(older) => older.newer = link.newer,
            None => self.oldest = link.newer,
        }
        self.len -= 1;
        true
    }

    fn link(&mut self, slot: u32) -> Option<&mut Link> {
        self.links.get_mut(slot as usize)?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue) -> Vec<u32> {
        std::iter::from_fn(|| queue.oldest().inspect(|&slot| assert!(queue.remove(slot)))).collect()
    }

    #[test]
    fn slots_leave_in_the_order_in_which_they_came() {
        let mut queue = Queue::new();
        for slot in [5, 0, 9, 3, 7] {
            queue.push(slot);
        }
        assert!(queue.remove(9) && !queue.remove(9) && !queue.remove(1000));
        queue.push(0);
        assert_eq!((queue.len(), queue.contains(9), queue.contains(7)), (4, false, true));
        assert_eq!(drain(&mut queue), [5, 3, 7, 0]);
        assert_eq!((queue.len(), queue.oldest()), (0, None));
        queue.push(9);
        assert_eq!(drain(&mut queue), [9]);
    }
}
