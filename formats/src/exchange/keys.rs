//! Keys beside a file that has only vectors: a line each, in the order of its rows.
//!
//! A line is a JSON string, or `{"key_base64": "…"}` if the key is not UTF-8.

use serde::Deserialize;

use super::base64;
use crate::FormatError;
use crate::record::check_key;

/// Longest line: a key of the greatest length of which each byte is escaped as `\u0000`.
pub const LINE_LEN_MAX_BYTES: usize = 32 << 10;

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Text(String),
    Bytes(Bytes),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bytes {
    key_base64: String,
}

/// Parses one line, with or without its line break.
///
/// # Errors
/// Says in words what is wrong.
pub fn parse_line(line: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = || "it is neither a JSON string nor {\"key_base64\": ...}".to_owned();
    if line.len() > LINE_LEN_MAX_BYTES {
        return Err(format!("it is longer than {LINE_LEN_MAX_BYTES} bytes"));
    }
    let key = match serde_json::from_slice(line).map_err(|_| wrong())? {
        Line::Text(text) => text.into_bytes(),
        Line::Bytes(Bytes { key_base64 }) => base64::parse(key_base64.as_bytes())
            .map_err(|offset| format!("byte {} of its base 64 is wrong", offset + 1))?,
    };
    check_key(&key).map_err(|error| error.to_string())?;
    Ok(key)
}

/// Appends a key to `out` as one line with its line break.
///
/// # Errors
/// [`FormatError::Empty`] or [`FormatError::TooLarge`]; nothing has been appended then.
pub fn render_line(key: &[u8], out: &mut Vec<u8>) -> Result<(), FormatError> {
    check_key(key)?;
    match std::str::from_utf8(key) {
        Ok(key) => out.extend(serde_json::Value::from(key).to_string().into_bytes()),
        Err(_) => {
            out.extend_from_slice(b"{\"key_base64\":\"");
            base64::render(key, out);
            out.extend_from_slice(b"\"}");
        }
    }
    out.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back() {
        for key in [&b"web1"[..], b"a\nb\"\\", &[0xFF, 0], "ü".as_bytes(), &[b'\x01'; 4096]] {
            let mut line = Vec::new();
            render_line(key, &mut line).unwrap();
            assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
            assert_eq!(parse_line(&line).as_deref(), Ok(key));
        }
    }

    #[test]
    fn others_are_refused() {
        for line in ["", "a", "1", "\"\"", "{}", "{\"key_base64\":\"Zg\"}", "[\"a\"]"] {
            assert!(parse_line(line.as_bytes()).is_err(), "{line}");
        }
    }
}
