//! Work on many items at once: the one place where threads are started for it, and so the one that
//! says where they run.

use std::num::NonZero;

/// Does work on items on several threads, and returns what came out in their order. Each thread has
/// memory of its own, to be used again.
pub(crate) fn in_parts<I: Sync, M: Default, T: Send>(
    items: &[I],
    threads: NonZero<usize>,
    work: impl Fn(&I, &mut M) -> T + Sync,
) -> Vec<T> {
    in_parts_on(items, threads, |_| (), work)
}

/// The same; `settle` is called by each thread before it begins, with its number, and what it returns
/// is dropped in the end. The calling thread is the first of them.
pub(crate) fn in_parts_on<I: Sync, M: Default, T: Send, S>(
    items: &[I],
    threads: NonZero<usize>,
    settle: impl Fn(usize) -> S + Sync,
    work: impl Fn(&I, &mut M) -> T + Sync,
) -> Vec<T> {
    let each = |thread: usize, items: &[I]| {
        let _settled = settle(thread);
        let mut memory = M::default();
        items.iter().map(|item| work(item, &mut memory)).collect::<Vec<T>>()
    };
    let mut parts = items.chunks(items.len().div_ceil(threads.get()).max(1));
    let Some(first) = parts.next() else { return Vec::new() };
    std::thread::scope(|scope| {
        let each = &each;
        let others = parts.zip(1..).map(|(part, thread)| scope.spawn(move || each(thread, part)));
        let others: Vec<_> = others.collect();
        let mut done = each(0, first);
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    })
}
