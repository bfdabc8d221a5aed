//! Memory barriers on other processors, so that frequent readers need none of their own.
//!
//! `membarrier(2)` makes every thread of the process pass a full barrier before it returns. With
//! it, the rare side of a protocol between two pays for both.

use std::sync::OnceLock;

use rustix::thread::{MembarrierCommand, membarrier};

/// Whether [`of_all_threads`] works here. Older kernels and some sandboxes refuse it.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
            // A trial too: a sandbox may let a process register and then refuse it.
            && membarrier(MembarrierCommand::PrivateExpedited).is_ok()
    })
}

/// Makes every running thread of this process pass a full barrier; says whether it did.
pub(crate) fn of_all_threads() -> bool {
    is_available() && membarrier(MembarrierCommand::PrivateExpedited).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_works_more_than_once() {
        assert_eq!(of_all_threads(), is_available());
        assert_eq!(of_all_threads(), is_available());
    }
}
