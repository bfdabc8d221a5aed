//! What members of D-Bus interfaces mean, beyond what their introspection says: by the mappings of
//! plugins, and by those that come with the program, which describe services that do not describe
//! themselves, and have phrases by which people look for a member.

use std::collections::HashMap;

use op_dbus_formats::SemanticMapping;
use op_dbus_formats::semantic_mapping;

/// The mappings that come with the program; a test compares them with the directory.
const SHIPPED: &[&str] = &[
    include_str!("../descriptions/net.reactivated.Fprint.toml"),
    include_str!("../descriptions/org.bluez.toml"),
    include_str!("../descriptions/org.freedesktop.Accounts.toml"),
    include_str!("../descriptions/org.freedesktop.Avahi.toml"),
    include_str!("../descriptions/org.freedesktop.ColorHelper.toml"),
    include_str!("../descriptions/org.freedesktop.ColorManager.toml"),
    include_str!("../descriptions/org.freedesktop.DBus.toml"),
    include_str!("../descriptions/org.freedesktop.Flatpak.SystemHelper.toml"),
    include_str!("../descriptions/org.freedesktop.Flatpak.toml"),
    include_str!("../descriptions/org.freedesktop.GeoClue2.toml"),
    include_str!("../descriptions/org.freedesktop.ModemManager1.toml"),
    include_str!("../descriptions/org.freedesktop.NetworkManager.toml"),
    include_str!("../descriptions/org.freedesktop.PackageKit.toml"),
    include_str!("../descriptions/org.freedesktop.PolicyKit1.toml"),
    include_str!("../descriptions/org.freedesktop.RealtimeKit1.toml"),
    include_str!("../descriptions/org.freedesktop.UDisks2.toml"),
    include_str!("../descriptions/org.freedesktop.UPower.toml"),
    include_str!("../descriptions/org.freedesktop.bolt.toml"),
    include_str!("../descriptions/org.freedesktop.fwupd.toml"),
    include_str!("../descriptions/org.freedesktop.hostname1.toml"),
    include_str!("../descriptions/org.freedesktop.locale1.toml"),
    include_str!("../descriptions/org.freedesktop.login1.toml"),
    include_str!("../descriptions/org.freedesktop.machine1.toml"),
    include_str!("../descriptions/org.freedesktop.network1.toml"),
    include_str!("../descriptions/org.freedesktop.portal.Desktop.toml"),
    include_str!("../descriptions/org.freedesktop.portal.Documents.toml"),
    include_str!("../descriptions/org.freedesktop.portal.Flatpak.toml"),
    include_str!("../descriptions/org.freedesktop.resolve1.toml"),
    include_str!("../descriptions/org.freedesktop.systemd1.toml"),
    include_str!("../descriptions/org.freedesktop.timedate1.toml"),
    include_str!("../descriptions/org.gnome.Shell.toml"),
    include_str!("../descriptions/org.libvirt.toml"),
];

/// How risky it is to call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// It changes nothing.
    Safe,
    /// It changes something, and nobody has to think about it first.
    Changes,
    /// Somebody should confirm it.
    Confirm,
    /// It is never called through a plugin.
    Denied,
    /// Nobody has said.
    Unknown,
}

impl Risk {
    /// Its name, which does not change.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Changes => "changes",
            Self::Confirm => "confirm",
            Self::Denied => "denied",
            Self::Unknown => "unknown",
        }
    }
}

/// What is said about a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said<'a> {
    pub(crate) description: Option<&'a str>,
    pub(crate) phrases: &'a [String],
    pub(crate) risk: Option<Risk>,
    pub(crate) side_effects: &'a [String],
    /// The service that the mapping is about.
    pub(crate) service: Option<&'a str>,
    pub(crate) path: Option<&'a str>,
}

/// Kinds of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Method,
    Property,
    Signal,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Property => "property",
            Self::Signal => "signal",
        }
    }
}

/// Says what members mean.
#[derive(Clone, Debug, Default)]
pub struct Descriptions {
    mappings: Vec<SemanticMapping>,
    /// The mappings that say something about an interface; those added last go first.
    by_interface: HashMap<String, Vec<usize>>,
}

impl Descriptions {
    /// Those that come with the program.
    #[must_use]
    pub fn shipped() -> Self {
        let mut descriptions = Self::default();
        for text in SHIPPED {
            match semantic_mapping::parse(text.as_bytes()) {
                Ok(mapping) => descriptions.add(mapping),
                // A test parses all of them.
                Err(error) => tracing::error!(%error, "a description that comes with it is wrong"),
            }
        }
        descriptions
    }

    /// Adds what a mapping says, which goes before what was said until now.
    pub fn add(&mut self, mapping: SemanticMapping) {
        let number = self.mappings.len();
        let names = mapping.methods.keys().chain(mapping.properties.keys());
        let names = names.chain(mapping.signals.keys()).chain(&mapping.safety.deny);
        let interfaces = names.filter_map(|name| Some(name.rsplit_once('.')?.0));
        for interface in interfaces.chain(mapping.service.interface.as_deref()) {
            let numbers = self.by_interface.entry(interface.to_owned()).or_default();
            if numbers.first() != Some(&number) {
                numbers.insert(0, number);
            }
        }
        self.mappings.push(mapping);
    }

    /// The services that are said to have an interface.
    pub(crate) fn services_of(&self, interface: &str) -> impl Iterator<Item = &str> {
        let numbers = self.by_interface.get(interface).map(Vec::as_slice).unwrap_or_default();
        numbers.iter().map(|number| self.mappings[*number].service.name.as_str())
    }

    /// What is said about a member: each part by the first who says anything about it.
    pub(crate) fn of(&self, kind: Kind, interface: &str, member: &str) -> Said<'_> {
        let mut said = Said::default();
        let numbers = self.by_interface.get(interface).map(Vec::as_slice).unwrap_or_default();
        for mapping in numbers.iter().map(|number| &self.mappings[*number]) {
            let more = of_mapping(mapping, kind, interface, member);
            said.description = said.description.or(more.description);
            said.risk = said.risk.or(more.risk);
            said.service = said.service.or(more.service);
            said.path = said.path.or(more.path);
            if said.phrases.is_empty() {
                said.phrases = more.phrases;
            }
            if said.side_effects.is_empty() {
                said.side_effects = more.side_effects;
            }
        }
        said
    }
}

fn of_mapping<'a>(
    mapping: &'a SemanticMapping,
    kind: Kind,
    interface: &str,
    member: &str,
) -> Said<'a> {
    let mut said = Said {
        service: Some(&mapping.service.name),
        path: mapping.service.path.as_deref(),
        ..Said::default()
    };
    match kind {
        Kind::Method => {
            if let Some(method) = mapping.method(interface, member) {
                said.description = method.description.as_deref();
                said.phrases = &method.phrases;
                said.side_effects = &method.side_effects;
                // Phrases alone say nothing about what it does.
                let has_phrases_alone =
                    method.description.is_none() && method.args.is_none() && !method.safe;
                said.risk = match (method.safe, method.requires_confirmation) {
                    (true, false) => Some(Risk::Safe),
                    (false, false) => Some(Risk::Changes),
                    (_, true) if has_phrases_alone && !method.phrases.is_empty() => None,
                    (_, true) => Some(Risk::Confirm),
                };
            }
            if mapping.denies(interface, member) {
                said.risk = Some(Risk::Denied);
            }
        }
        Kind::Property => {
            if let Some(property) = mapping.property(interface, member) {
                said.description = property.description.as_deref();
                said.phrases = &property.phrases;
            }
        }
        Kind::Signal => {
            if let Some(signal) = mapping.signal(interface, member) {
                said.description = signal.description.as_deref();
                said.phrases = &signal.phrases;
            }
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn all_that_are_there_are_shipped_and_right() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("descriptions");
        let there = std::fs::read_dir(directory).unwrap().count();
        assert_eq!(there, SHIPPED.len());
        for text in SHIPPED {
            if let Err(error) = semantic_mapping::parse(text.as_bytes()) {
                panic!("{}: {error}", text.lines().nth(1).unwrap_or_default());
            }
        }
    }

    #[test]
    fn what_is_said_last_goes_first_part_by_part() {
        let mut descriptions = Descriptions::default();
        let mapping = |text: &str| semantic_mapping::parse(text.as_bytes()).unwrap();
        descriptions.add(mapping(
            "[service]\nname = \"a.b\"\n[methods.\"a.b.C\"]\ndescription = \"first\"\n\
             phrases = [\"do it\"]\nsafe = true\n",
        ));
        descriptions.add(mapping(
            "[service]\nname = \"a.c\"\ninterface = \"a.b\"\n[methods.C]\nsafe = false\n",
        ));
        let said = descriptions.of(Kind::Method, "a.b", "C");
        assert_eq!(said.description, Some("first"));
        assert_eq!(said.phrases, ["do it"]);
        assert_eq!(said.risk, Some(Risk::Confirm));
        assert_eq!(said.service, Some("a.c"));
        assert_eq!(descriptions.of(Kind::Method, "a.x", "C"), Said::default());
    }
}
