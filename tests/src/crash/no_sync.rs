//! The planted bug: a process whose syncs do nothing.
//!
//! A seccomp filter answers the system calls with success and does not run them, whichever
//! library makes them. Threads and processes inherit it, and nobody can take it off again.

use std::io;

/// The system calls that make written data durable.
const SYNCS: [libc::c_long; 6] = [
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_msync,
    libc::SYS_syncfs,
    libc::SYS_sync,
];

/// Calls `start` on a thread where syncs do nothing; processes started there are so too.
///
/// # Panics
/// If the kernel has no seccomp filters, or this user may not set them.
pub fn without_sync<T: Send>(start: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let planted = scope.spawn(|| {
            plant().expect("root may set a seccomp filter");
            start()
        });
        planted.join().expect("the planted thread does not panic")
    })
}

/// Sets the filter for this thread and all that descends from it.
#[expect(unsafe_code, reason = "seccomp filters have no safe interface")]
fn plant() -> io::Result<()> {
    let mut program = program();
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("the program is short"),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `filter` is what this call takes, its length is that of `program`, and both live
    // until it returns; the kernel checks the program and copies it.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Loads the system call's number, and if it is one of [`SYNCS`] answers 0 in its place.
fn program() -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    const NUMBER_OFFSET_BYTES: u32 = 0;
    /// `SECCOMP_RET_ERRNO` with the error 0 in its low bits: the caller sees success.
    const SUCCEED: u32 = libc::SECCOMP_RET_ERRNO;
    let instruction = |code: u32, jump_if_true, k| libc::sock_filter {
        code: u16::try_from(code).expect("codes have 16 bits"),
        jt: jump_if_true,
        jf: 0,
        k,
    };
    let mut program = vec![instruction(LOAD, 0, NUMBER_OFFSET_BYTES)];
    for (index, number) in SYNCS.iter().enumerate() {
        // Past the comparisons that are left and the instruction that allows.
        let to_success = u8::try_from(SYNCS.len() - index).expect("there are few");
        let number = u32::try_from(*number).expect("numbers are small");
        program.push(instruction(JUMP_IF_EQUAL, to_success, number));
    }
    program.push(instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    program.push(instruction(RETURN, 0, SUCCEED));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    /// Syncing a pipe fails, unless nobody tries.
    #[test]
    fn syncs_do_nothing_where_planted_and_only_there() {
        let (reader, _writer) = io::pipe().expect("a pipe can be made");
        let pipe = File::from(reader.as_fd().try_clone_to_owned().expect("it can be duplicated"));
        assert!(pipe.sync_all().is_err());
        if !is_allowed() {
            crate::crash::campaign::skip("no_sync", &"only root may set a seccomp filter here");
            return;
        }
        without_sync(|| {
            pipe.sync_all().expect("fsync is not run");
            pipe.sync_data().expect("fdatasync is not run");
        });
        assert!(pipe.sync_data().is_err());
    }

    /// Tries on a thread that ends at once.
    fn is_allowed() -> bool {
        std::thread::spawn(plant).join().expect("trying does not panic").is_ok()
    }
}
