//! Containers of LXC, by its own programs.
//!
//! ```json
//! {"containers": {"web": {"present": true, "running": true, "autostart": true,
//!     "template": "busybox", "template_args": [], "config": {"lxc.net.0.type": "empty"}}}}
//! ```
//!
//! - `present`: false stops and destroys a container with all that it holds; what else is declared
//!   for it does not count then. Undeclared, a container must exist.
//! - `template`, `template_args`: what a container is created from; they count only then.
//! - `config`: keys of the container's own configuration. A text is one line, a list of texts are as
//!   many lines, null is none, of what a new container begins with, too. `lxc.start.auto` is declared as `autostart`.
//!
//! A container that was destroyed comes back by a rollback as a new one, from its template: what was
//! in it is lost. What the files say that a configuration includes is not told and not changed.
//!
//! In `[config]`: `path`, directories of programs; `lxcpath`; `timeout_s`, for each program, of which
//! creating (`create_timeout_s`) and stopping (`stop_wait_s`, then it is killed) have their own.

mod config_file;
mod declared;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::difference::{Place, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::fields::Fields;
use crate::name;
use crate::protocol::{Plugin, Purpose};
use crate::run::{Finished, Programs, Run};
use config_file::Origin;
use declared::Container;

const CONFIG_KEYS: [&str; 5] = ["path", "lxcpath", "timeout_s", "create_timeout_s", "stop_wait_s"];
const LXCPATH: &str = "/var/lib/lxc";
const TIMEOUT_MAX_S: u64 = 3600;
const AUTOSTART: &str = "lxc.start.auto";
/// Lines at the end of what lxc-create and lxc-start write, whatever the reason is.
const CHATTER: [&str; 4] = [
    "To get more details",
    "Additional information can be obtained",
    "Failed to create lxc container",
    "The container failed to start",
];

/// The plugin.
#[derive(Debug)]
pub struct Lxc {
    programs: Programs,
    lxcpath: String,
    timeout: Duration,
    create_timeout: Duration,
    stop_wait_s: u64,
}

/// What is done for one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a container from a template with arguments, without these keys in its configuration: what
    /// LXC begins each with, and what the template adds, is only known when it is there.
    Create(String, String, Vec<String>, Vec<String>),
    /// Stop a container; after a while it is killed.
    Stop(String),
    /// Remove a container and all that it holds.
    Destroy(String),
    /// Give a container's configuration these lines of a key.
    Configure(String, String, Vec<String>),
    /// Start a container.
    Start(String),
}

/// A container as LXC lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    running: bool,
    autostart: bool,
}

impl Plugin for Lxc {
    const NAME: &'static str = "lxc";
    type Action = Action;

    fn configure(config: &Value) -> Result<Self> {
        let fields = Fields::of(config, "config", &CONFIG_KEYS)?;
        let seconds = |key: &str, default: u64| {
            Ok::<_, Error>(fields.number(key, 1..=TIMEOUT_MAX_S)?.unwrap_or(default))
        };
        let lxcpath = fields.text("lxcpath")?.unwrap_or(LXCPATH);
        if !lxcpath.starts_with('/') || lxcpath.chars().any(char::is_control) {
            return Err(Error::invalid("config.lxcpath: it must be an absolute path"));
        }
        Ok(Self {
            programs: Programs::new(fields.text("path")?)?,
            lxcpath: lxcpath.to_owned(),
            timeout: Duration::from_secs(seconds("timeout_s", 60)?),
            create_timeout: Duration::from_secs(seconds("create_timeout_s", 600)?),
            stop_wait_s: seconds("stop_wait_s", 30)?,
        })
    }

    fn query(&self, about: Option<&Value>) -> Result<Value> {
        let about = about.map_or_else(|| Ok(Vec::new()), declared::parse)?;
        let mut states: BTreeMap<String, Value> = BTreeMap::new();
        for (name, listed) in self.list()? {
            let Listed { running, autostart } = listed;
            let state = json!({"present": true, "running": running, "autostart": autostart});
            states.insert(name, state);
        }
        for (name, container) in about {
            match states.get_mut(&name) {
                Some(state) => self.tell_all(&name, &container, state)?,
                None => drop(states.insert(name, json!({"present": false}))),
            }
        }
        let states: Map<String, Value> = states.into_iter().collect();
        Ok(json!({"containers": states}))
    }

    fn plan(&self, desired: &Value, purpose: Purpose) -> Result<Vec<Step<Action>>> {
        let desired = declared::parse(desired)?;
        let listed = self.list()?;
        let mut steps = Vec::new();
        for (name, container) in desired {
            steps.extend(self.plan_one(&name, container, listed.get(&name).copied(), purpose)?);
        }
        Ok(steps)
    }

    fn perform(&self, action: Action) -> Result<()> {
        match action {
            Action::Create(name, template, arguments, without) => {
                self.create(&name, &template, &arguments)?;
                self.remove_keys(&name, &without)
            }
            Action::Stop(name) => {
                let wait_s = self.stop_wait_s.to_string();
                let timeout = self.timeout + Duration::from_secs(self.stop_wait_s);
                self.tool("lxc-stop", &["-n", &name, "-t", &wait_s], timeout)
            }
            Action::Destroy(name) => self.tool("lxc-destroy", &["-n", &name], self.timeout),
            Action::Configure(name, key, values) => {
                config_file::change(&self.config_of(&name), &key, &values)
            }
            Action::Start(name) => self.start(&name),
        }
    }
}

impl Lxc {
    /// All containers whose names can be declared.
    fn list(&self) -> Result<BTreeMap<String, Listed>> {
        let columns = ["-f", "-F", "NAME,STATE,AUTOSTART", "--defined"];
        let output = self.run("lxc-ls", &columns, self.timeout, true)?.checked()?.stdout;
        let mut lines = output.lines().map(str::split_whitespace).map(Iterator::collect::<Vec<_>>);
        let header = lines.next().unwrap_or_default();
        if !(header.is_empty() || header == ["NAME", "STATE", "AUTOSTART"]) {
            let problem = "lxc-ls: other columns than those asked for";
            return Err(Error::new(ErrorKind::Unsupported, problem));
        }
        let mut listed = BTreeMap::new();
        for line in lines {
            let (&[name, state, autostart], true) = (line.as_slice(), line.len() == 3) else {
                return Err(Error::new(ErrorKind::Io, "lxc-ls: a line that is not understood"));
            };
            if name::is_name(name) {
                let running = state != "STOPPED";
                listed.insert(name.to_owned(), Listed { running, autostart: autostart == "1" });
            } else {
                eprintln!("lxc: the container {name:?} is left out, its name cannot be declared");
            }
        }
        Ok(listed)
    }

    /// Adds what is told only of containers that were asked for.
    fn tell_all(&self, name: &str, container: &Container, state: &mut Value) -> Result<()> {
        let text = config_file::read(&self.config_of(name))?;
        if let Some(Origin { template, arguments }) = config_file::origin(&text) {
            state["template"] = json!(template);
            state["template_args"] = json!(arguments);
        }
        if !container.config.is_empty() {
            let value = |key: &String| declared::value(&config_file::values(&text, key));
            let config = container.config.iter().map(|(key, _)| (key.clone(), value(key)));
            state["config"] = Value::Object(config.collect());
        }
        Ok(())
    }

    fn plan_one(
        &self,
        name: &str,
        container: Container,
        listed: Option<Listed>,
        purpose: Purpose,
    ) -> Result<Vec<Step<Action>>> {
        let place = Place::new(&["containers", name]);
        let owned = || name.to_owned();
        let mut steps = Vec::new();
        let stop = || {
            let what = format!("stop the container {name}");
            place.step("running", (true, false), what, Action::Stop(owned()))
        };
        if container.present == Some(false) {
            if let Some(listed) = listed {
                steps.extend(listed.running.then(stop));
                let what = format!("destroy the container {name} and all that it holds");
                steps.push(place.step("present", (true, false), what, Action::Destroy(owned())));
            }
            return Ok(steps);
        }
        let (actual, text) = match listed {
            Some(listed) => (listed, config_file::read(&self.config_of(name))?),
            None => {
                steps.push(creation(&place, name, &container, purpose)?);
                (Listed { running: false, autostart: false }, String::new())
            }
        };
        let running = Place::wanted(&actual.running, container.running);
        if running == Some(false) {
            steps.push(stop());
        }
        let is_late = actual.running && running.is_none();
        steps.extend(configuration(&place, name, &container, &text, is_late));
        if let Some(wanted) = Place::wanted(&actual.autostart, container.autostart) {
            let what = match wanted {
                true => format!("let the container {name} start with the system"),
                false => format!("let the container {name} not start with the system"),
            };
            let line = vec![u8::from(wanted).to_string()];
            let action = Action::Configure(owned(), AUTOSTART.to_owned(), line);
            steps.push(place.step("autostart", (!wanted, wanted), what, action));
        }
        if running == Some(true) {
            let what = format!("start the container {name}");
            steps.push(place.step("running", (false, true), what, Action::Start(owned())));
        }
        Ok(steps)
    }

    fn create(&self, name: &str, template: &str, own: &[String]) -> Result<()> {
        let mut arguments = vec!["-n", name, "-t", template, "--"];
        arguments.extend(own.iter().map(String::as_str));
        self.tool("lxc-create", &arguments, self.create_timeout)
    }

    fn remove_keys(&self, name: &str, keys: &[String]) -> Result<()> {
        let path = self.config_of(name);
        for key in keys {
            if !config_file::values(&config_file::read(&path)?, key).is_empty() {
                config_file::change(&path, key, &[])?;
            }
        }
        Ok(())
    }

    /// Starts a container. That its first program runs on is looked at, because one that ends at
    /// once counts as started for lxc-start.
    fn start(&self, name: &str) -> Result<()> {
        self.tool("lxc-start", &["-n", name], self.timeout)?;
        let info =
            self.run("lxc-info", &["-n", name, "-s", "-H"], self.timeout, true)?.checked()?;
        match info.stdout.trim() {
            "STOPPED" | "STOPPING" | "ABORTING" => {
                let problem = format!("the container {name} was started and ended at once");
                Err(Error::new(ErrorKind::Io, problem))
            }
            _ => Ok(()),
        }
    }

    fn tool(&self, program: &str, arguments: &[&str], timeout: Duration) -> Result<()> {
        self.run(program, arguments, timeout, false)?.checked().map(drop)
    }

    fn run(
        &self,
        program: &str,
        own: &[&str],
        timeout: Duration,
        reads_all: bool,
    ) -> Result<Finished> {
        let arguments = [&["-P", &self.lxcpath], own].concat();
        let chatter = &CHATTER;
        let arguments = &arguments;
        self.programs.run(Run { program, arguments, timeout, reads_all, secret: None, chatter })
    }

    fn config_of(&self, name: &str) -> PathBuf {
        Path::new(&self.lxcpath).join(name).join("config")
    }
}

/// The step that makes a container, if what it needs is declared.
fn creation(
    place: &Place,
    name: &str,
    container: &Container,
    purpose: Purpose,
) -> Result<Step<Action>> {
    if container.present.is_none() {
        let problem = format!("the container {name} does not exist: declare \"present\": true");
        return Err(Error::new(ErrorKind::NotFound, problem));
    }
    let template = match (&container.template, purpose) {
        (Some(template), _) => template.clone(),
        (None, Purpose::Verify) => String::new(),
        (None, Purpose::Apply) => {
            let problem = format!("the container {name} does not exist: declare its \"template\"");
            return Err(Error::invalid(problem));
        }
    };
    let what = format!("create the container {name} from the template {template}");
    let none = container.config.iter().filter(|(_, wanted)| wanted.is_empty());
    let none = none.map(|(key, _)| key.as_str());
    let autostart = (container.autostart == Some(false)).then_some(AUTOSTART);
    let without = none.chain(autostart).map(str::to_owned).collect();
    let arguments = container.template_args.clone();
    let action = Action::Create(name.to_owned(), template, arguments, without);
    Ok(place.step("present", (false, true), what, action))
}

/// The steps that change lines of a configuration.
fn configuration(
    place: &Place,
    name: &str,
    container: &Container,
    text: &str,
    is_late: bool,
) -> Vec<Step<Action>> {
    let step = |(key, wanted): &(String, Vec<String>)| {
        let actual = config_file::values(text, key);
        if config_file::is_same(&actual, wanted) {
            return None;
        }
        let mut what = match wanted.as_slice() {
            [] => format!("remove {key} from the configuration of {name}"),
            _ => format!("set {key} in the configuration of {name}"),
        };
        if is_late {
            what.push_str("; it takes effect at the next start");
        }
        let change = (declared::value(&actual), declared::value(wanted));
        let action = Action::Configure(name.to_owned(), key.clone(), wanted.clone());
        Some(place.step(&format!("config.{key}"), change, what, action))
    };
    container.config.iter().filter_map(step).collect()
}
