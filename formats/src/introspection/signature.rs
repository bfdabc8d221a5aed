//! Type signatures of D-Bus.

use thiserror::Error;

/// Longest signature.
const LEN_MAX_BYTES: usize = 255;

/// Deepest nesting of arrays, and apart from it of structures.
const DEPTH_MAX: usize = 32;

/// Why text is not a type signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{problem} at byte {index}")]
pub struct SignatureError {
    /// What is wrong.
    pub problem: &'static str,
    /// Index of the byte.
    pub index: usize,
}

/// Checks a signature: any number of complete types, also none.
///
/// # Errors
/// Says where it stops to be one.
pub fn check_signature(signature: &str) -> Result<(), SignatureError> {
    let mut checker = Checker::new(signature)?;
    while checker.index < checker.signature.len() {
        checker.complete_type()?;
    }
    Ok(())
}

/// Checks a signature of exactly one complete type, which is what an argument and a
/// property have.
///
/// # Errors
/// Says where it stops to be one.
pub fn check_complete_type(signature: &str) -> Result<(), SignatureError> {
    let mut checker = Checker::new(signature)?;
    checker.complete_type()?;
    if checker.index < checker.signature.len() {
        return Err(checker.wrong("a second complete type begins"));
    }
    Ok(())
}

struct Checker<'a> {
    signature: &'a [u8],
    index: usize,
    arrays_depth: usize,
    structures_depth: usize,
}

impl<'a> Checker<'a> {
    fn new(signature: &'a str) -> Result<Self, SignatureError> {
        let signature = signature.as_bytes();
        let checker = Self { signature, index: 0, arrays_depth: 0, structures_depth: 0 };
        if signature.len() > LEN_MAX_BYTES {
            let problem = "signature goes on after 255 bytes";
            return Err(SignatureError { problem, index: LEN_MAX_BYTES });
        }
        Ok(checker)
    }

    /// Takes one complete type. It calls itself once for each open bracket and array,
    /// of which there are no more than twice the deepest nesting.
    fn complete_type(&mut self) -> Result<(), SignatureError> {
        match self.peek() {
            Some(b'a') => self.array(),
            Some(b'(') => self.structure(),
            Some(b'v') => {
                self.index += 1;
                Ok(())
            }
            _ => self.basic_type(),
        }
    }

    fn array(&mut self) -> Result<(), SignatureError> {
        self.arrays_depth += 1;
        if self.arrays_depth > DEPTH_MAX {
            return Err(self.wrong("arrays are nested over 32 deep"));
        }
        self.index += 1;
        match self.peek() {
            Some(b'{') => self.dictionary_entry()?,
            _ => self.complete_type()?,
        }
        self.arrays_depth -= 1;
        Ok(())
    }

    /// Takes an entry, which stands in an array and so needs no limit of its own.
    fn dictionary_entry(&mut self) -> Result<(), SignatureError> {
        self.index += 1;
        self.basic_type()?;
        self.complete_type()?;
        self.end(b'}', "a dictionary entry must end")
    }

    fn structure(&mut self) -> Result<(), SignatureError> {
        self.structures_depth += 1;
        if self.structures_depth > DEPTH_MAX {
            return Err(self.wrong("structures are nested over 32 deep"));
        }
        self.index += 1;
        self.complete_type()?;
        while !matches!(self.peek(), Some(b')') | None) {
            self.complete_type()?;
        }
        self.structures_depth -= 1;
        self.end(b')', "a structure must end")
    }

    fn end(&mut self, bracket: u8, problem: &'static str) -> Result<(), SignatureError> {
        if self.peek() != Some(bracket) {
            return Err(self.wrong(problem));
        }
        self.index += 1;
        Ok(())
    }

    fn basic_type(&mut self) -> Result<(), SignatureError> {
        match self.peek() {
            Some(code) if b"ybnqiuxtdsogh".contains(&code) => {
                self.index += 1;
                Ok(())
            }
            Some(_) => Err(self.wrong("no type begins")),
            None => Err(self.wrong("a type is missing")),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.signature.get(self.index).copied()
    }

    fn wrong(&self, problem: &'static str) -> SignatureError {
        SignatureError { problem, index: self.index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_types_are_taken() {
        let arrays = format!("{}y", "a".repeat(32));
        let structures = format!("{}y{}", "(".repeat(32), ")".repeat(32));
        let both = format!("{}{}y{}", "a".repeat(32), "(".repeat(32), ")".repeat(32));
        for signature in
            ["y", "h", "v", "as", "a{sv}", "a{oa{sa{sv}}}", "(i)", "(ia(ss)v)", "aa{s(vv)}"]
                .into_iter()
                .chain([arrays.as_str(), &structures, &both])
        {
            assert_eq!(check_complete_type(signature), Ok(()), "{signature}");
        }
        assert_eq!(check_signature(""), Ok(()));
        assert_eq!(check_signature("sa{sv}(ii)"), Ok(()));
        assert_eq!(check_signature(&"y".repeat(255)), Ok(()));
    }

    #[test]
    fn what_is_no_type_is_located() {
        let (arrays, structures) = ("a".repeat(33), "(".repeat(33));
        let long = "y".repeat(256);
        let cases = [
            ("", "a type is missing", 0),
            ("a", "a type is missing", 1),
            ("z", "no type begins", 0),
            ("ss", "a second complete type begins", 1),
            ("()", "no type begins", 1),
            ("(i", "a structure must end", 2),
            ("i)", "a second complete type begins", 1),
            ("{sv}", "no type begins", 0),
            ("a{vs}", "no type begins", 2),
            ("a{s}", "no type begins", 3),
            ("a{ssv}", "a dictionary entry must end", 4),
            ("a{(i)s}", "no type begins", 2),
            ("a{sv", "a dictionary entry must end", 4),
            (&arrays, "arrays are nested over 32 deep", 32),
            (&structures, "structures are nested over 32 deep", 32),
            (&long, "signature goes on after 255 bytes", 255),
        ];
        for (signature, problem, index) in cases {
            let expected = SignatureError { problem, index };
            assert_eq!(check_complete_type(signature), Err(expected), "{signature}");
        }
    }
}
