//! What is declared against what is: changes with dotted paths, made one after the other.

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// One thing that is to be different.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Where, names parted by points: `containers.web.running`.
    pub path: String,
    /// What is there.
    pub from: Value,
    /// What is to be there.
    pub to: Value,
    /// What is done for it, for people.
    pub what: String,
}

impl Change {
    /// The change as the protocol has it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"path": self.path, "from": self.from, "to": self.to, "what": self.what})
    }
}

/// A change, and what makes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<A> {
    /// What will be different.
    pub change: Change,
    /// What the plugin does for it.
    pub action: A,
}

/// A thing that has keys.
#[derive(Clone, Debug)]
pub struct Place(String);

impl Place {
    /// The thing at a path.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        Self(names.join("."))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A step that changes a key.
    pub fn step<A>(
        &self,
        key: &str,
        (from, to): (impl Into<Value>, impl Into<Value>),
        what: impl Into<String>,
        action: A,
    ) -> Step<A> {
        let path = format!("{}.{key}", self.0);
        Step {
            change: Change { path, from: from.into(), to: to.into(), what: what.into() },
            action,
        }
    }

    /// Returns what is declared for a key if it is declared, and not as it is.
    pub fn wanted<T: PartialEq>(actual: &T, desired: Option<T>) -> Option<T> {
        desired.filter(|desired| desired != actual)
    }
}

/// How far steps came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// Those that were made, in order.
    pub done: Vec<Change>,
    /// Why it ended there, and which one failed; none if nothing could be begun.
    pub failure: Option<(Error, Option<Change>)>,
}

/// Makes steps in their order, up to the first that fails.
pub fn in_order<A>(
    steps: Vec<Step<A>>,
    mut before: impl FnMut(&Change),
    mut perform: impl FnMut(A) -> Result<()>,
) -> Applied {
    let mut applied = Applied::default();
    for Step { change, action } in steps {
        before(&change);
        if let Err(error) = perform(action) {
            applied.failure = Some((error, Some(change)));
            break;
        }
        applied.done.push(change);
    }
    applied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Vec<Step<u32>> {
        let place = Place::new(&["things", "a.b"]);
        let step = |number: u32| place.step("size", (number, number + 1), "grow", number);
        (0..3).map(step).collect()
    }

    #[test]
    fn only_what_is_declared_and_different_is_wanted() {
        assert_eq!(Place::wanted(&true, None), None);
        assert_eq!(Place::wanted(&true, Some(true)), None);
        assert_eq!(Place::wanted(&true, Some(false)), Some(false));
    }

    #[test]
    fn a_change_tells_where_from_and_to() {
        let change = steps()[1].change.to_json();
        let expected = json!({"path": "things.a.b.size", "from": 1, "to": 2, "what": "grow"});
        assert_eq!(change, expected);
    }

    #[test]
    fn steps_are_made_up_to_the_first_that_fails() {
        let mut tried = Vec::new();
        let fail_at = |limit: u32, tried: &mut Vec<u32>| {
            in_order(
                steps(),
                |_| (),
                |number| {
                    tried.push(number);
                    if number < limit { Ok(()) } else { Err(Error::invalid("no")) }
                },
            )
        };
        let applied = fail_at(1, &mut tried);
        assert_eq!(tried, [0, 1]);
        assert_eq!(applied.done.len(), 1);
        let (error, change) = applied.failure.unwrap();
        assert_eq!((error.message.as_str(), change), ("no", Some(steps()[1].change.clone())));
        let applied = fail_at(3, &mut tried);
        assert_eq!((applied.done.len(), applied.failure), (3, None));
    }
}
