//! The environment of this process, which libraries read whenever they like.

use std::ffi::OsStr;

/// Sets a variable, unless it is set; only where nobody can be reading the environment meanwhile, which
/// is while this process has no other thread. Returns whether the variable is set now.
pub(crate) fn set_early(name: &str, value: &str) -> bool {
    if std::env::var_os(name).is_some_and(|value| value != OsStr::new("")) {
        return true;
    }
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return false };
    if threads.count() != 1 {
        return false;
    }
    #[expect(unsafe_code, reason = "see below")]
    // SAFETY: the thread that is here is the only one, and starts no other meanwhile.
    unsafe {
        std::env::set_var(name, value);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_set_beside_another_thread() {
        const NAME: &str = "OP_DBUS_TEST_OF_THE_ENVIRONMENT";
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || receiver.recv());
            assert!(!set_early(NAME, "1"));
            drop(sender);
        });
        assert_eq!(std::env::var_os(NAME), None);
        assert!(set_early("PATH", "1"), "it is set");
        assert_ne!(std::env::var_os("PATH").unwrap(), "1");
    }
}
