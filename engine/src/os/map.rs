//! Read-only maps of files, and what happens when the file under one goes away.
//!
//! A map leaves this module as `&[u8]` and is never written through. Reading a mapped page that the
//! file no longer has (it was truncated), or that the disk does not give, is the signal SIGBUS and
//! no error. The first map installs a handler for it, once for the process. If the address lies in
//! one of our maps, the handler writes a line that names the file to standard error, makes the mark
//! that was agreed on when the file was mapped, so that the next start leaves the file out, and
//! ends the process with [`EXIT_MAP_LOST`]. Any other SIGBUS is what it would have been without us.
//!
//! The handler may interrupt anything, so it only reads atomics and memory that nobody frees under
//! it, and calls only what POSIX calls async-signal-safe.
//!
//! Deliberately lacking: going on after a lost page. Whoever reads holds a slice, and there are no
//! bytes to put into it.

#![expect(unsafe_code, reason = "maps and signal handlers have no safe interface")]

use std::ffi::CString;
use std::fs::File;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use libc::{c_int, c_void, siginfo_t};
use memmap2::{Advice, Mmap, MmapOptions};

use crate::error::{Error, ErrorKind, Result};

/// Exit code of a process that lost a page of a map: the one that `op-dbus` ends with when stored
/// bytes are damaged. It does not change.
pub(crate) const EXIT_MAP_LOST: c_int = 7;

/// Maps that can be there at one time.
const MAPS_MAX: usize = 256;

/// What a map is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapUse {
    /// A little here and there: what lies beside it is not read with it.
    HereAndThere,
    /// All of it sooner or later, in no order: in huge pages where the file system has them, so that
    /// a random access costs no walk through tables of pages.
    Whole,
}

/// A file mapped for reading.
#[derive(Debug)]
pub(crate) struct Map {
    // Before the map, so that the handler forgets the addresses before somebody else gets them.
    _registration: Registration,
    map: Mmap,
}

impl Map {
    /// Maps the first `len_bytes` of a file.
    ///
    /// `path` is what the file is called in messages, and `mark` what is created when it is lost;
    /// none for a file that is not ours.
    pub(crate) fn open(
        file: &File,
        path: &Path,
        mark: Option<&Path>,
        len_bytes: usize,
        used: MapUse,
    ) -> Result<Self> {
        install_handler().map_err(|error| Error::io("watch over the map of", path, error))?;
        let len_file = file.metadata().map_err(|error| Error::io("map", path, error))?.len();
        if len_bytes == 0 || len_file < len_bytes as u64 {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{} has {len_file} bytes, {len_bytes} were to be mapped", path.display()),
            ));
        }
        // SAFETY: the bytes must not change while they are borrowed. The map is private and for
        // reading, and the file is one that this store wrote once, in a directory that only its
        // owner may enter; opening a store asks that nobody else writes there. A file that becomes
        // shorter does not change bytes: see the handler.
        let map = unsafe { MmapOptions::new().len(len_bytes).map(file) }
            .map_err(|error| Error::io("map", path, error))?;
        let advice = match used {
            MapUse::HereAndThere => Advice::Random,
            MapUse::Whole => Advice::HugePage,
        };
        // Slower without, not wrong.
        if let Err(error) = map.advise(advice) {
            tracing::debug!(path = %path.display(), %error, "cannot advise the kernel on a map");
        }
        let registration = Registration::new(&map, path, mark)?;
        Ok(Self { _registration: registration, map })
    }

    /// The bytes of the file. The first is aligned to a page of the system.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Lets the kernel bring in all of these bytes at once, which is a tenth of what it costs when they
    /// are brought in by reading them, some pages each time.
    pub(crate) fn populate(&self, range: Range<usize>) {
        // Slower without, not wrong: kernels before 5.14 cannot, and what the file has lost is found by
        // reading it.
        _ = self.map.advise_range(Advice::PopulateRead, range.start, range.len());
    }
}

/// What the handler knows of one map. It never changes once it is in [`MAPS`].
struct Watched {
    start: usize,
    end: usize,
    message: Vec<u8>,
    mark: Option<CString>,
}

static MAPS: [AtomicPtr<Watched>; MAPS_MAX] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; MAPS_MAX];

/// Handlers that may be reading what [`MAPS`] points to.
static HANDLERS_RUNNING: AtomicUsize = AtomicUsize::new(0);

static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A place in [`MAPS`], empty again when dropped.
#[derive(Debug)]
struct Registration {
    place: &'static AtomicPtr<Watched>,
}

impl Registration {
    fn new(map: &Mmap, path: &Path, mark: Option<&Path>) -> Result<Self> {
        let shown = path.display();
        let advice = match mark {
            Some(_) => {
                " It is marked to be left out and holds nothing that is not elsewhere: start again."
            }
            None => "",
        };
        let message = format!(
            "op-dbus: {shown} is mapped and cannot be read: it was made shorter, or the disk \
             failed.{advice}\n"
        );
        let mark = mark.map(absolute).transpose()?;
        let start = map.as_ptr().addr();
        let watched = Box::into_raw(Box::new(Watched {
            start,
            end: start + map.len(),
            message: message.into_bytes(),
            mark,
        }));
        let empty = std::ptr::null_mut();
        let take = |place: &&AtomicPtr<Watched>| {
            place.compare_exchange(empty, watched, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        if let Some(place) = MAPS.iter().find(take) {
            return Ok(Self { place });
        }
        // SAFETY: it came from `into_raw` above, and no place took it.
        drop(unsafe { Box::from_raw(watched) });
        Err(Error::new(ErrorKind::Unavailable, format!("{shown} is one map too many"))
            .with_remedy(format!("open fewer stores in this process: it has {MAPS_MAX} maps")))
    }
}

/// The process may be in another directory when it is needed.
fn absolute(mark: &Path) -> Result<CString> {
    let mark = std::path::absolute(mark).map_err(|error| Error::io("find", mark, error))?;
    CString::new(mark.as_os_str().as_bytes()).map_err(|error| {
        Error::new(ErrorKind::Invalid, format!("{} is no path", mark.display())).with_source(error)
    })
}

impl Drop for Registration {
    fn drop(&mut self) {
        let watched = self.place.swap(std::ptr::null_mut(), Ordering::SeqCst);
        // A handler that saw the pointer counted itself before, so it is still counted; one that
        // comes later finds null. None of them waits for anything.
        while HANDLERS_RUNNING.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        // SAFETY: it came from `into_raw`, this place was its only owner, and by the above no
        // handler reads it.
        drop(unsafe { Box::from_raw(watched) });
    }
}

/// Installs the handler, once for the process.
fn install_handler() -> std::io::Result<()> {
    static INSTALLED: OnceLock<c_int> = OnceLock::new();
    match *INSTALLED.get_or_init(|| install().err().map_or(0, |e| e.raw_os_error().unwrap_or(0))) {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error)),
    }
}

fn install() -> std::io::Result<()> {
    let check = |result: c_int| match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: zeros are a valid sigaction: the default action, no flags, an empty mask.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null action only asks for the one in force.
    check(unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous) })?;
    // Before the handler can run, because it reads it.
    PREVIOUS.get_or_init(|| previous);
    let mut action = previous;
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_sigbus;
    action.sa_sigaction = handler as *const () as usize;
    // The stack that overflowed cannot hold the handler of its own overflow.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the mask is inside `action`, which we own.
    check(unsafe { libc::sigemptyset(&raw mut action.sa_mask) })?;
    // SAFETY: `action` is whole, and its handler has the signature that SA_SIGINFO asks for.
    check(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) })
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    HANDLERS_RUNNING.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the kernel gives a valid siginfo to a handler with SA_SIGINFO.
    let cause = unsafe { &*info };
    // A signal that a process sent has no address; one of the kernel has.
    if cause.si_code > 0 {
        // SAFETY: a SIGBUS of the kernel has this field.
        end_if_watched(unsafe { cause.si_addr() }.addr());
    }
    HANDLERS_RUNNING.fetch_sub(1, Ordering::SeqCst);
    if let Some(previous) = PREVIOUS.get() {
        chain(previous, signal, info, context);
    }
}

/// Ends the process if the address lies in one of our maps.
fn end_if_watched(address: usize) {
    for place in &MAPS {
        let watched = place.load(Ordering::SeqCst);
        // SAFETY: what is in a place is whole before it is put there, and it is freed only when no
        // handler runs that may have seen it, and this one is counted.
        let Some(watched) = (unsafe { watched.as_ref() }) else { continue };
        if !(watched.start..watched.end).contains(&address) {
            continue;
        }
        let (message, len) = (watched.message.as_ptr().cast(), watched.message.len());
        // SAFETY: the message lives until the end of the process, which is near.
        unsafe { libc::write(libc::STDERR_FILENO, message, len) };
        if let Some(mark) = &watched.mark {
            let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
            // SAFETY: the path ends with a zero. What cannot be made cannot be told either: the next
            // start still compares lengths and checksums.
            unsafe { libc::open(mark.as_ptr(), flags, 0o600) };
        }
        // SAFETY: it runs nothing of ours and does not return.
        unsafe { libc::_exit(EXIT_MAP_LOST) }
    }
}

/// Does what would have been done without us.
fn chain(previous: &libc::sigaction, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    type Plain = extern "C" fn(c_int);
    type WithInfo = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
    match previous.sa_sigaction {
        libc::SIG_IGN | libc::SIG_DFL => {
            // SAFETY: `previous` is what sigaction gave us. The signal is blocked while we are in
            // its handler, so that the one raised comes when it returns.
            unsafe { libc::sigaction(signal, previous, std::ptr::null_mut()) };
            // SAFETY: always safe to call. An ignored signal that the kernel sends for a fault
            // still ends the process, when the faulting instruction runs again.
            unsafe { libc::raise(signal) };
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: with SA_SIGINFO the handler that the kernel held has this signature.
            let handler = unsafe { std::mem::transmute::<usize, WithInfo>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without SA_SIGINFO the handler that the kernel held has this signature.
            let handler = unsafe { std::mem::transmute::<usize, Plain>(handler) };
            handler(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::path::PathBuf;
    use std::process::{Command, Output};

    use super::*;

    const CHILD: &str = "OPDBUS_TEST_CHILD";
    const LEN_BYTES: usize = 1 << 16;

    fn damaged_mark(path: &Path) -> PathBuf {
        path.with_extension("damaged")
    }

    fn mapped(path: &Path) -> (File, Map) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let map =
            Map::open(&file, path, Some(&damaged_mark(path)), LEN_BYTES, MapUse::HereAndThere)
                .unwrap();
        (file, map)
    }

    fn written() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mapped");
        std::fs::write(&path, vec![7; LEN_BYTES]).unwrap();
        (directory, path)
    }

    /// What the child is to do, if this process is one.
    fn child() -> Option<PathBuf> {
        std::env::var_os(CHILD).map(PathBuf::from)
    }

    /// Runs this very test in a process of its own.
    fn run_child(test: &str, path: &Path) -> Output {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("os::map::tests::{test}"), "--nocapture"])
            .env(CHILD, path)
            .output()
            .unwrap()
    }

    #[test]
    fn a_map_shows_the_file() {
        let (_directory, path) = written();
        let (_, map) = mapped(&path);
        assert_eq!(map.bytes(), [7; LEN_BYTES]);
    }

    #[test]
    fn a_file_that_is_too_short_is_not_mapped() {
        let (_directory, path) = written();
        let file = File::open(&path).unwrap();
        for len_bytes in [0, LEN_BYTES + 1] {
            let error =
                Map::open(&file, &path, Some(&damaged_mark(&path)), len_bytes, MapUse::Whole)
                    .err()
                    .unwrap();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_truncated_map_ends_the_process_and_marks_the_file() {
        if let Some(path) = child() {
            let (file, map) = mapped(&path);
            // Another map, so that the right one is named.
            let (_directory, other) = written();
            let (_other_file, _other_map) = mapped(&other);
            file.set_len(4096).unwrap();
            assert_eq!(map.bytes()[0], 7);
            let lost = map.bytes()[LEN_BYTES - 1];
            panic!("the lost page reads as {lost}");
        }
        let (_directory, path) = written();
        let output = run_child("a_truncated_map_ends_the_process_and_marks_the_file", &path);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(EXIT_MAP_LOST), "{stderr}");
        let expected = format!("op-dbus: {} is mapped and cannot be read", path.display());
        assert!(stderr.contains(&expected), "{stderr}");
        assert!(damaged_mark(&path).exists());
    }

    #[test]
    fn a_map_that_is_gone_is_not_ours_any_more() {
        if let Some(path) = child() {
            drop(mapped(&path));
            // A map of the same file that nobody registered, likely at the same address.
            let file = File::options().read(true).write(true).open(&path).unwrap();
            // SAFETY: nobody reads the bytes but the line that must fail.
            let map = unsafe { MmapOptions::new().len(LEN_BYTES).map(&file) }.unwrap();
            file.set_len(0).unwrap();
            panic!("the lost page reads as {}", map[0]);
        }
        let (_directory, path) = written();
        let output = run_child("a_map_that_is_gone_is_not_ours_any_more", &path);
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
        assert!(!damaged_mark(&path).exists());
    }

    #[test]
    fn a_signal_that_somebody_sends_ends_the_process_as_ever() {
        if let Some(path) = child() {
            // Instead of the handler of Rust's runtime, which lets the first such signal pass.
            // SAFETY: always safe to call.
            unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
            let _mapped = mapped(&path);
            // SAFETY: always safe to call.
            unsafe { libc::raise(libc::SIGBUS) };
            panic!("the signal was lost");
        }
        let (_directory, path) = written();
        let output = run_child("a_signal_that_somebody_sends_ends_the_process_as_ever", &path);
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }

    #[test]
    fn an_earlier_handler_still_gets_what_is_not_ours() {
        extern "C" fn earlier(_: c_int) {
            // SAFETY: async-signal-safe, and does not return.
            unsafe { libc::_exit(42) }
        }
        if let Some(path) = child() {
            let handler: extern "C" fn(c_int) = earlier;
            // SAFETY: the handler has the signature that signal(2) asks for.
            unsafe { libc::signal(libc::SIGBUS, handler as *const () as usize) };
            let _mapped = mapped(&path);
            // SAFETY: always safe to call.
            unsafe { libc::raise(libc::SIGBUS) };
            panic!("the signal was lost");
        }
        let (_directory, path) = written();
        let output = run_child("an_earlier_handler_still_gets_what_is_not_ours", &path);
        assert_eq!(output.status.code(), Some(42), "{output:?}");
    }

    #[test]
    fn there_are_as_many_maps_as_said_and_places_are_used_again() {
        if let Some(path) = child() {
            let maps: Vec<_> = (0..MAPS_MAX).map(|_| mapped(&path)).collect();
            let file = File::open(&path).unwrap();
            let again = || {
                Map::open(&file, &path, Some(&damaged_mark(&path)), LEN_BYTES, MapUse::HereAndThere)
            };
            assert_eq!(again().err().unwrap().kind(), ErrorKind::Unavailable);
            drop(maps);
            again().unwrap();
            return;
        }
        let (_directory, path) = written();
        let output = run_child("there_are_as_many_maps_as_said_and_places_are_used_again", &path);
        assert!(output.status.success(), "{output:?}");
    }
}
