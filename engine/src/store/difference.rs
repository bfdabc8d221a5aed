//! What differs between two stores, or a store and what it was: both are walked in the order of keys.

use std::cmp::Ordering;
use std::iter::Peekable;

use super::{Scan, Store};
use crate::error::{ErrorKind, Result};
use crate::os::clock::unix_ms;
use crate::record::Record;

/// A record that two stores do not have alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its key.
    pub key: Vec<u8>,
    /// What it is in the first; `None` if it is not there.
    pub before: Option<Record>,
    /// What it is in the second; `None` if it is not there.
    pub after: Option<Record>,
}

/// The records of a collection that differ, in the order of keys. Made by [`Store::differences`].
pub struct Differences<'a> {
    before: Option<Peekable<Scan<'a>>>,
    after: Option<Peekable<Scan<'a>>>,
}

impl Store {
    /// Walks the records of a collection whose keys start with `prefix` and which are others in another
    /// store, such as a [snapshot](crate::StoreConfig::at_snapshot) of this one. A collection that only
    /// one of them has counts as empty in the other.
    ///
    /// What had expired when a snapshot was taken is not in it; what expires later is.
    ///
    /// Cost: reads all of those records, of both stores.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if neither has the collection.
    pub fn differences<'a>(
        &'a self,
        later: &'a Self,
        collection: &str,
        prefix: &[u8],
    ) -> Result<Differences<'a>> {
        let moment = |store: &Self| store.taken_unix_ms.unwrap_or_else(unix_ms);
        let before = existing(self.scan_at(collection, prefix, moment(self)))?;
        let after = match later.scan_at(collection, prefix, moment(later)) {
            // One of them has it.
            after if before.is_some() => existing(after)?,
            after => Some(after?.peekable()),
        };
        Ok(Differences { before, after })
    }
}

fn existing(scan: Result<Scan<'_>>) -> Result<Option<Peekable<Scan<'_>>>> {
    match scan {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        scan => Ok(Some(scan?.peekable())),
    }
}

impl Iterator for Differences<'_> {
    type Item = Result<Difference>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_pair().transpose()? {
                Ok((before, after)) if before == after => {}
                Ok((before, after)) => {
                    let key = before.as_ref().or(after.as_ref()).map(|record| record.key.clone());
                    return Some(Ok(Difference { key: key.unwrap_or_default(), before, after }));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Differences<'_> {
    /// What both have under the next key that one of them has.
    fn next_pair(&mut self) -> Result<Option<(Option<Record>, Option<Record>)>> {
        fn key<'s>(scan: &'s mut Option<Peekable<Scan<'_>>>) -> Option<&'s [u8]> {
            // An error has no key, and comes first.
            let record = scan.as_mut()?.peek()?;
            Some(record.as_ref().map_or(&[][..], |record| &record.key))
        }
        let order = match (key(&mut self.before), key(&mut self.after)) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) => before.cmp(after),
        };
        let take = |scan: &mut Option<Peekable<Scan<'_>>>| {
            scan.as_mut().and_then(Iterator::next).transpose()
        };
        let before = if order.is_le() { take(&mut self.before)? } else { None };
        let after = if order.is_ge() { take(&mut self.after)? } else { None };
        Ok(Some((before, after)))
    }
}
