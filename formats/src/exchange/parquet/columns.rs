//! Which columns of a table are what of a record.

use std::collections::BTreeSet;

use parquet::basic::{LogicalType, Type};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use super::ParquetError;
use super::value::Scalar;

/// Names of the columns that records are made of, where they are not those of [this](super) format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParquetColumns {
    /// The key; unless given `key`, or the row's number if there is none.
    pub key: Option<String>,
    /// The text; unless given `text`, if there is one.
    pub text: Option<String>,
    /// The vector; unless given `vector`, or the one column that has lists of floats.
    pub vector: Option<String>,
    /// Those to leave out.
    pub skipped: Vec<String>,
}

/// What a column is of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Key,
    KeyBytes,
    Text,
    Vector,
    Payload,
    PayloadBytes,
    ExpiresAt,
    /// One of those that together are the payload.
    Member,
}

/// A column that is read.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) role: Role,
    pub(super) name: String,
    /// Which of those in the file it is.
    pub(super) leaf: usize,
    /// How its values are to be taken; those of a vector are floats.
    pub(super) scalar: Scalar,
}

/// A column of the table, with what is below it.
struct Root<'a> {
    name: &'a str,
    first_leaf: usize,
    leaves_count: usize,
    descriptor: &'a ColumnDescriptor,
}

impl Root<'_> {
    fn is_scalar(&self) -> bool {
        let descriptor = self.descriptor;
        self.leaves_count == 1
            && descriptor.max_rep_level() == 0
            && descriptor.path().parts().len() == 1
    }

    fn is_vector(&self) -> bool {
        let element = match self.descriptor.physical_type() {
            Type::FLOAT | Type::DOUBLE => true,
            Type::FIXED_LEN_BYTE_ARRAY => {
                self.descriptor.logical_type_ref() == Some(&LogicalType::Float16)
            }
            _ => false,
        };
        self.leaves_count == 1 && self.descriptor.max_rep_level() == 1 && element
    }

    fn wrong(&self, problem: impl Into<String>) -> ParquetError {
        ParquetError::Column { column: self.name.to_owned(), problem: problem.into() }
    }
}

/// Chooses the columns of a table that make its records.
pub(super) fn choose(
    schema: &SchemaDescriptor,
    columns: &ParquetColumns,
) -> Result<Vec<Chosen>, ParquetError> {
    let roots = roots(schema)?;
    let named = [&columns.key, &columns.text, &columns.vector]
        .into_iter()
        .flatten()
        .chain(&columns.skipped);
    for name in named {
        if !roots.iter().any(|root| root.name == name) {
            let known: Vec<_> = roots.iter().map(|root| root.name).collect();
            let problem = format!("the file has none of this name: it has {}", known.join(", "));
            return Err(ParquetError::Column { column: name.clone(), problem });
        }
    }
    let vector = vector_name(&roots, columns)?;
    let mut chosen = Vec::new();
    for root in roots.iter().filter(|root| columns.skipped.iter().all(|name| name != root.name)) {
        let role = role_of(root, columns, vector);
        chosen.push(Chosen {
            role,
            name: root.name.to_owned(),
            leaf: root.first_leaf,
            scalar: scalar_of(root, role)?,
        });
    }
    check(&chosen)?;
    Ok(chosen)
}

fn check(chosen: &[Chosen]) -> Result<(), ParquetError> {
    let is_place = |column: &&Chosen| matches!(column.role, Role::Payload | Role::PayloadBytes);
    let is_member = |column: &&Chosen| column.role == Role::Member;
    if let (Some(payload), Some(member)) =
        (chosen.iter().find(is_place), chosen.iter().find(is_member))
    {
        let problem = format!("{} has the payload already: skip one of them", payload.name);
        return Err(ParquetError::Column { column: member.name.clone(), problem });
    }
    let has_content =
        |column: &Chosen| !matches!(column.role, Role::Key | Role::KeyBytes | Role::ExpiresAt);
    if chosen.iter().any(has_content) { Ok(()) } else { Err(ParquetError::NoColumns) }
}

fn roots(schema: &SchemaDescriptor) -> Result<Vec<Root<'_>>, ParquetError> {
    let mut roots: Vec<Root<'_>> = Vec::new();
    let (mut names, mut last) = (BTreeSet::new(), None);
    for (leaf, descriptor) in schema.columns().iter().enumerate() {
        let root = schema.get_column_root_idx(leaf);
        match roots.last_mut() {
            Some(same) if last == Some(root) => same.leaves_count += 1,
            _ => {
                let name = schema.root_schema().get_fields()[root].name();
                if !names.insert(name) {
                    let problem = "two columns have this name".to_owned();
                    return Err(ParquetError::Column { column: name.to_owned(), problem });
                }
                roots.push(Root { name, first_leaf: leaf, leaves_count: 1, descriptor });
            }
        }
        last = Some(root);
    }
    Ok(roots)
}

/// The column of vectors, if there is one.
fn vector_name<'a>(
    roots: &[Root<'a>],
    columns: &ParquetColumns,
) -> Result<Option<&'a str>, ParquetError> {
    let wanted = columns.vector.as_deref().unwrap_or("vector");
    if let Some(root) = roots.iter().find(|root| root.name == wanted) {
        return match root.is_vector() {
            true => Ok(Some(root.name)),
            false => Err(root.wrong(
                "it has no lists of floats: cast it to a list of float32, or name another with \
                 --vector-column",
            )),
        };
    }
    let is_left =
        |root: &&Root<'_>| root.is_vector() && columns.skipped.iter().all(|name| name != root.name);
    let mut lists = roots.iter().filter(is_left);
    match (lists.next(), lists.next()) {
        (Some(first), Some(second)) => Err(first.wrong(format!(
            "{} has lists of floats too: say with --vector-column which are the vectors, and skip \
             the other with --skip-column",
            second.name
        ))),
        (first, _) => Ok(first.map(|root| root.name)),
    }
}

fn role_of(root: &Root<'_>, columns: &ParquetColumns, vector: Option<&str>) -> Role {
    let is = |given: &Option<String>, usual: &str| {
        given.as_deref().map_or(root.name == usual, |name| root.name == name)
    };
    match root.name {
        name if Some(name) == vector => Role::Vector,
        _ if is(&columns.key, "key") => Role::Key,
        _ if is(&columns.text, "text") => Role::Text,
        // A column of another name is the key of every row.
        "key_bytes" if columns.key.is_none() => Role::KeyBytes,
        "payload" => Role::Payload,
        "payload_bytes" => Role::PayloadBytes,
        "expires_at" => Role::ExpiresAt,
        _ => Role::Member,
    }
}

fn scalar_of(root: &Root<'_>, role: Role) -> Result<Scalar, ParquetError> {
    if role == Role::Vector {
        return Ok(Scalar::Float);
    }
    let scalar = match root.is_scalar() {
        true => Scalar::of(root.descriptor),
        false => Err("lists and structures"),
    };
    let scalar = scalar.map_err(|what| {
        root.wrong(format!(
            "{what} have no place in a record: cast it to a string, or skip it with --skip-column"
        ))
    })?;
    let fits = match role {
        Role::Key => {
            matches!(scalar, Scalar::Text | Scalar::Json | Scalar::Signed | Scalar::Unsigned)
        }
        Role::Text | Role::Payload => matches!(scalar, Scalar::Text | Scalar::Json),
        Role::KeyBytes | Role::PayloadBytes => matches!(scalar, Scalar::Text),
        Role::ExpiresAt => matches!(scalar, Scalar::Timestamp { .. }),
        Role::Member | Role::Vector => true,
    };
    let wanted = match role {
        Role::Key => "strings or whole numbers",
        Role::ExpiresAt => "timestamps",
        _ => "strings",
    };
    match fits {
        true => Ok(scalar),
        false => {
            Err(root
                .wrong(format!("it must have {wanted}: cast it, or skip it with --skip-column")))
        }
    }
}
