//! Runs Nix with a store of its own, and finds nixpkgs' lib.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::scratch;
use tempfile::TempDir;

/// Where nixpkgs is, or only its lib, as the directory `lib`; unless `NIX_PATH` says it.
const VARIABLE: &str = "OPDBUS_TEST_NIXPKGS";
/// Where the store is made, if possible: no unit of ours is kept from seeing it, as from what is in `/tmp`.
const PLACE: &str = "/srv";

/// The repository.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Whether there is a Nix that works.
pub(crate) fn has_nix() -> bool {
    Command::new("nix-instantiate").arg("--version").output().is_ok_and(|it| it.status.success())
}

/// nixpkgs' lib, by a directory that looks like nixpkgs as far as the project needs it, and a store of Nix,
/// which goes with it.
pub(crate) struct Nixpkgs {
    directory: TempDir,
}

impl Drop for Nixpkgs {
    fn drop(&mut self) {
        // Nix leaves nothing that can be written to.
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(self.path()).output();
    }
}

impl Nixpkgs {
    /// Finds it, or says why it is not there.
    pub(crate) fn find() -> Result<Self, String> {
        if !has_nix() {
            return Err("no nix-instantiate: apt-get install nix-bin".to_owned());
        }
        let named = std::env::var_os(VARIABLE).map(PathBuf::from);
        let cached = || Some(scratch::cache_directory().join("test/nixpkgs"));
        let places = [named.or_else(on_nix_path), cached()];
        let lib = places.into_iter().flatten().map(|place| place.join("lib"));
        let Some(lib) = lib.filter_map(|lib| lib.canonicalize().ok()).next() else {
            return Err(format!("no nixpkgs, nor its lib: name it by {VARIABLE} or NIX_PATH"));
        };
        let directory = tempfile::tempdir_in(PLACE).unwrap_or_else(|_| scratch::on_disk());
        std::os::unix::fs::symlink(&lib, directory.path().join("lib")).unwrap();
        // What asks for packages gets those that are made of this machine's tools.
        let text = format!(
            "{{ system, program ? \"/nowhere\", runtime ? \"/nowhere\", model ? \"/nowhere\" }}:\n\
             import {} {{ lib = import ./lib; inherit system program runtime model; }}\n",
            sources().join("nixos/tests/stand-ins.nix").display()
        );
        fs::write(directory.path().join("default.nix"), text).unwrap();
        Ok(Self { directory })
    }

    /// Where the store's paths are.
    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// Where that is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Evaluates an expression in which `lib` is that lib.
    pub(crate) fn evaluate(&self, expression: &str) -> Value {
        let text = format!("let lib = import {}/lib; in {expression}", self.path().display());
        let arguments = ["--eval", "--strict", "--json", "--expr", &text];
        let output = self.run("nix-instantiate", arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{expression}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Builds what an expression is, with this machine's tools; or says what the builders said.
    pub(crate) fn build(&self, expression: &str) -> Result<PathBuf, String> {
        let text = format!("let lib = import {}/lib; in {expression}", self.path().display());
        // As this user, who alone can read what cargo built.
        let options = ["--option", "substitute", "false", "--option", "build-users-group", ""];
        let arguments = ["--no-out-link", "--option", "sandbox", "false", "--expr", &text];
        let output = self.run("nix-build", options.into_iter().chain(arguments));
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned().into());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn run<I: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = I>,
    ) -> Output {
        let mut command = Command::new(program);
        for (variable, name) in [
            ("NIX_STORE_DIR", "store"),
            ("NIX_STATE_DIR", "state"),
            ("NIX_LOG_DIR", "log"),
            ("NIX_CONF_DIR", "conf"),
            ("NIX_LOCALSTATE_DIR", "var"),
        ] {
            command.env(variable, self.path().join(name));
        }
        command.env_remove("NIX_PATH").env_remove("NIX_REMOTE").args(arguments).output().unwrap()
    }

    /// The paths that one of the store needs, itself included.
    pub(crate) fn needed_by(&self, path: &Path) -> Vec<PathBuf> {
        let query = [OsStr::new("--query"), OsStr::new("--requisites"), path.as_os_str()];
        let output = self.run("nix-store", query);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
    }

    /// The expression of packages that have this program, and what is installed for this user.
    pub(crate) fn packages(&self) -> String {
        let program = Path::new(env!("CARGO_BIN_EXE_op-dbus")).parent().unwrap();
        let data = scratch::data_directory();
        format!(
            "import {} {{ system = builtins.currentSystem; program = {program:?}; \
             runtime = {:?}; model = {:?}; }}",
            self.path().display(),
            data.join("lib"),
            data.join("models/all-MiniLM-L6-v2"),
        )
    }

    /// An attribute of the evaluation of the module.
    pub(crate) fn module(&self, attribute: &str) -> String {
        let module = sources().join("nixos/tests/module.nix");
        let (module, packages) = (module.display(), self.packages());
        format!("(import {module} {{ inherit lib; pkgs = {packages}; }}).{attribute}")
    }
}

fn on_nix_path() -> Option<PathBuf> {
    let output = Command::new("nix-instantiate").args(["--find-file", "nixpkgs"]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| path.trim().into())
}
