//! Lists of NUMA nodes and of CPUs as `numactl` takes them.
//!
//! | text | meaning |
//! |---|---|
//! | `all` | all that the process may use |
//! | `0-3,8` | these |
//! | `+0-1` | the first two of those that the process may use |
//! | `!1`, `!+0` | all that the process may use but these |
//!
//! Deliberately lacking: `same` and the nodes of devices (`netdev:`, `file:`), which mean nothing in
//! a configuration that is read once.
//!
//! Source of the syntax: numactl(8), numactl 2.0.16.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::error::TextError;

/// The largest number of a node or a CPU: Linux has room for 8,192 CPUs.
pub const NUMBER_MAX: u32 = 8191;
/// Ranges of one list at most.
const RANGES_MAX: usize = 1024;

/// A list as it was written, before it is known what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaList {
    /// Of `all` none.
    ranges: Vec<RangeInclusive<u32>>,
    is_relative: bool,
    is_inverted: bool,
}

impl NumaList {
    /// One number.
    #[must_use]
    pub fn of(number: u32) -> Self {
        Self { ranges: vec![number..=number], is_relative: false, is_inverted: false }
    }

    /// All that the process may use.
    #[must_use]
    pub fn all() -> Self {
        Self { ranges: Vec::new(), is_relative: false, is_inverted: false }
    }

    /// Reads a list.
    ///
    /// # Errors
    /// What is no list, and the column.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if text == "all" {
            return Ok(Self::all());
        }
        let (is_inverted, rest) = strip(text, '!');
        let (is_relative, rest) = strip(rest, '+');
        let mut ranges = Vec::new();
        let mut offset = text.len() - rest.len();
        for part in rest.split(',') {
            let range = parse_range(part)
                .map_err(|(at, problem)| TextError::at(text.as_bytes(), offset + at, 1, problem))?;
            if ranges.len() == RANGES_MAX {
                let problem = format!("there are more than {RANGES_MAX} ranges");
                return Err(TextError::at(text.as_bytes(), offset, 1, problem));
            }
            ranges.push(range);
            offset += part.len() + 1;
        }
        Ok(Self { ranges, is_relative, is_inverted })
    }

    /// Whether it names places among what the process may use, and no numbers.
    #[must_use]
    pub fn is_relative(&self) -> bool {
        self.is_relative
    }

    /// The numbers that are meant, where a process may use these.
    ///
    /// # Errors
    /// The first number of the list that is not among them; of a relative list a place at which there
    /// is none.
    pub fn select(&self, allowed: &BTreeSet<u32>) -> Result<BTreeSet<u32>, u32> {
        if self.ranges.is_empty() {
            return Ok(allowed.clone());
        }
        let places: Vec<u32> = allowed.iter().copied().collect();
        let mut named = BTreeSet::new();
        for number in self.ranges.iter().cloned().flatten() {
            let found = match self.is_relative {
                true => places.get(number as usize).copied(),
                false => allowed.get(&number).copied(),
            };
            named.insert(found.ok_or(number)?);
        }
        Ok(match self.is_inverted {
            true => allowed.difference(&named).copied().collect(),
            false => named,
        })
    }
}

/// The shortest text of some numbers: what [`NumaList::parse`] reads as these.
#[must_use]
pub fn render<'a>(numbers: impl IntoIterator<Item = &'a u32>) -> String {
    let mut ranges: Vec<RangeInclusive<u32>> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(number) => {
                *last = *last.start()..=number;
            }
            _ => ranges.push(number..=number),
        }
    }
    let parts: Vec<String> = ranges.iter().map(render_range).collect();
    parts.join(",")
}

fn render_range(range: &RangeInclusive<u32>) -> String {
    match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}-{}", range.start(), range.end()),
    }
}

fn strip(text: &str, mark: char) -> (bool, &str) {
    text.strip_prefix(mark).map_or((false, text), |rest| (true, rest))
}

/// A number or two; or where it goes wrong.
fn parse_range(part: &str) -> Result<RangeInclusive<u32>, (usize, String)> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let last_at = part.len() - last.len();
    let start = parse_number(first).map_err(|problem| (0, problem))?;
    let end = parse_number(last).map_err(|problem| (last_at, problem))?;
    if end < start {
        return Err((last_at, format!("{end} is less than {start}")));
    }
    Ok(start..=end)
}

fn parse_number(text: &str) -> Result<u32, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "\"{}\" is no number; lists are written 0-3,8 or !1 or +0 or all",
            text.chars().take(20).collect::<String>().escape_debug()
        ));
    }
    match text.parse() {
        Ok(number) if number <= NUMBER_MAX => Ok(number),
        _ => Err(format!("numbers go up to {NUMBER_MAX}")),
    }
}

impl FromStr for NumaList {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        Self::parse(text)
    }
}

impl Display for NumaList {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.ranges.is_empty() {
            return f.write_str("all");
        }
        let marks = [(self.is_inverted, "!"), (self.is_relative, "+")];
        marks
            .iter()
            .filter(|(is_there, _)| *is_there)
            .try_for_each(|(_, mark)| f.write_str(mark))?;
        let parts: Vec<String> = self.ranges.iter().map(render_range).collect();
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(list: &str, allowed: &[u32]) -> Result<Vec<u32>, u32> {
        let list = NumaList::parse(list).unwrap();
        list.select(&allowed.iter().copied().collect()).map(|found| found.into_iter().collect())
    }

    #[test]
    fn lists_mean_what_numactl_says() {
        let allowed = [0, 1, 2, 3, 8, 9];
        for (list, expected) in [
            ("all", &allowed[..]),
            ("0-3,8", &[0, 1, 2, 3, 8]),
            ("8,1", &[1, 8]),
            ("1-2,2-3", &[1, 2, 3]),
            ("!1", &[0, 2, 3, 8, 9]),
            ("!0-3,8", &[9]),
            ("+0", &[0]),
            ("+4-5", &[8, 9]),
            ("!+4", &[0, 1, 2, 3, 9]),
        ] {
            assert_eq!(selected(list, &allowed).as_deref(), Ok(expected), "{list}");
        }
        assert_eq!(selected("0-8", &allowed), Err(4));
        assert_eq!(selected("+6", &allowed), Err(6));
        assert_eq!(selected("!7", &allowed), Err(7));
        assert_eq!(selected("!0-3,8,9", &allowed), Ok(vec![]));
    }

    #[test]
    fn what_is_no_list_says_where() {
        for (list, column) in [
            ("", 1),
            ("!", 2),
            ("0,", 3),
            ("0-", 3),
            ("2-1", 3),
            ("0,a", 3),
            ("0x1", 1),
            ("+!1", 2),
            ("8192", 1),
            ("0-99999999999", 3),
            ("-1", 1),
            ("same", 1),
            (" 1", 1),
        ] {
            assert_eq!(NumaList::parse(list).unwrap_err().column, column, "{list}");
        }
    }

    #[test]
    fn lists_come_back_as_they_were_written() {
        for list in ["all", "0-3,8", "!1", "!+0-1", "+5", "3,3,1-1"] {
            let parsed = NumaList::parse(list).unwrap();
            assert_eq!(NumaList::parse(&parsed.to_string()), Ok(parsed), "{list}");
        }
        assert_eq!(render(&[0, 1, 2, 3, 8]), "0-3,8");
        assert_eq!(render(&[]), "");
    }
}
