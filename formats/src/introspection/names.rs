//! Names that D-Bus allows.

use thiserror::Error;

use super::NAME_LEN_MAX_BYTES;

/// Why a name is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameProblem {
    /// There is none.
    #[error("it is empty")]
    Empty,
    /// It has too many bytes.
    #[error("it has {len_bytes} bytes, the limit is {}", NAME_LEN_MAX_BYTES)]
    TooLong {
        /// Its length.
        len_bytes: usize,
    },
    /// Interfaces and services need two elements.
    #[error("it has no point, as org.example.Thing has")]
    NoPoint,
    /// The path of an object is absolute.
    #[error("it does not begin with /")]
    NotAbsolute,
    /// Two separators follow each other, or one stands at an end.
    #[error("an element of it is empty")]
    EmptyElement,
    /// An element begins with a digit.
    #[error("an element of it begins with the digit {found:?}")]
    StartsWithDigit {
        /// The digit.
        found: char,
    },
    /// A character is not a letter from A to Z or a to z, a digit or `_`; in a bus name nor `-`.
    #[error("it has the character {found:?}")]
    Character {
        /// The first such character.
        found: char,
    },
}

/// Checks the name of an interface: two or more elements parted by points.
///
/// Valid: `org.example.Thing1`, `a._`. Invalid: `Thing`, `org..Thing`, `org.1thing`,
/// `org.exam-ple`.
///
/// # Errors
/// Says why it is none.
pub fn check_interface_name(name: &str) -> Result<(), NameProblem> {
    check_len(name)?;
    if !name.contains('.') {
        return Err(NameProblem::NoPoint);
    }
    name.split('.').try_for_each(check_element)
}

/// Checks the well-known name of a service: two or more elements parted by points, in which `-`
/// is allowed but discouraged.
///
/// Valid: `org.example.Service1`, `org.exam-ple.Service`. Invalid: `Service`, `:1.42`, which is a
/// unique name, `org.1service`.
///
/// # Errors
/// Says why it is none.
pub fn check_bus_name(name: &str) -> Result<(), NameProblem> {
    check_len(name)?;
    if !name.contains('.') {
        return Err(NameProblem::NoPoint);
    }
    name.split('.').try_for_each(|element| check_element_with(element, '-'))
}

/// Checks the path of an object: `/`, or elements with one `/` before each.
///
/// Valid: `/`, `/org/example/1`. Invalid: the empty path, `org`, `/org/`, `/org//example`,
/// `/org/exam-ple`.
///
/// # Errors
/// Says why it is none.
pub fn check_object_path(path: &str) -> Result<(), NameProblem> {
    let Some(elements) = path.strip_prefix('/') else {
        return Err(if path.is_empty() { NameProblem::Empty } else { NameProblem::NotAbsolute });
    };
    if elements.is_empty() {
        return Ok(());
    }
    let allowed = |character: char| character.is_ascii_alphanumeric() || character == '_';
    elements.split('/').try_for_each(|element| {
        match element.chars().find(|&character| !allowed(character)) {
            Some(found) => Err(NameProblem::Character { found }),
            None if element.is_empty() => Err(NameProblem::EmptyElement),
            None => Ok(()),
        }
    })
}

/// Checks the name of a method or a signal: one element.
///
/// Valid: `Frobnicate`, `_2`. Invalid: the empty name, `2nd`, `Do.It`.
///
/// # Errors
/// Says why it is none.
pub fn check_member_name(name: &str) -> Result<(), NameProblem> {
    check_len(name)?;
    check_element(name)
}

/// Checks a name whose form D-Bus leaves free: of a property, an argument, an
/// annotation or a node.
///
/// Valid: `Frobnicate`, `scan-type`, `parent-window 2`. Invalid: the empty name, `a\nb`.
///
/// # Errors
/// Says why it is none.
pub fn check_free_name(name: &str) -> Result<(), NameProblem> {
    check_len(name)?;
    match name.chars().find(|character| character.is_control()) {
        Some(found) => Err(NameProblem::Character { found }),
        None => Ok(()),
    }
}

fn check_len(name: &str) -> Result<(), NameProblem> {
    match name.len() {
        0 => Err(NameProblem::Empty),
        len_bytes if len_bytes > NAME_LEN_MAX_BYTES => Err(NameProblem::TooLong { len_bytes }),
        _ => Ok(()),
    }
}

fn check_element(element: &str) -> Result<(), NameProblem> {
    check_element_with(element, '_')
}

/// An element in which one more character is allowed.
fn check_element_with(element: &str, more: char) -> Result<(), NameProblem> {
    let allowed = |character: char| {
        character.is_ascii_alphanumeric() || character == '_' || character == more
    };
    if let Some(found) = element.chars().find(|&character| !allowed(character)) {
        return Err(NameProblem::Character { found });
    }
    match element.chars().next() {
        None => Err(NameProblem::EmptyElement),
        Some(found) if found.is_ascii_digit() => Err(NameProblem::StartsWithDigit { found }),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_follow_the_rule() {
        let longest = format!("a.{}", "b".repeat(253));
        for name in ["org.example.Thing1", "a._", "_._2", &longest] {
            assert_eq!(check_interface_name(name), Ok(()), "{name}");
        }
        let too_long = format!("{longest}b");
        let cases = [
            ("", NameProblem::Empty),
            ("Thing", NameProblem::NoPoint),
            ("org..Thing", NameProblem::EmptyElement),
            (".org", NameProblem::EmptyElement),
            ("org.", NameProblem::EmptyElement),
            ("org.1thing", NameProblem::StartsWithDigit { found: '1' }),
            ("org.exam-ple", NameProblem::Character { found: '-' }),
            ("org.größe", NameProblem::Character { found: 'ö' }),
            (too_long.as_str(), NameProblem::TooLong { len_bytes: 256 }),
        ];
        for (name, problem) in cases {
            assert_eq!(check_interface_name(name), Err(problem), "{name}");
        }
    }

    #[test]
    fn services_follow_the_rule() {
        for name in ["org.example.Service1", "org.exam-ple.-x", "a._"] {
            assert_eq!(check_bus_name(name), Ok(()), "{name}");
        }
        let cases = [
            ("", NameProblem::Empty),
            ("Service", NameProblem::NoPoint),
            (":1.42", NameProblem::Character { found: ':' }),
            ("org..x", NameProblem::EmptyElement),
            ("org.1x", NameProblem::StartsWithDigit { found: '1' }),
        ];
        for (name, problem) in cases {
            assert_eq!(check_bus_name(name), Err(problem), "{name}");
        }
    }

    #[test]
    fn paths_follow_the_rule() {
        for path in ["/", "/org/example/1", "/_"] {
            assert_eq!(check_object_path(path), Ok(()), "{path}");
        }
        let cases = [
            ("", NameProblem::Empty),
            ("org", NameProblem::NotAbsolute),
            ("/org/", NameProblem::EmptyElement),
            ("//", NameProblem::EmptyElement),
            ("/org//x", NameProblem::EmptyElement),
            ("/exam-ple", NameProblem::Character { found: '-' }),
        ];
        for (path, problem) in cases {
            assert_eq!(check_object_path(path), Err(problem), "{path}");
        }
    }

    #[test]
    fn members_follow_the_rule() {
        for name in ["Frobnicate", "_2"] {
            assert_eq!(check_member_name(name), Ok(()), "{name}");
        }
        let cases = [
            ("", NameProblem::Empty),
            ("2nd", NameProblem::StartsWithDigit { found: '2' }),
            ("Do.It", NameProblem::Character { found: '.' }),
        ];
        for (name, problem) in cases {
            assert_eq!(check_member_name(name), Err(problem), "{name}");
        }
    }

    #[test]
    fn free_names_have_no_control_characters() {
        assert_eq!(check_free_name("parent-window 2"), Ok(()));
        assert_eq!(check_free_name("a\nb"), Err(NameProblem::Character { found: '\n' }));
    }
}
