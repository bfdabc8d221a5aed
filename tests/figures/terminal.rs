//! A terminal of its own, by tmux: what is typed into it, and what stands on it.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use support::program::Workplace;

/// On a slow machine, with a store to open.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// What the shell says when it waits for a command.
const PROMPT: &str = "ready>";

static TERMINALS_COUNT: AtomicU32 = AtomicU32::new(0);

/// A shell on a terminal of 80 columns and 24 lines. Dropped, it is ended.
pub(crate) struct Terminal {
    /// The name of a server of its own.
    server: String,
}

impl Terminal {
    /// Whether there can be one.
    pub(crate) fn is_there() -> bool {
        let version = Command::new("tmux").arg("-V").stdout(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }

    /// Starts a shell in the directory of `place`, which has these variables.
    pub(crate) fn start(place: &Workplace, variables: &[&str]) -> Self {
        let number = TERMINALS_COUNT.fetch_add(1, Ordering::Relaxed);
        let terminal = Self { server: format!("op-dbus-test-{}-{number}", std::process::id()) };
        let directory = place.path().to_str().expect("a path of a test is text").to_owned();
        let path = std::env::var("PATH").expect("there is a path");
        let shell = [
            format!("env -i PATH='{path}' HOME='{directory}' TERM=screen OPDBUS_CONFIG=/dev/null"),
            format!("PS1='{PROMPT} ' {} bash --norc --noprofile", variables.join(" ")),
        ];
        let size = ["-x", "80", "-y", "24"];
        let made = terminal
            .tmux()
            .args(["-f", "/dev/null", "new-session", "-d", "-c", &directory])
            .args(size)
            .arg(shell.join(" "))
            .output()
            .expect("tmux is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let _ = terminal.until("a prompt", |screen| screen.contains(PROMPT));
        terminal
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.env_remove("TMUX").args(["-L", &self.server]);
        tmux
    }

    fn told(&self, arguments: &[&str]) -> Output {
        let told = self.tmux().args(arguments).output().expect("tmux is there");
        assert!(told.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&told.stderr));
        told
    }

    /// Types a line.
    pub(crate) fn enter(&self, line: &str) {
        let _ = self.told(&["send-keys", "-l", line]);
        self.press("Enter");
    }

    /// Presses a key, by the name that tmux has for it.
    pub(crate) fn press(&self, key: &str) {
        let _ = self.told(&["send-keys", key]);
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let _ = self.told(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// What stands on it.
    pub(crate) fn screen(&self) -> String {
        let screen = self.told(&["capture-pane", "-p"]).stdout;
        String::from_utf8(screen).expect("a screen is text")
    }

    /// Waits until something stands on it, and returns the screen.
    pub(crate) fn until(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if is_there(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "no {what} on the screen:\n{screen}");
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended already cannot be ended, which is as good.
        let _ = self.tmux().arg("kill-server").output();
    }
}
