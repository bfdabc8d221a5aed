//! A service on a bus whose objects have properties that can be set, and a script of what goes wrong
//! when somebody sets them. Its plugins are written here, too.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zbus::{Connection, fdo, interface};

/// The name of the service.
pub const SERVICE: &str = "org.example.Things";
/// The interface of its objects.
pub const INTERFACE: &str = "org.example.Thing1";

const POLL: Duration = Duration::from_millis(2);

/// What becomes of a value that somebody sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is set.
    Well,
    /// An error, and it is not set.
    Fails,
    /// An error that quotes the value.
    Quotes,
    /// It is not set, and the answer is that it was.
    Lies,
    /// No answer until [`Thing::release`]; then it is set.
    Holds,
}

/// What an object is at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// Set by a method.
    pub color: String,
    /// Set by a method.
    pub size: u32,
    /// Written as a property.
    pub label: String,
    /// Set by a method, and nobody else's business.
    pub secret: String,
}

#[derive(Debug, Default)]
struct State {
    values: Values,
    script: VecDeque<Answer>,
    is_held: bool,
    sets: Vec<&'static str>,
}

/// An object of the service, as a test sees it.
#[derive(Clone, Debug, Default)]
pub struct Thing(Arc<Mutex<State>>);

impl Thing {
    /// Puts objects of these names on a bus, and the name of the service.
    ///
    /// # Panics
    /// If somebody has the name.
    pub async fn serve<const N: usize>(connection: &Connection, names: [&str; N]) -> [Self; N] {
        let things = names.map(|_| Self::default());
        for (name, thing) in names.iter().zip(&things) {
            let at = connection.object_server().at(path(name), Object(thing.clone()));
            at.await.expect("an object can be added");
        }
        connection.request_name(SERVICE).await.expect("nobody has the name");
        things
    }

    /// What it is at the moment.
    pub fn values(&self) -> Values {
        self.lock().values.clone()
    }

    /// Makes it something.
    pub fn turn_into(&self, values: Values) {
        self.lock().values = values;
    }

    /// Says how the next attempts to set something end; those after them end well.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.lock().script = answers.into_iter().collect();
    }

    /// What was tried to be set since this was asked last, in order.
    pub fn take_sets(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.lock().sets)
    }

    /// Waits until an attempt to set something is held.
    ///
    /// # Panics
    /// If there is none in a while.
    pub async fn held(&self) {
        let waited = async {
            while !self.lock().is_held {
                tokio::time::sleep(POLL).await;
            }
        };
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, waited).await.expect("somebody sets something");
    }

    /// Lets go what is held.
    pub fn release(&self) {
        self.lock().is_held = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn set(
        &self,
        what: &'static str,
        value: &str,
        set: impl FnOnce(&mut Values),
    ) -> fdo::Result<()> {
        let answer = {
            let mut state = self.lock();
            state.sets.push(what);
            state.script.pop_front().unwrap_or(Answer::Well)
        };
        match answer {
            Answer::Well => {}
            Answer::Fails => return Err(fdo::Error::Failed("the thing is stuck".to_owned())),
            Answer::Quotes => return Err(fdo::Error::Failed(format!("\"{value}\" is odd"))),
            Answer::Lies => return Ok(()),
            Answer::Holds => {
                self.lock().is_held = true;
                while self.lock().is_held {
                    tokio::time::sleep(POLL).await;
                }
            }
        }
        set(&mut self.lock().values);
        Ok(())
    }
}

struct Object(Thing);

#[interface(name = "org.example.Thing1")]
impl Object {
    async fn set_color(&self, color: String) -> fdo::Result<()> {
        self.0.set("color", &color, |values| values.color = color.clone()).await
    }

    async fn set_size(&self, size: u32) -> fdo::Result<()> {
        self.0.set("size", &size.to_string(), |values| values.size = size).await
    }

    async fn set_secret(&self, secret: String) -> fdo::Result<()> {
        self.0.set("secret", &secret, |values| values.secret = secret.clone()).await
    }

    fn look(&self, what: String) -> String {
        format!("a look at {what}")
    }

    #[zbus(name = "Break")]
    fn break_(&self, what: String) -> String {
        format!("{what} is broken")
    }

    fn never(&self) {}

    fn hidden(&self) {}

    #[zbus(property)]
    fn color(&self) -> String {
        self.0.values().color
    }

    #[zbus(property)]
    fn size(&self) -> u32 {
        self.0.values().size
    }

    #[zbus(property)]
    fn secret(&self) -> String {
        self.0.values().secret
    }

    #[zbus(property)]
    fn label(&self) -> String {
        self.0.values().label
    }

    #[zbus(property)]
    async fn set_label(&self, label: String) -> fdo::Result<()> {
        self.0.set("label", &label, |values| values.label = label.clone()).await
    }
}

/// The object of a thing.
pub fn path(name: &str) -> String {
    format!("/org/example/Things/{name}")
}

/// What the service would say of an object.
const INTROSPECTION: &str = r#"<node>
  <interface name="org.example.Thing1">
    <method name="SetColor"><arg name="color" type="s" direction="in"/></method>
    <method name="SetSize"><arg name="size" type="u" direction="in"/></method>
    <method name="SetSecret"><arg name="secret" type="s" direction="in"/></method>
    <method name="Look">
      <arg name="what" type="s" direction="in"/><arg type="s" direction="out"/>
    </method>
    <method name="Break">
      <arg name="what" type="s" direction="in"/><arg type="s" direction="out"/>
    </method>
    <method name="Never"/>
    <method name="Hidden"/>
    <property name="Color" type="s" access="read"/>
    <property name="Size" type="u" access="read"/>
    <property name="Secret" type="s" access="read"/>
    <property name="Label" type="s" access="readwrite"/>
  </interface>
</node>
"#;

const MAPPING: &str = r#"
[methods.SetColor]
args = ["color"]
[methods.SetSize]
args = ["size"]
[methods.SetSecret]
args = ["secret"]
secret_args = ["secret"]
[methods.Look]
safe = true
args = ["what"]
[methods.Break]
args = ["what"]
[methods.Never]
requires_confirmation = true

[state_mapping.color]
property = "Color"
method = "SetColor"
args = ["$value"]
[state_mapping.size]
property = "Size"
method = "SetSize"
args = ["$value"]
[state_mapping.label]
property = "Label"
[state_mapping.secret]
property = "Secret"
method = "SetSecret"
args = ["$value"]
secret = true

[safety]
deny = ["Never"]
calls_per_minute_max = 6000
timeout_ms = 20000
"#;

/// How a plugin is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plugin<'p> {
    /// Plugins that it depends on.
    pub depends_on: &'p [&'p str],
    /// Whether its state can be read alone.
    pub reads_only: bool,
    /// Keys that its `[state]` calls secret.
    pub secret: &'p [&'p str],
    /// The object, if it has another name than the plugin.
    pub thing: Option<&'p str>,
}

/// Writes a plugin for an object of the service into a directory of plugins.
///
/// # Panics
/// If it cannot be written.
pub fn write_plugin(plugins: &Path, name: &str, plugin: Plugin<'_>) {
    let directory = plugins.join(name);
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    let path = path(plugin.thing.unwrap_or(name));
    let applies = !plugin.reads_only;
    let declared = format!(
        "[plugin]\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"auto-generated\"\n\
         dbus_service = \"{SERVICE}\"\ndbus_path = \"{path}\"\ndbus_interface = \"{INTERFACE}\"\n\
         [capabilities]\nquery = true\ndiff = {applies}\napply = {applies}\nverify = {applies}\n\
         [dependencies]\nplugins = {:?}\n[state]\nsecret = {:?}\n",
        plugin.depends_on, plugin.secret
    );
    let mapping = format!(
        "[service]\nname = \"{SERVICE}\"\npath = \"{path}\"\ninterface = \"{INTERFACE}\"\n{MAPPING}"
    );
    let files = [
        ("plugin.toml", declared.as_str()),
        ("introspection.xml", INTROSPECTION),
        ("semantic-mapping.toml", &mapping),
    ];
    for (file, text) in files {
        std::fs::write(directory.join(file), text).expect("a file can be written");
    }
}
