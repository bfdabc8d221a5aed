//! Applying a file of declared state, and taking it back.

use std::path::Path;
use std::sync::Arc;

use op_dbus_engine::{ErrorKind, JournalKind, JournalNote, Payload, Record, Store};
use op_dbus_formats::state_file::{self, StateFile};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use zbus::Connection;
use zbus::fdo::DBusProxy;

use super::handwritten::HandWritten;
use super::mapped::Mapped;
use super::order::ordered;
use super::{Applied, Change, PluginOutcome, PluginReport, StateReport};
use crate::error::{BusError, Result};
use crate::gate::blocking;
use crate::plugin::run::PATH;
use crate::plugin::{LoadedPlugin, Plugins, REDACTED};

/// The collection that applied files are in. They may hold secrets.
pub(crate) const DECLARED_COLLECTION: &str = "declared";
/// The file that was applied last; its versions are those before.
pub(crate) const DECLARED_KEY: &str = "state.json";
/// What was there before it was applied.
const CHECKPOINT_KEY: &str = "checkpoint";

/// Applies one file at a time.
#[derive(Default)]
pub(crate) struct States {
    applying: Mutex<()>,
}

/// Who makes the state of a plugin true.
enum Provider<'p> {
    Mapped(Mapped<'p>),
    HandWritten(Box<HandWritten>),
}

/// One plugin of a file, with its turn.
struct Step<'p> {
    loaded: &'p LoadedPlugin,
    provider: Provider<'p>,
    desired: Value,
    report: PluginReport,
    /// What was before it was touched.
    before: Value,
}

/// What a file is applied with.
pub(crate) struct Context<'c> {
    pub(crate) store: &'c Arc<Store>,
    pub(crate) plugins: &'c Plugins,
    /// The bus that services are on; none where there is no bus.
    pub(crate) connection: Option<&'c Connection>,
}

impl States {
    /// Waits for nobody: two at the same time would undo each other.
    fn begin(&self) -> Result<MutexGuard<'_, ()>> {
        self.applying.try_lock().map_err(|_| {
            let problem = "another state is being applied";
            BusError::new(ErrorKind::Busy, problem, "try again when that has ended")
        })
    }

    /// Reads what a plugin's state is.
    pub(crate) async fn query(&self, context: &Context<'_>, plugin: &str) -> Result<Value> {
        let loaded = context.plugins.loaded(plugin)?;
        let mut provider = Provider::open(context, loaded).await?;
        let state = provider.query(None).await?;
        Ok(without_secrets(state, loaded))
    }

    /// Says what would be done to make a file true.
    pub(crate) async fn plan(
        &self,
        context: &Context<'_>,
        file: &StateFile,
    ) -> Result<StateReport> {
        compare(context, file, async |provider, desired| provider.diff(desired).await).await
    }

    /// Says what of a file is not true.
    pub(crate) async fn verify(
        &self,
        context: &Context<'_>,
        file: &StateFile,
    ) -> Result<StateReport> {
        compare(context, file, async |provider, desired| provider.verify(desired).await).await
    }

    /// Makes a file true, or leaves everything as it was.
    pub(crate) async fn apply(
        &self,
        context: &Context<'_>,
        file: &StateFile,
        intent: u64,
    ) -> Result<StateReport> {
        let _turn = self.begin()?;
        let mut steps = steps(context, file).await?;
        // Everything is looked at before anything is touched: most mistakes show here.
        for step in &mut steps {
            let changes = step.provider.diff(&step.desired).await?;
            step.report.changes = step.shown(changes);
            step.before = step.provider.query(Some(&step.desired)).await?;
        }
        checkpoint(context, &steps, intent).await?;
        let mut failed_at = None;
        for (number, step) in steps.iter_mut().enumerate() {
            if !step.apply(context, intent).await? {
                failed_at = Some(number);
                break;
            }
        }
        match failed_at {
            None => keep(context, file).await?,
            Some(number) => {
                for step in steps[..=number].iter_mut().rev() {
                    step.take_back(context, intent).await?;
                }
            }
        }
        Ok(report(steps, false))
    }
}

impl Step<'_> {
    /// Changes in which what the plugin calls secret cannot be read.
    fn shown(&self, changes: Vec<Change>) -> Vec<Change> {
        let shown = |change: Change| {
            let mut path: Vec<String> = change.path.split('.').map(str::to_owned).collect();
            let [from, to] = [change.from, change.to].map(|mut value| {
                hide(&mut value, &mut path, self.loaded);
                value
            });
            Change { from, to, ..change }
        };
        changes.into_iter().map(shown).collect()
    }

    /// Applies it and verifies that it is so; says whether that went well.
    async fn apply(&mut self, context: &Context<'_>, intent: u64) -> Result<bool> {
        if self.report.changes.is_empty() {
            self.report.outcome = PluginOutcome::Unchanged;
            return Ok(true);
        }
        let planned = std::mem::take(&mut self.report.changes);
        let what = format!("apply state of {}", self.report.plugin);
        let own = begin(context, &what, &planned, intent).await?;
        let applied = self.provider.apply(&self.desired).await.unwrap_or_else(|error| Applied {
            changes: Vec::new(),
            problem: Some(error.problem().to_owned()),
        });
        self.report.changes = self.shown(applied.changes);
        self.report.problem = match applied.problem {
            Some(problem) => Some(problem),
            None => self.left().await,
        };
        let is_well = self.report.problem.is_none();
        self.report.outcome = if is_well { PluginOutcome::Applied } else { PluginOutcome::Failed };
        end(context, &what, own, self.report.problem.as_deref()).await?;
        Ok(is_well)
    }

    /// What is still not as declared, in a line.
    async fn left(&mut self) -> Option<String> {
        match self.provider.verify(&self.desired).await {
            Ok(differences) if differences.is_empty() => None,
            Ok(differences) => {
                let paths: Vec<&str> =
                    differences.iter().map(|change| change.path.as_str()).collect();
                Some(format!("not as declared after it was applied: {}", paths.join(", ")))
            }
            Err(error) => Some(format!("cannot be verified: {}", error.problem())),
        }
    }

    /// Makes it what it was before.
    async fn take_back(&mut self, context: &Context<'_>, intent: u64) -> Result<()> {
        let was_touched =
            matches!(self.report.outcome, PluginOutcome::Applied | PluginOutcome::Failed);
        if !was_touched {
            return Ok(());
        }
        let what = format!("take back state of {}", self.report.plugin);
        let own = begin(context, &what, &self.report.changes, intent).await?;
        let taken_back = self.provider.apply(&self.before).await;
        let problem = match taken_back {
            Ok(Applied { problem: Some(problem), .. }) => Some(problem),
            Err(error) => Some(error.problem().to_owned()),
            Ok(Applied { problem: None, .. }) => match self.provider.verify(&self.before).await {
                Ok(differences) if differences.is_empty() => None,
                Ok(_) => Some("it is not what it was before".to_owned()),
                Err(error) => Some(error.problem().to_owned()),
            },
        };
        self.report.outcome = match &problem {
            None => PluginOutcome::RolledBack,
            Some(problem) => {
                let first = self.report.problem.take().unwrap_or_default();
                let text = format!("{first}; and it cannot be taken back: {problem}");
                self.report.problem = Some(text.trim_start_matches("; and ").to_owned());
                PluginOutcome::Failed
            }
        };
        end(context, &what, own, problem.as_deref()).await
    }
}

impl<'p> Provider<'p> {
    async fn open(context: &Context<'p>, loaded: &'p LoadedPlugin) -> Result<Self> {
        let Some(service) = &loaded.service else {
            return Ok(Self::HandWritten(Box::new(HandWritten::start(loaded).await?)));
        };
        let connection = context.connection.ok_or_else(|| {
            let problem = format!("{} is on a bus, and this service on none", loaded.plugin.name);
            BusError::new(ErrorKind::Unavailable, problem, "start op-dbus daemon with --bus system")
        })?;
        Ok(Self::Mapped(Mapped { plugin: loaded, service, connection }))
    }

    async fn query(&mut self, about: Option<&Value>) -> Result<Value> {
        match self {
            Self::Mapped(mapped) => mapped.query(about).await,
            Self::HandWritten(plugin) => plugin.query(about).await,
        }
    }

    async fn diff(&mut self, desired: &Value) -> Result<Vec<Change>> {
        match self {
            Self::Mapped(mapped) => mapped.diff(desired).await,
            Self::HandWritten(plugin) => plugin.diff(desired).await,
        }
    }

    async fn verify(&mut self, desired: &Value) -> Result<Vec<Change>> {
        match self {
            Self::Mapped(mapped) => mapped.diff(desired).await,
            Self::HandWritten(plugin) => plugin.verify(desired).await,
        }
    }

    async fn apply(&mut self, desired: &Value) -> Result<Applied> {
        match self {
            Self::Mapped(mapped) => mapped.apply(desired).await,
            Self::HandWritten(plugin) => plugin.apply(desired).await,
        }
    }
}

/// Compares each plugin's state with a file, and changes nothing.
async fn compare(
    context: &Context<'_>,
    file: &StateFile,
    differences: impl AsyncFn(&mut Provider<'_>, &Value) -> Result<Vec<Change>>,
) -> Result<StateReport> {
    let mut steps = steps(context, file).await?;
    for step in &mut steps {
        let changes = differences(&mut step.provider, &step.desired).await?;
        step.report.changes = step.shown(changes);
        step.report.outcome = match step.report.changes.is_empty() {
            true => PluginOutcome::Unchanged,
            false => PluginOutcome::Planned,
        };
    }
    Ok(report(steps, true))
}

/// The plugins of a file in their order, each at hand and able to do what is needed.
async fn steps<'p>(context: &Context<'p>, file: &StateFile) -> Result<Vec<Step<'p>>> {
    let mut named = Vec::with_capacity(file.plugins.len());
    for (name, _) in &file.plugins {
        let plugin = &context.plugins.loaded(name.as_str())?.plugin;
        let on = plugin.dependencies.plugins.iter().map(ToString::to_string).collect();
        named.push((name.to_string(), on));
    }
    let mut steps = Vec::with_capacity(named.len());
    for number in ordered(&named)? {
        let (name, desired) = &file.plugins[number];
        let loaded = context.plugins.loaded(name.as_str())?;
        require_able(loaded)?;
        require_at_hand(context, loaded).await?;
        let report = PluginReport {
            plugin: name.to_string(),
            outcome: PluginOutcome::Untouched,
            changes: Vec::new(),
            problem: None,
        };
        let provider = Provider::open(context, loaded).await?;
        let before = Value::Null;
        steps.push(Step { loaded, provider, desired: desired.clone(), report, before });
    }
    Ok(steps)
}

/// A plugin whose state can be read but not made is none that state can be declared for.
fn require_able(loaded: &LoadedPlugin) -> Result<()> {
    let plugin = &loaded.plugin;
    let can = plugin.capabilities;
    if can.query && can.diff && can.apply && can.verify {
        return Ok(());
    }
    let problem = format!("the plugin {} cannot make a state true", plugin.name);
    let remedy = "see [capabilities] in its plugin.toml";
    Err(BusError::new(ErrorKind::Unsupported, problem, remedy))
}

/// What a plugin needs must be there before anything is touched.
async fn require_at_hand(context: &Context<'_>, loaded: &LoadedPlugin) -> Result<()> {
    let (name, needed) = (&loaded.plugin.name, &loaded.plugin.dependencies);
    let missing = |what: String| {
        let problem = format!("the plugin {name} needs {what}");
        Err(BusError::new(ErrorKind::Unavailable, problem, "install it, or start it"))
    };
    let is_there = |program: &String| {
        PATH.split(':').any(|directory| Path::new(directory).join(program).is_file())
    };
    if let Some(program) = needed.programs.iter().find(|program| !is_there(program)) {
        return missing(format!("the program {program}"));
    }
    if let Some(plugin) =
        needed.plugins.iter().find(|plugin| context.plugins.loaded(plugin.as_str()).is_err())
    {
        return missing(format!("the plugin {plugin}"));
    }
    let Some(connection) = context.connection.filter(|_| !needed.services.is_empty()) else {
        return Ok(());
    };
    let bus = DBusProxy::new(connection).await?;
    let known = bus.list_names().await.map_err(zbus::Error::from)?;
    let activatable = bus.list_activatable_names().await.map_err(zbus::Error::from)?;
    let is_known =
        |service: &String| known.iter().chain(&activatable).any(|name| name.as_str() == service);
    match needed.services.iter().find(|service| !is_known(service)) {
        Some(service) => missing(format!("the service {service} on the bus")),
        None => Ok(()),
    }
}

fn report(steps: Vec<Step<'_>>, is_plan: bool) -> StateReport {
    let plugins: Vec<PluginReport> = steps.into_iter().map(|step| step.report).collect();
    let is_good = |report: &PluginReport| match report.outcome {
        PluginOutcome::Unchanged => true,
        PluginOutcome::Applied => !is_plan,
        _ => false,
    };
    StateReport { as_declared: plugins.iter().all(is_good), plugins }
}

/// Keeps what was before, without what is secret, where it can be looked at.
async fn checkpoint(context: &Context<'_>, steps: &[Step<'_>], intent: u64) -> Result<()> {
    let before = steps.iter().map(|step| {
        let state = without_secrets(step.before.clone(), step.loaded);
        (step.report.plugin.clone(), state)
    });
    let document = json!({ "intent": intent, "plugins": Value::Object(before.collect()) });
    note(context, JournalKind::Event, "checkpoint", None, json!({ "of": intent })).await?;
    put(context, CHECKPOINT_KEY, document.to_string()).await
}

/// Keeps what was applied: earlier versions can be applied again.
async fn keep(context: &Context<'_>, file: &StateFile) -> Result<()> {
    put(context, DECLARED_KEY, state_file::render(file)).await
}

async fn put(context: &Context<'_>, key: &'static str, document: String) -> Result<()> {
    let store = Arc::clone(context.store);
    blocking(move || {
        let record = Record::new(key).with_payload(Payload::Json(document.into()));
        store.put(DECLARED_COLLECTION, &record)
    })
    .await?;
    Ok(())
}

/// Journals that something is about to be done, as a part of what somebody asked for.
async fn begin(context: &Context<'_>, what: &str, changes: &[Change], of: u64) -> Result<u64> {
    let changes: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    let details = json!({ "of": of, "changes": changes });
    note(context, JournalKind::Intent, what, None, details).await
}

async fn end(context: &Context<'_>, what: &str, own: u64, problem: Option<&str>) -> Result<()> {
    let details = json!({ "succeeded": problem.is_none(), "problem": problem });
    note(context, JournalKind::Outcome, what, Some(own), details).await?;
    Ok(())
}

async fn note(
    context: &Context<'_>,
    kind: JournalKind,
    what: &str,
    intent: Option<u64>,
    details: Value,
) -> Result<u64> {
    let note = JournalNote {
        kind,
        intent,
        actor: None,
        action: what.to_owned(),
        details: details.to_string(),
    };
    let store = Arc::clone(context.store);
    blocking(move || store.append_journal(&[note])).await
}

/// A state in which what a plugin calls secret cannot be read.
fn without_secrets(mut state: Value, loaded: &LoadedPlugin) -> Value {
    hide(&mut state, &mut Vec::new(), loaded);
    state
}

/// Hides what is secret of the value at this path: all of it, or parts.
fn hide(value: &mut Value, path: &mut Vec<String>, loaded: &LoadedPlugin) {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    if is_secret(&names, loaded) {
        *value = REDACTED.into();
        return;
    }
    let Value::Object(entries) = value else { return };
    for (name, entry) in entries {
        path.push(name.clone());
        hide(entry, path, loaded);
        path.pop();
    }
}

/// By `plugin.toml`, or as a whole key by the mapping.
fn is_secret(names: &[&str], loaded: &LoadedPlugin) -> bool {
    let mapped = || {
        let mapped = loaded.service.as_ref()?.mapping.state.get(*names.first()?)?;
        Some(mapped.secret)
    };
    loaded.plugin.secret.iter().any(|secret| secret.covers(names)) || mapped().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_cannot_be_read() {
        let text = "[plugin]\nname = \"a\"\nversion = \"1\"\nsource = \"hand-written\"\n\
             [state]\nsecret = [\"networks.*.token\"]\n";
        let plugin = op_dbus_formats::plugin::parse(text.as_bytes()).unwrap();
        let loaded = LoadedPlugin { plugin, directory: None, service: None };
        let state = json!({ "networks": { "a": { "token": "x", "up": true } }, "token": 1 });
        let hidden = without_secrets(state, &loaded);
        let expected =
            json!({ "networks": { "a": { "token": REDACTED, "up": true } }, "token": 1 });
        assert_eq!(hidden, expected);
        // Of a change the path leads into the state, as deep as the plugin likes.
        for (path, value, expected) in [
            ("networks.a.token", json!("x"), json!(REDACTED)),
            ("networks.a", json!({ "token": "x" }), json!({ "token": REDACTED })),
            ("networks.a.token.part", json!(1), json!(REDACTED)),
            ("networks.a.up", json!(true), json!(true)),
        ] {
            let mut names = path.split('.').map(str::to_owned).collect();
            let mut hidden = value;
            hide(&mut hidden, &mut names, &loaded);
            assert_eq!(hidden, expected, "{path}");
        }
    }
}
