//! What must hold of notes in files.

use op_dbus_formats::header::FILE_HEADER_LEN_BYTES;
use op_dbus_formats::note_file::{self, MAGIC};

/// What decodes encodes to the same bytes.
pub fn note_file(data: &[u8]) {
    let len_bytes = data.len().max(FILE_HEADER_LEN_BYTES);
    for bytes in [data, &super::sealed_file(data, MAGIC, len_bytes)] {
        if let Ok(note) = note_file::decode(bytes) {
            assert_eq!(note_file::encode(note).as_deref(), Ok(bytes));
        }
    }
}
