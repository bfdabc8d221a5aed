//! Walking the objects of a service, within bounds: it may have endlessly many, or never answer.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use op_dbus_formats::introspection::{self, Interface, Node, check_object_path};
use tokio::time::{Instant, timeout_at};

use crate::plugin::create::is_standard;

/// Elements of a path.
const DEPTH_MAX: usize = 16;
const OBJECTS_COUNT_MAX: usize = 256;
const MEMBERS_COUNT_MAX: usize = 5_000;
const XML_LEN_MAX_BYTES: usize = 8 << 20;
/// How long a service is waited for.
pub(super) const PATIENCE: Patience =
    Patience { call: Duration::from_secs(2), service: Duration::from_secs(10) };
/// Of children that look alike.
const ALIKE_COUNT_MAX: usize = 2;
/// How the bus writes the point before the type of systemd's units into paths.
const UNIT_TYPE: &str = "_2e";

/// How long is waited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For one answer.
    call: Duration,
    /// For all answers of a service.
    service: Duration,
}

/// What a service has.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Each interface, and the first object that has it.
    pub(super) interfaces: BTreeMap<String, (Interface, String)>,
    /// Whether it has answered at all.
    pub(super) has_answered: bool,
    /// Whether all was seen: nothing was too slow, wrong, or too much.
    pub(super) is_complete: bool,
    members_count: usize,
    len_bytes: usize,
}

/// Asks the objects of a service for their interfaces, from the root on: those near it first. `ask`
/// gives the XML of an object, or nothing.
///
/// The objects that every service has are interesting only at the bus itself (`has_standard`).
pub(super) async fn walk<F, A>(
    service: &str,
    has_standard: bool,
    patience: Patience,
    ask: F,
) -> Found
where
    F: Fn(String) -> A,
    A: Future<Output = Option<String>>,
{
    let deadline = Instant::now() + patience.service;
    let mut found = Found { is_complete: true, ..Found::default() };
    let main_object = format!("/{}", service.replace(['.', '-'], "/"));
    let first = if has_standard { main_object.clone() } else { "/".to_owned() };
    let mut seen = HashSet::from([first.clone()]);
    let mut waiting = VecDeque::from([first]);
    let mut asked_count = 0;
    while let Some(path) = waiting.pop_front() {
        let now = Instant::now();
        let is_too_much = asked_count == OBJECTS_COUNT_MAX || found.len_bytes >= XML_LEN_MAX_BYTES;
        if is_too_much || found.members_count >= MEMBERS_COUNT_MAX || now >= deadline {
            found.is_complete = false;
            break;
        }
        asked_count += 1;
        let until = deadline.min(now + patience.call);
        let Ok(answer) = timeout_at(until, ask(path.clone())).await else {
            found.is_complete = false;
            // Whoever does not answer for the root answers for nothing.
            if !found.has_answered {
                break;
            }
            continue;
        };
        found.has_answered = true;
        let node = match answer {
            Some(xml) => parsed(xml, &path, &mut found).await,
            None => {
                found.is_complete = false;
                Node::default()
            }
        };
        let children = children_to_ask(&path, &node);
        for path in children {
            if waiting.len() + asked_count >= OBJECTS_COUNT_MAX {
                found.is_complete = false;
                break;
            }
            if seen.insert(path.clone()) {
                waiting.push_back(path);
            }
        }
        found.take(node, &path, has_standard);
        // Some services say nothing of what is between the root and their object.
        if waiting.is_empty() && found.interfaces.is_empty() && seen.insert(main_object.clone()) {
            waiting.push_back(main_object.clone());
        }
    }
    found
}

/// Parses beside those who wait for answers. What is wrong says nothing.
async fn parsed(xml: String, path: &str, found: &mut Found) -> Node {
    found.len_bytes += xml.len();
    let parsed = tokio::task::spawn_blocking(move || introspection::parse(xml.as_bytes())).await;
    match parsed {
        Ok(Ok(node)) => return node,
        Ok(Err(error)) => tracing::debug!(%error, path, "an object is described wrongly"),
        Err(error) => tracing::debug!(%error, path, "an object is not understood"),
    }
    found.is_complete = false;
    Node::default()
}

impl Found {
    fn take(&mut self, node: Node, path: &str, has_standard: bool) {
        for interface in node.interfaces {
            let is_wanted = has_standard || !is_standard(&interface.name);
            if !is_wanted || self.interfaces.contains_key(&interface.name) {
                continue;
            }
            let members_count =
                interface.methods.len() + interface.properties.len() + interface.signals.len();
            if self.members_count + members_count > MEMBERS_COUNT_MAX {
                self.is_complete = false;
                continue;
            }
            self.members_count += members_count;
            self.interfaces.insert(interface.name.clone(), (interface, path.to_owned()));
        }
    }
}

/// The paths of children, of many that look alike only the first.
fn children_to_ask(path: &str, node: &Node) -> Vec<String> {
    let mut alike: HashMap<String, usize> = HashMap::new();
    let mut children = Vec::new();
    for name in node.nodes.iter().filter_map(|child| child.name.as_deref()) {
        let child = match path {
            "/" => format!("/{}", name.trim_start_matches('/')),
            // Some say the whole path of a child.
            _ if name.starts_with('/') => name.to_owned(),
            _ => format!("{path}/{name}"),
        };
        let is_below = path == "/" || child.starts_with(&format!("{path}/"));
        let depth = child.split('/').count() - 1;
        if !is_below || depth > DEPTH_MAX || check_object_path(&child).is_err() {
            continue;
        }
        let count = alike.entry(shape(name)).or_default();
        *count += 1;
        if *count <= ALIKE_COUNT_MAX {
            children.push(child);
        }
    }
    children
}

/// What names have in common that look alike: `sda#` of sda1, `*_2eservice` of dbus_2eservice.
fn shape(name: &str) -> String {
    if let Some(at) = name.rfind(UNIT_TYPE) {
        return format!("*{}", &name[at..]);
    }
    let mut shape = String::with_capacity(name.len());
    for character in name.chars() {
        match character.is_ascii_digit() {
            true if shape.ends_with('#') => {}
            true => shape.push('#'),
            false => shape.push(character),
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn node(interfaces: &[&str], children: impl IntoIterator<Item = String>) -> String {
        let interface =
            |name: &&str| format!("<interface name='{name}'><method name='M'/></interface>");
        let child = |name: String| format!("<node name='{name}'/>");
        let interfaces: String = interfaces.iter().map(interface).collect();
        let children: String = children.into_iter().map(child).collect();
        format!("<node>{interfaces}{children}</node>")
    }

    #[test]
    fn names_that_look_alike_have_a_shape() {
        assert_eq!(shape("sda12"), "sda#");
        assert_eq!(shape("7"), "#");
        assert_eq!(shape("dbus_2eservice"), shape("ssh_40foo_2eservice"));
        assert_ne!(shape("dbus_2eservice"), shape("dbus_2esocket"));
        let names = ["a1", "a2", "a3", "b", "/x", "b-c", "x/../y", "d/e"].map(String::from);
        let parsed = introspection::parse(node(&[], names).as_bytes()).unwrap();
        assert_eq!(children_to_ask("/o", &parsed), ["/o/a1", "/o/a2", "/o/b", "/o/d/e"]);
        assert_eq!(children_to_ask("/", &parsed)[..2], ["/a1", "/a2"]);
    }

    #[tokio::test]
    async fn an_interface_is_of_the_first_object_that_has_it() {
        let ask = |path: String| async move {
            Some(match path.as_str() {
                "/" => node(&["org.freedesktop.DBus.Peer"], ["a".to_owned(), "b".to_owned()]),
                "/a" => node(&["x.A", "x.B"], []),
                _ => node(&["x.B", "x.C"], []),
            })
        };
        let found = walk("x.Service", false, PATIENCE, ask).await;
        let places: Vec<_> = found
            .interfaces
            .iter()
            .map(|(name, (_, path))| (name.as_str(), path.as_str()))
            .collect();
        assert_eq!(places, [("x.A", "/a"), ("x.B", "/a"), ("x.C", "/b")]);
        assert!(found.is_complete && found.has_answered);
    }

    #[tokio::test]
    async fn the_object_named_like_the_service_is_asked_where_the_root_says_nothing() {
        let ask = |path: String| async move { (path == "/x/Service").then(|| node(&["x.A"], [])) };
        let found = walk("x.Service", false, PATIENCE, ask).await;
        assert_eq!(found.interfaces["x.A"].1, "/x/Service");
    }

    #[tokio::test]
    async fn an_endless_tree_has_an_end() {
        let asked = AtomicUsize::new(0);
        let ask = |path: String| {
            asked.fetch_add(1, Ordering::Relaxed);
            let interface = format!("x.I{}", path.len());
            // Three of each level that do not look alike.
            async move { Some(node(&[&interface], ["a", "b", "c"].map(String::from))) }
        };
        let found = walk("x.Service", false, PATIENCE, ask).await;
        assert_eq!(asked.load(Ordering::Relaxed), OBJECTS_COUNT_MAX);
        assert!(!found.is_complete && found.interfaces.len() > 3);
        let one_child = |path: String| {
            asked.fetch_max(1000 + path.split('/').count() - 1, Ordering::Relaxed);
            async move { Some(node(&[], ["a".to_owned()])) }
        };
        walk("x.Service", false, PATIENCE, one_child).await;
        assert_eq!(asked.load(Ordering::Relaxed), 1000 + DEPTH_MAX);
    }

    #[tokio::test]
    async fn there_is_a_limit_of_members_and_of_bytes() {
        let members: String =
            (0..MEMBERS_COUNT_MAX).map(|n| format!("<method name='M{n}'/>")).collect();
        let ask = move |path: String| {
            let xml = match path.as_str() {
                "/" => node(&["x.Small"], ["a".to_owned(), "b".to_owned()]),
                "/a" => format!("<node><interface name='x.Large'>{members}</interface></node>"),
                _ => node(&["x.Other"], []),
            };
            async move { Some(xml) }
        };
        let found = walk("x.Service", false, PATIENCE, ask).await;
        assert!(!found.is_complete);
        assert_eq!(found.interfaces.keys().collect::<Vec<_>>(), ["x.Other", "x.Small"]);
        let ask = |_: String| async {
            let children = (0..9).map(|n| "a".repeat(n + 1));
            Some(node(&[], children) + &" ".repeat(3 << 20))
        };
        let found = walk("x.Service", false, PATIENCE, ask).await;
        assert!(!found.is_complete && found.len_bytes < 4 * XML_LEN_MAX_BYTES / 2);
    }

    #[tokio::test]
    async fn who_never_answers_is_given_up() {
        let (call, service) = (Duration::from_millis(20), Duration::from_millis(100));
        let patience = Patience { call, service };
        let started = Instant::now();
        let found = walk("x.Service", false, patience, |_| std::future::pending()).await;
        assert!(!found.has_answered && !found.is_complete);
        assert!(started.elapsed() < service);
        let asked = AtomicUsize::new(0);
        let ask = |path: String| {
            asked.fetch_add(1, Ordering::Relaxed);
            async move {
                if path != "/" {
                    std::future::pending::<()>().await;
                }
                Some(node(&["x.A"], (0..50).map(|n| "a".repeat(n + 1))))
            }
        };
        let found = walk("x.Service", false, patience, ask).await;
        assert!(found.has_answered && !found.is_complete && found.interfaces.len() == 1);
        assert!(asked.load(Ordering::Relaxed) < 10);
    }
}
