//! Names of plugins.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest name of a plugin.
const NAME_LEN_MAX_BYTES: usize = 64;

/// The name of a plugin: 1 to 64 of `a` to `z`, `0` to `9` and `-`; a letter first, `-` not last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName(String);

/// Why a name is none of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PluginNameProblem {
    /// There is none.
    #[error("it is empty")]
    Empty,
    /// It has too many bytes.
    #[error("it has {len_bytes} bytes, the limit is {}", NAME_LEN_MAX_BYTES)]
    TooLong {
        /// Its length.
        len_bytes: usize,
    },
    /// It begins with something else than a letter.
    #[error("it begins with {found:?}, not with a letter from a to z")]
    Start {
        /// The first character.
        found: char,
    },
    /// A character is not a letter from `a` to `z`, a digit or `-`.
    #[error("it has the character {found:?}, which is none of a to z, 0 to 9 and -")]
    Character {
        /// The first such character.
        found: char,
    },
    /// It ends with `-`.
    #[error("it ends with -")]
    End,
}

impl PluginName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PluginName {
    type Err = PluginNameProblem;

    fn from_str(name: &str) -> Result<Self, PluginNameProblem> {
        if name.len() > NAME_LEN_MAX_BYTES {
            return Err(PluginNameProblem::TooLong { len_bytes: name.len() });
        }
        let Some(first) = name.chars().next() else { return Err(PluginNameProblem::Empty) };
        let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
        match name.chars().find(|character| !allowed(character)) {
            Some(found) => Err(PluginNameProblem::Character { found }),
            None if !first.is_ascii_lowercase() => Err(PluginNameProblem::Start { found: first }),
            None if name.ends_with('-') => Err(PluginNameProblem::End),
            None => Ok(Self(name.to_owned())),
        }
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl AsRef<str> for PluginName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for name in ["a", "lxc", "op-dbus2", &"a".repeat(64)] {
            assert_eq!(name.parse::<PluginName>().unwrap().to_string(), name);
        }
        let too_long = "a".repeat(65);
        let cases = [
            ("", PluginNameProblem::Empty),
            (too_long.as_str(), PluginNameProblem::TooLong { len_bytes: 65 }),
            ("2a", PluginNameProblem::Start { found: '2' }),
            ("-a", PluginNameProblem::Start { found: '-' }),
            ("Lxc", PluginNameProblem::Character { found: 'L' }),
            ("a_b", PluginNameProblem::Character { found: '_' }),
            ("a-", PluginNameProblem::End),
        ];
        for (name, problem) in cases {
            assert_eq!(name.parse::<PluginName>(), Err(problem), "{name}");
        }
    }
}
