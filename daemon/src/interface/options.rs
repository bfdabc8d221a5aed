//! Options that a method takes as `a{sv}`: by name and type, and none that is not known.

use std::collections::HashMap;

use op_dbus_engine::{ErrorKind, Query};
use zbus::{OwnedVariant, Variant};

use crate::error::{BusError, Result};
use crate::gate::Reader;

/// Options as they come.
pub(crate) type Options = HashMap<String, OwnedVariant>;

/// The collections that are asked for by name, each of which has to be required of the reader.
pub(super) fn collections(options: &Options) -> Result<Vec<&str>> {
    let Some(value) = options.get("collections") else { return Ok(Vec::new()) };
    let Variant::Array(names) = &**value else { return Err(wrong("collections", "as")) };
    let mut texts = Vec::with_capacity(names.len());
    for name in names.iter() {
        let Variant::Str(text) = name else { return Err(wrong("collections", "as")) };
        texts.push(text.as_str());
    }
    Ok(texts)
}

/// Applies the options of a search; unless they name collections, leaves out what this reader may not
/// read.
pub(super) fn search(
    mut query: Query,
    options: &Options,
    reader: &Reader,
    known: impl FnOnce() -> Vec<String>,
) -> Result<Query> {
    let mut has_collections = false;
    for (name, value) in options {
        query = match (name.as_str(), &**value) {
            ("limit", Variant::U32(limit)) => query.limit(*limit as usize),
            ("min-score", Variant::F64(score)) => query.min_score(*score as f32),
            ("recall", Variant::F64(recall)) => query.recall(*recall),
            ("exact", Variant::Bool(true)) => query.exact(),
            ("exact", Variant::Bool(false)) => query,
            ("collections", Variant::Array(names)) => {
                for name in names.iter() {
                    let Variant::Str(name) = name else { return Err(wrong("collections", "as")) };
                    query = query.collection(name.as_str());
                    has_collections = true;
                }
                query
            }
            ("limit", _) => return Err(wrong("limit", "u")),
            ("min-score", _) => return Err(wrong("min-score", "d")),
            ("recall", _) => return Err(wrong("recall", "d")),
            ("exact", _) => return Err(wrong("exact", "b")),
            ("collections", _) => return Err(wrong("collections", "as")),
            (unknown, _) => {
                let remedy = "use limit, min-score, recall, exact or collections";
                let problem = format!("there is no option \"{unknown}\"");
                return Err(BusError::new(ErrorKind::Invalid, problem, remedy));
            }
        };
    }
    if has_collections {
        return Ok(query);
    }
    // Not by naming the others: those that do not fit the query would be an error then.
    Ok(known().into_iter().filter(|name| !reader.may_read(name)).fold(query, Query::except))
}

fn wrong(name: &str, signature: &str) -> BusError {
    let problem = format!("the option \"{name}\" is of another type");
    BusError::new(ErrorKind::Invalid, problem, &format!("give it as {signature}"))
}
