//! Names of containers, networks and templates: short, and never an option or a path.

use crate::error::{Error, Result};

/// Longest name.
const NAME_LEN_MAX_BYTES: usize = 63;

/// Whether a name is `[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}`.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= NAME_LEN_MAX_BYTES
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Checks a name that was declared.
pub(crate) fn check(thing: &str, name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_LEN_MAX_BYTES).collect();
    let rule = "1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit";
    Err(Error::invalid(format!("{shown:?} is no name of a {thing}: {rule}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_or_refused() {
        let long = "a".repeat(NAME_LEN_MAX_BYTES + 1);
        for name in ["a", "web-1.example_x", "0", &long[1..]] {
            assert_eq!(check("container", name), Ok(()));
        }
        for name in ["", "-n", ".x", "..", "a/b", "a b", "ä", "a\n", "_a", &long] {
            assert!(check("container", name).is_err(), "{name:?}");
        }
    }
}
