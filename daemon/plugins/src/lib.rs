//! Plugins of Operation D-Bus that people wrote, and what such a plugin in Rust is made of.
//!
//! A plugin is a package: a directory with `plugin.toml` and an executable. The daemon starts the
//! executable in the sandbox that `plugin.toml` declares, and asks it for state.
//!
//! # The protocol, version 1
//! Requests come on standard input, answers go to standard output: one JSON object a line, UTF-8, at
//! most 4 MiB. What is for people goes to standard error. The daemon writes first:
//!
//! ```text
//! > {"protocol":1,"plugin":"lxc","config":{}}
//! < {"protocol":1,"plugin":"lxc","version":"0.1.0"}
//! ```
//!
//! `config` is the table `[config]` of `plugin.toml`. A plugin that cannot work so answers
//! `{"error":{"kind":"unsupported","message":"…"}}`, and may be greeted again. Then requests come,
//! one at a time, each with a number:
//!
//! | request | answer |
//! |---|---|
//! | `{"id":1,"verb":"query"}` | `{"id":1,"state":{…}}`: the state as it is |
//! | `{"id":2,"verb":"diff","desired":{…}}` | `{"id":2,"changes":[…]}`: what apply would do, in order |
//! | `{"id":3,"verb":"apply","desired":{…}}` | `{"id":3,"applied":[…]}`: what was done, in order |
//! | `{"id":4,"verb":"verify","desired":{…}}` | `{"id":4,"differences":[…]}`: what would still be needed |
//!
//! A change is `{"path":"containers.web.running","from":false,"to":true,"what":"start the container
//! web"}`. During apply there may be lines `{"id":3,"progress":"start the container web"}` before the
//! answer. If a step fails, later ones are not tried; the answer is `{"id":3,"applied":[…],"error":
//! {"kind":"…","message":"…","change":{…}}}`, with those that were done and the one that failed. If
//! the request cannot be begun at all, `applied` is empty and the error has no `change`.
//!
//! `desired` is what `state.json` declares for the plugin. Only what is declared is touched: what is
//! not mentioned is left as it is. What was queried may be handed back as `desired`, which is how a
//! rollback works. For that, `{"id":1,"verb":"query","about":{…}}` tells of all things that are
//! mentioned in `about`, which has the form of `desired`: every key that it has for them, and
//! `"present":false` for those that do not exist.
//!
//! An error is `{"id":1,"error":{"kind":"…","message":"…"}}`. Kinds: `not-found`, `invalid`, `busy`,
//! `denied`, `unavailable`, `unsupported`, `io`. A line that is no JSON, an unknown verb and an
//! unknown key are `invalid`, and the plugin goes on; where no number could be read, the answer has
//! none. At the end of its input the plugin ends, with code 0.

#![forbid(unsafe_code)]

pub mod difference;
mod error;
pub mod fields;
mod lxc;
mod name;
mod netmaker;
pub mod protocol;
pub mod run;

use std::io;
use std::process::ExitCode;

pub use error::{Error, ErrorKind, Result};
pub use lxc::Lxc;
pub use netmaker::Netmaker;
pub use protocol::{Plugin, Purpose};

/// Serves a plugin on standard input and output until the input ends.
#[must_use]
pub fn main<P: Plugin>() -> ExitCode {
    match protocol::serve::<P>(io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", P::NAME);
            ExitCode::FAILURE
        }
    }
}
