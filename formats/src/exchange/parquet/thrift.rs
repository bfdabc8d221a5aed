//! What the bytes of a Parquet file claim, before anything is made of them.
//!
//! The parquet crate takes memory as lengths in the file say: of children of a group, of pages,
//! of values in a dictionary. Memory that cannot be had ends the process, and a schema that is
//! nested too deeply overflows the stack. So both structures that have such lengths, the footer and
//! the headers of pages, are walked here first, without taking any. Fields must ascend, as every
//! writer has them: then none can be told twice, once here and otherwise there.
//!
//! Source: Apache Thrift, "Thrift Compact protocol encoding".

/// Structures may lie in each other so deeply; those of the format take about ten.
const DEPTH_MAX: usize = 32;

/// How deeply groups of columns may lie in each other.
const SCHEMA_DEPTH_MAX: usize = 32;

/// What is wrong with the bytes, for a sentence that names the file.
pub(super) type Problem = &'static str;

const ENDS: Problem = "the metadata ends too early";
const ODD: Problem = "the metadata is not as any program writes it";
const DEEP: Problem = "structures lie too deeply in each other";

/// What a page's header says of its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PageClaim {
    /// Bytes, when they are not compressed any more.
    pub(super) content_bytes: u64,
    /// Bytes in the file.
    pub(super) stored_bytes: u64,
    /// Values, nulls among them.
    pub(super) values: u64,
    /// Whether the values are those that others refer to.
    pub(super) is_dictionary: bool,
}

/// Fields of `PageHeader`.
mod page {
    pub(super) const CONTENT_BYTES: i16 = 2;
    pub(super) const STORED_BYTES: i16 = 3;
    pub(super) const DATA: i16 = 5;
    pub(super) const DICTIONARY: i16 = 7;
    pub(super) const DATA_V2: i16 = 8;
    /// The first field of each of the three.
    pub(super) const VALUES: i16 = 1;
}

/// Fields of `FileMetaData` and of `SchemaElement`.
mod footer {
    pub(super) const SCHEMA: i16 = 2;
    pub(super) const CHILDREN: i16 = 5;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flag,
    Byte,
    Integer,
    Double,
    Binary,
    List,
    Map,
    Struct,
    Uuid,
}

impl Kind {
    fn of(tag: u8) -> Result<Self, Problem> {
        Ok(match tag {
            1 | 2 => Self::Flag,
            3 => Self::Byte,
            4..=6 => Self::Integer,
            7 => Self::Double,
            8 => Self::Binary,
            9 | 10 => Self::List,
            11 => Self::Map,
            12 => Self::Struct,
            13 => Self::Uuid,
            _ => return Err(ODD),
        })
    }
}

/// Reads what the page header at the start of `bytes` claims.
pub(super) fn page_claim(bytes: &[u8]) -> Result<PageClaim, Problem> {
    let mut claim = PageClaim::default();
    let mut walk = Walk { bytes };
    walk.fields(0, &mut |walk, id, kind| {
        match (id, kind) {
            (page::CONTENT_BYTES, Kind::Integer) => claim.content_bytes = walk.size()?,
            (page::STORED_BYTES, Kind::Integer) => claim.stored_bytes = walk.size()?,
            (page::DATA | page::DICTIONARY | page::DATA_V2, Kind::Struct) => {
                claim.is_dictionary |= id == page::DICTIONARY;
                let values = &mut claim.values;
                walk.fields(1, &mut |walk, id, kind| match (id, kind) {
                    (page::VALUES, Kind::Integer) => {
                        *values = (*values).max(walk.size()?);
                        Ok(true)
                    }
                    _ => Ok(false),
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(claim)
}

/// Checks that a footer's structures are no larger and no deeper than its bytes allow.
pub(super) fn check_footer(bytes: &[u8]) -> Result<(), Problem> {
    let mut walk = Walk { bytes };
    walk.fields(0, &mut |walk, id, kind| match (id, kind) {
        (footer::SCHEMA, Kind::List) => walk.schema().map(|()| true),
        _ => Ok(false),
    })
}

struct Walk<'a> {
    bytes: &'a [u8],
}

/// Takes a field's value, or says that it did not.
type Visit<'v, 'a> = dyn FnMut(&mut Walk<'a>, i16, Kind) -> Result<bool, Problem> + 'v;

impl<'a> Walk<'a> {
    fn byte(&mut self) -> Result<u8, Problem> {
        let (&byte, rest) = self.bytes.split_first().ok_or(ENDS)?;
        self.bytes = rest;
        Ok(byte)
    }

    fn skip_bytes(&mut self, count: u64) -> Result<(), Problem> {
        let count = usize::try_from(count).map_err(|_| ENDS)?;
        self.bytes = self.bytes.get(count..).ok_or(ENDS)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Problem> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ODD)
    }

    fn integer(&mut self) -> Result<i64, Problem> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number that counts something.
    fn size(&mut self) -> Result<u64, Problem> {
        let size = i32::try_from(self.integer()?).ok().and_then(|size| u32::try_from(size).ok());
        size.map(u64::from).ok_or("a size is negative, or over 2 GiB")
    }

    /// Walks the fields of a structure; what `visit` does not take is skipped.
    fn fields(&mut self, depth: usize, visit: &mut Visit<'_, 'a>) -> Result<(), Problem> {
        let mut last_id = 0_i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            let kind = Kind::of(head & 0x0F)?;
            let id = match i16::from(head >> 4) {
                0 => i16::try_from(self.integer()?).map_err(|_| ODD)?,
                delta => last_id.checked_add(delta).ok_or(ODD)?,
            };
            if id <= last_id {
                return Err(ODD);
            }
            last_id = id;
            // A flag's value is in its head.
            if kind != Kind::Flag && !visit(self, id, kind)? {
                self.skip(kind, depth + 1)?;
            }
        }
    }

    fn skip(&mut self, kind: Kind, depth: usize) -> Result<(), Problem> {
        if depth > DEPTH_MAX {
            return Err(DEEP);
        }
        match kind {
            Kind::Flag | Kind::Byte => self.skip_bytes(1),
            Kind::Integer => self.varint().map(drop),
            Kind::Double => self.skip_bytes(8),
            Kind::Uuid => self.skip_bytes(16),
            Kind::Binary => {
                let len = self.varint()?;
                self.skip_bytes(len)
            }
            Kind::List => {
                let (kind, count) = self.list()?;
                (0..count).try_for_each(|_| self.skip(kind, depth + 1))
            }
            Kind::Map => {
                let count = self.varint()?;
                if count == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                let (key, value) = (Kind::of(kinds >> 4)?, Kind::of(kinds & 0x0F)?);
                self.check_count(count)?;
                (0..count).try_for_each(|_| {
                    self.skip(key, depth + 1)?;
                    self.skip(value, depth + 1)
                })
            }
            Kind::Struct => self.fields(depth, &mut |_, _, _| Ok(false)),
        }
    }

    /// Reads the head of a list: of what, and how many.
    fn list(&mut self) -> Result<(Kind, u64), Problem> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        self.check_count(count)?;
        Ok((Kind::of(head & 0x0F)?, count))
    }

    /// Each element takes a byte at least.
    fn check_count(&self, count: u64) -> Result<(), Problem> {
        if count > self.bytes.len() as u64 { Err(ENDS) } else { Ok(()) }
    }

    /// Walks the columns, which follow each other as a tree does when it is read from the root.
    fn schema(&mut self) -> Result<(), Problem> {
        let (kind, count) = self.list()?;
        if kind != Kind::Struct {
            return Err(ODD);
        }
        // How many children of each open group are still to come.
        let mut open: Vec<u64> = Vec::new();
        for place in 0..count {
            let mut children = 0;
            self.fields(1, &mut |walk, id, kind| match (id, kind) {
                (footer::CHILDREN, Kind::Integer) => {
                    children = walk.size()?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
            if let Some(last) = open.last_mut() {
                *last -= 1;
            } else if place > 0 {
                return Err("columns lie outside the schema's root");
            }
            if children > count - place - 1 {
                return Err("a group of columns has more than there are");
            }
            open.push(children);
            if open.len() > SCHEMA_DEPTH_MAX {
                return Err(DEEP);
            }
            while open.last() == Some(&0) {
                open.pop();
            }
        }
        if open.is_empty() { Ok(()) } else { Err("a group of columns has more than there are") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_its_size() {
        // Type 0, 300 bytes as 200, and a data page of 75 values.
        let header = [0x15, 0, 0x15, 0xD8, 4, 0x15, 0x90, 3, 0x2C, 0x15, 0x96, 1, 0, 0];
        let claim =
            PageClaim { content_bytes: 300, stored_bytes: 200, values: 75, is_dictionary: false };
        assert_eq!(page_claim(&header), Ok(claim));
        for len in 0..header.len() {
            assert_eq!(page_claim(&header[..len]), Err(ENDS));
        }
    }

    #[test]
    fn nothing_is_told_twice() {
        // Field 2 once more, by its number.
        let twice = [0x15, 0, 0x15, 2, 0x15, 2, 0x05, 4, 0xD8, 4, 0];
        assert_eq!(page_claim(&twice), Err(ODD));
    }

    #[test]
    fn negative_sizes_are_refused() {
        assert!(page_claim(&[0x15, 0, 0x15, 1, 0]).is_err());
    }

    #[test]
    fn groups_have_no_more_columns_than_there_are() {
        // A root of one column is right; one of two, and a column beside it, are not.
        let schema = |children: &[u8]| {
            let mut bytes = vec![0x29, (children.len() as u8) << 4 | 0x0C];
            for &count in children {
                bytes.extend([0x55, count << 1, 0]);
            }
            bytes.push(0);
            check_footer(&bytes)
        };
        assert_eq!(schema(&[1, 0]), Ok(()));
        assert!(schema(&[2, 0]).is_err());
        assert!(schema(&[1, 0, 0]).is_err());
        assert!(schema(&[0, 0]).is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let mut lists = vec![0x19; 100_000];
        lists.push(0);
        assert_eq!(check_footer(&lists), Err(DEEP));
    }
}
