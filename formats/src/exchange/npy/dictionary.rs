//! The Python dictionary in the header of an npy file.

use super::NpyError;

pub(super) struct Fields {
    pub(super) descr: String,
    pub(super) fortran_order: bool,
    /// More axes than two are read so that the error can count them.
    pub(super) shape: Vec<u64>,
}

/// Reads the few Python literals that a header is made of.
pub(super) struct Scanner<'a> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
    /// Offset of `text` in the file.
    pub(super) start: usize,
}

impl Scanner<'_> {
    pub(super) fn dictionary(&mut self) -> Result<Fields, NpyError> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        self.expect(b'{', "a dictionary must begin here")?;
        while !self.take(b'}') {
            let key_at = self.at;
            let key = self.string()?;
            self.expect(b':', "a colon must follow the key")?;
            let again = match key.as_str() {
                "descr" => descr.replace(self.descr()?).is_some(),
                "fortran_order" => fortran_order.replace(self.boolean()?).is_some(),
                "shape" => shape.replace(self.tuple()?).is_some(),
                _ => return Err(self.wrong_at(key_at, "a key that numpy does not write")),
            };
            if again {
                return Err(self.wrong_at(key_at, "this key stands here twice"));
            }
            if !self.take(b',') {
                self.expect(b'}', "a comma or the end of the dictionary must follow")?;
                break;
            }
        }
        self.skip_space();
        if self.at < self.text.len() {
            return Err(self.wrong("something follows the dictionary"));
        }
        let missing = || self.wrong("descr, fortran_order or shape is missing");
        Ok(Fields {
            descr: descr.ok_or_else(missing)?,
            fortran_order: fortran_order.ok_or_else(missing)?,
            shape: shape.ok_or_else(missing)?,
        })
    }

    /// Reads a type; the list that describes a structure is refused as a whole.
    fn descr(&mut self) -> Result<String, NpyError> {
        self.skip_space();
        if self.text.get(self.at) == Some(&b'[') {
            let descr = "[…], a structure".to_owned();
            return Err(NpyError::UnsupportedElement { descr });
        }
        self.string()
    }

    fn string(&mut self) -> Result<String, NpyError> {
        self.skip_space();
        let quote = match self.text.get(self.at) {
            Some(&quote @ (b'\'' | b'"')) => quote,
            _ => return Err(self.wrong("a string must begin here")),
        };
        let rest = &self.text[self.at + 1..];
        let len = rest.iter().take_while(|&&byte| byte != quote).count();
        let content = &rest[..len];
        let plain = |byte: &u8| (b' '..=b'~').contains(byte) && *byte != b'\\';
        if len == rest.len() || !content.iter().all(plain) {
            return Err(self.wrong("this string is not plain ASCII or has no end"));
        }
        self.at += len + 2;
        Ok(content.iter().map(|&byte| char::from(byte)).collect())
    }

    fn boolean(&mut self) -> Result<bool, NpyError> {
        self.skip_space();
        for (word, value) in [("True", true), ("False", false)] {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.wrong("True or False must stand here"))
    }

    fn tuple(&mut self) -> Result<Vec<u64>, NpyError> {
        self.expect(b'(', "a tuple must begin here")?;
        let mut axes = Vec::new();
        while !self.take(b')') {
            axes.push(self.integer()?);
            if !self.take(b',') {
                self.expect(b')', "a comma or the end of the tuple must follow")?;
                break;
            }
        }
        Ok(axes)
    }

    fn integer(&mut self) -> Result<u64, NpyError> {
        self.skip_space();
        let rest = &self.text[self.at..];
        let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = rest[..len].iter().try_fold(0_u64, |number, digit| {
            number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        });
        match number {
            Some(number) if len > 0 => {
                self.at += len;
                Ok(number)
            }
            _ => Err(self.wrong("a whole number of 64 bits must stand here")),
        }
    }

    fn expect(&mut self, byte: u8, problem: &'static str) -> Result<(), NpyError> {
        if self.take(byte) { Ok(()) } else { Err(self.wrong(problem)) }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        let space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.at += self.text[self.at..].iter().take_while(space).count();
    }

    fn wrong(&self, problem: &'static str) -> NpyError {
        self.wrong_at(self.at, problem)
    }

    fn wrong_at(&self, at: usize, problem: &'static str) -> NpyError {
        NpyError::Header { offset_bytes: (self.start + at) as u64, problem }
    }
}
