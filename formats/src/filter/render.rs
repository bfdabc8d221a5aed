//! The canonical form of a filter.

use std::fmt::{self, Display, Formatter};

use super::literal::write_quoted;
use super::{Comparison, Condition, Field, Filter, RESERVED, begins_path, is_of_name};

impl Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write(f, &self.condition)
    }
}

impl Filter {
    fn write(&self, f: &mut Formatter<'_>, condition: &Condition) -> fmt::Result {
        match condition {
            Condition::All(conditions) => self.write_joined(f, conditions, " and "),
            Condition::Any(conditions) => self.write_joined(f, conditions, " or "),
            Condition::Not(condition) => {
                f.write_str("not ")?;
                let is_joined = matches!(**condition, Condition::All(_) | Condition::Any(_));
                self.write_in_parentheses(f, condition, is_joined)
            }
            Condition::Exists(field) => {
                f.write_str("exists ")?;
                self.write_field(f, *field)
            }
            Condition::IsTrue(field) => self.write_field(f, *field),
            Condition::Compares(field, comparison, literal) => {
                self.write_field(f, *field)?;
                write!(f, " {comparison} {literal}")
            }
            Condition::IsIn(field, literals) => {
                self.write_field(f, *field)?;
                f.write_str(" in [")?;
                for (place, literal) in literals.iter().enumerate() {
                    write!(f, "{}{literal}", if place == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Condition::Contains(field, literal) => {
                self.write_field(f, *field)?;
                write!(f, " contains {literal}")
            }
            Condition::StartsWith(field, text) => {
                self.write_field(f, *field)?;
                f.write_str(" starts with ")?;
                write_quoted(f, text)
            }
        }
    }

    fn write_joined(
        &self,
        f: &mut Formatter<'_>,
        conditions: &[Condition],
        word: &str,
    ) -> fmt::Result {
        for (place, condition) in conditions.iter().enumerate() {
            f.write_str(if place == 0 { "" } else { word })?;
            // `and` binds more than `or`, and neither is within its like.
            self.write_in_parentheses(f, condition, matches!(condition, Condition::Any(_)))?;
        }
        Ok(())
    }

    fn write_in_parentheses(
        &self,
        f: &mut Formatter<'_>,
        condition: &Condition,
        are_needed: bool,
    ) -> fmt::Result {
        f.write_str(if are_needed { "(" } else { "" })?;
        self.write(f, condition)?;
        f.write_str(if are_needed { ")" } else { "" })
    }

    fn write_field(&self, f: &mut Formatter<'_>, field: Field) -> fmt::Result {
        let Field::Payload(number) = field else {
            let name = Field::OF_RECORDS.iter().find(|(_, known)| *known == field);
            return f.write_str(name.map_or("", |(name, _)| name));
        };
        for (place, name) in self.paths[number].iter().enumerate() {
            let is_plain = !name.is_empty() && name.chars().all(is_of_name);
            let begins = name.starts_with(begins_path) && !RESERVED.contains(&&name[..]);
            if place > 0 || !is_plain || !begins {
                f.write_str(".")?;
            }
            match is_plain {
                true => f.write_str(name)?,
                false => write_quoted(f, name)?,
            }
        }
        Ok(())
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sign = Self::ALL.iter().find(|(_, known)| known == self);
        f.write_str(sign.map_or("", |(sign, _)| sign))
    }
}
