//! Whose an interface is, where several services have it: the record of a member names one of them,
//! and people who follow it must not end at a stranger who merely exports the same.

use std::collections::BTreeSet;

/// The names that there are on a bus.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Those that somebody has.
    pub(super) owned: BTreeSet<String>,
    /// Those of services that are started when they are called.
    pub(super) activatable: BTreeSet<String>,
}

impl Names {
    fn has(&self, name: &str) -> bool {
        self.owned.contains(name) || self.activatable.contains(name)
    }

    /// The longest name that an interface's name begins with.
    pub(super) fn best_for<'i>(&self, interface: &'i str) -> Option<&'i str> {
        beginnings(interface).find(|name| self.has(name))
    }
}

/// What becomes of a service's claim to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The interface is told of as this service's.
    Granted,
    /// Somebody with a better name is there, and has not been asked yet.
    Waits,
    /// It is another's.
    Refused,
}

/// What a claim is judged by.
pub(super) struct Claim<'a> {
    pub(super) interface: &'a str,
    /// Who has it now.
    pub(super) service: &'a str,
    /// Whose it was until now.
    pub(super) incumbent: Option<&'a str>,
    /// Whose it is by the descriptions.
    pub(super) described: Option<&'a str>,
}

/// Decides whose an interface is: of the service whose name is the longest that the interface's name
/// begins with; else of the first one, as long as that is there or can be started.
///
/// A better name counts also while nobody has it: a service that does not run just now does not lose
/// what is its own. One that runs and has said that it has no such interface (`has_said_all`) makes
/// no claim.
pub(super) fn judge(
    claim: &Claim<'_>,
    names: &Names,
    has_said_all: impl Fn(&str) -> bool,
) -> Verdict {
    let Claim { interface, service, incumbent, described } = *claim;
    let own = rank(service, interface);
    if let Some(incumbent) = incumbent.filter(|incumbent| *incumbent != service) {
        let rank = rank(incumbent, interface);
        if rank > own || rank == own && names.has(incumbent) {
            return Verdict::Refused;
        }
    }
    if described.is_some_and(|described| rank(described, interface) > own) {
        return Verdict::Refused;
    }
    let better = beginnings(interface).take_while(|name| name.len() > own);
    for name in better.filter(|name| names.has(name)) {
        if !names.owned.contains(name) {
            return Verdict::Refused;
        }
        if !has_said_all(name) {
            return Verdict::Waits;
        }
    }
    Verdict::Granted
}

/// How much of an interface's name is the name of a service: its length, or 0 if it is another.
pub(super) fn rank(service: &str, interface: &str) -> usize {
    match interface.strip_prefix(service) {
        Some(rest) if rest.is_empty() || rest.starts_with('.') => service.len(),
        _ => 0,
    }
}

/// The whole name, then without its last element, and so on.
fn beginnings(interface: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(interface), |name| Some(name.rsplit_once('.')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANAGER: &str = "org.freedesktop.login1.Manager";
    const REAL: &str = "org.freedesktop.login1";
    const STRANGER: &str = "com.example.Stranger";

    fn names(owned: &[&str], activatable: &[&str]) -> Names {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names { owned: set(owned), activatable: set(activatable) }
    }

    fn claim<'a>(service: &'a str, incumbent: Option<&'a str>) -> Claim<'a> {
        Claim { interface: MANAGER, service, incumbent, described: None }
    }

    #[test]
    fn the_longest_name_that_begins_the_interfaces_is_the_best() {
        let names = names(&["org.bluez", "org.freedesktop.UDisks"], &["org.freedesktop.UDisks2"]);
        assert_eq!(names.best_for("org.bluez.Adapter1"), Some("org.bluez"));
        assert_eq!(names.best_for("org.bluezish.Adapter1"), None);
        assert_eq!(
            names.best_for("org.freedesktop.UDisks2.Block"),
            Some("org.freedesktop.UDisks2")
        );
        assert_eq!(rank("org.bluez", "org.bluez"), "org.bluez".len());
        assert_eq!(rank("org.blue", "org.bluez"), 0);
    }

    #[test]
    fn a_stranger_gets_nothing_that_somebody_with_a_better_name_has() {
        let both = names(&[REAL, STRANGER], &[]);
        for incumbent in [None, Some(STRANGER), Some("gone.Service")] {
            assert_eq!(judge(&claim(REAL, incumbent), &both, |_| false), Verdict::Granted);
        }
        for owned in [&[REAL, STRANGER][..], &[STRANGER]] {
            let names = names(owned, &[]);
            assert_eq!(judge(&claim(STRANGER, Some(REAL)), &names, |_| true), Verdict::Refused);
        }
        // Nobody has asked the better one yet; then it was asked, and has no such interface.
        assert_eq!(judge(&claim(STRANGER, None), &both, |_| false), Verdict::Waits);
        assert_eq!(judge(&claim(STRANGER, None), &both, |_| true), Verdict::Granted);
        // It does not run, or is only known by its description.
        let sleeping = names(&[STRANGER], &[REAL]);
        assert_eq!(judge(&claim(STRANGER, None), &sleeping, |_| true), Verdict::Refused);
        let described = Claim { described: Some(REAL), ..claim(STRANGER, None) };
        let alone = names(&[STRANGER], &[]);
        assert_eq!(judge(&described, &alone, |_| true), Verdict::Refused);
        assert_eq!(judge(&claim(STRANGER, None), &alone, |_| true), Verdict::Granted);
    }

    #[test]
    fn among_equals_the_first_one_stays_while_it_is_there() {
        let claim = |service| Claim {
            interface: "org.example.Player",
            service,
            incumbent: Some("a.First"),
            described: None,
        };
        let verdict = |service, names: &Names| judge(&claim(service), names, |_| true);
        let both = names(&["a.First", "b.Second"], &[]);
        assert_eq!(verdict("a.First", &both), Verdict::Granted);
        assert_eq!(verdict("b.Second", &both), Verdict::Refused);
        let sleeping = names(&["b.Second"], &["a.First"]);
        assert_eq!(verdict("b.Second", &sleeping), Verdict::Refused);
        assert_eq!(verdict("b.Second", &names(&["b.Second"], &[])), Verdict::Granted);
    }
}
