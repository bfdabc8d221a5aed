//! The columns as Arrow's programs have them, which say that vectors are of one length.
//!
//! Parquet itself has only lists of any length. Arrow's programs put their own schema beside it,
//! and make arrays of fixed length, which numpy takes without a copy, if it says so.

use crate::exchange::base64;

/// The schema as Arrow 26 serializes it, in its flat buffer, with a length of 0 for vectors.
const SCHEMA: &str = "\
    /////+ABAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAMAAAACAAIAAAABAAIAAAABAAAAAcAAACIAQAASAEAABwB\
    AACsAAAAgAAAAEwAAAAEAAAApP7//wAAAQoQAAAAJAAAAAQAAAAAAAAACgAAAGV4cGlyZXNfYXQAAAgADAAGAAgA\
    CAAAAAAAAQAEAAAAAwAAAFVUQwDo/v//AAABBBAAAAAgAAAABAAAAAAAAAANAAAAcGF5bG9hZF9ieXRlcwAAAOT+\
    //8Y////AAABBRAAAAAYAAAABAAAAAAAAAAHAAAAcGF5bG9hZAAM////QP///wAAARAUAAAAJAAAAAQAAAABAAAA\
    IAAAAAYAAAB2ZWN0b3IAAAAABgAIAAQABgAAAAAAAAB4////AAABAxAAAAAgAAAABAAAAAAAAAAHAAAAZWxlbWVu\
    dAAAAAYACAAGAAYAAAAAAAEArP///wAAAQUQAAAAGAAAAAQAAAAAAAAABAAAAHRleHQAAAAAoP///9T///8AAAEE\
    EAAAABwAAAAEAAAAAAAAAAkAAABrZXlfYnl0ZXMAAADM////EAAUAAgABgAHAAwAAAAQABAAAAAAAAEFEAAAABgA\
    AAAEAAAAAAAAAAMAAABrZXkABAAEAAQAAAA=";

/// Where in it the length of vectors stands, an i32.
const LENGTH_OFFSET_BYTES: usize = 292;

/// The schema for vectors of so many dimensions, in base 64.
pub(super) fn of(dimensions: u32) -> String {
    let mut schema = base64::parse(SCHEMA.as_bytes()).unwrap_or_default();
    if let Some(length) = schema.get_mut(LENGTH_OFFSET_BYTES..LENGTH_OFFSET_BYTES + 4) {
        length.copy_from_slice(&dimensions.to_le_bytes());
    }
    let mut text = Vec::new();
    base64::render(&schema, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_stands_where_a_list_of_fixed_length_has_it() {
        let schema = base64::parse(of(384).as_bytes()).unwrap();
        assert_eq!(schema.len(), 488);
        assert_eq!(schema[LENGTH_OFFSET_BYTES..][..4], 384_u32.to_le_bytes());
        assert_eq!(base64::parse(of(0).as_bytes()), base64::parse(SCHEMA.as_bytes()));
    }
}
