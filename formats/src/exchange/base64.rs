//! Base64 of RFC 4648 section 4: padded, one spelling for every value.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends `bytes` to `out`.
pub(super) fn render(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(3) {
        let mut triple = [0; 4];
        triple[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(triple);
        for index in 0..4 {
            out.push(match index <= chunk.len() {
                true => ALPHABET[(bits >> (18 - 6 * index)) as usize & 63],
                false => b'=',
            });
        }
    }
}

/// Parses `text`, or returns the offset of the first byte that is wrong.
pub(super) fn parse(text: &[u8]) -> Result<Vec<u8>, usize> {
    let (quads, rest) = text.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(text.len());
    }
    let mut bytes = Vec::with_capacity(quads.len() * 3);
    for (index, quad) in quads.iter().enumerate() {
        let last = index + 1 == quads.len();
        let padding = match quad {
            [_, _, b'=', b'='] if last => 2,
            [_, _, _, b'='] if last => 1,
            _ => 0,
        };
        let mut bits = 0_u32;
        for (place, &symbol) in quad[..4 - padding].iter().enumerate() {
            let value = value_of(symbol).ok_or(index * 4 + place)?;
            bits |= u32::from(value) << (18 - 6 * place);
        }
        let [_, triple @ ..] = bits.to_be_bytes();
        let (kept, cut) = triple.split_at(3 - padding);
        // Bits that no byte takes must be zero, or one value would have two spellings.
        if cut.iter().any(|&byte| byte != 0) {
            return Err(index * 4 + 3 - padding);
        }
        bytes.extend_from_slice(kept);
    }
    Ok(bytes)
}

fn value_of(symbol: u8) -> Option<u8> {
    match symbol {
        b'A'..=b'Z' => Some(symbol - b'A'),
        b'a'..=b'z' => Some(symbol - b'a' + 26),
        b'0'..=b'9' => Some(symbol - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_rfc_hold() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, text) in cases {
            let mut rendered = Vec::new();
            render(bytes.as_bytes(), &mut rendered);
            assert_eq!(rendered, text.as_bytes());
            assert_eq!(parse(text.as_bytes()), Ok(bytes.as_bytes().to_vec()));
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut text = Vec::new();
        render(&bytes, &mut text);
        assert_eq!(parse(&text), Ok(bytes));
    }

    #[test]
    fn another_spelling_is_refused() {
        let cases: [(&[u8], usize); 8] = [
            (b"Zg", 2),
            (b"Zg=", 3),
            (b"Zh==", 1),
            (b"Zm9=", 2),
            (b"Z===", 1),
            (b"Zg==Zg==", 2),
            (b"Zm 8", 2),
            (b"Zm-_", 2),
        ];
        for (text, offset) in cases {
            assert_eq!(parse(text), Err(offset), "{}", text.escape_ascii());
        }
    }
}
