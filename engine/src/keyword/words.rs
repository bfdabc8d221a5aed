//! What counts as a word, in records and in queries alike.
//!
//! A run of letters and digits is one, in lower case. One that is put together of others, as
//! `PowerOff`, `GetDNSServers` and `login1` are, counts as each of them, too: `power`, `off` and
//! `poweroff`. Nothing is cut off its end and no word is left out for being frequent: texts are of any
//! language, and names are to be found as they are.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

/// What is longer is no word that anybody looks for: a key, a checksum, a picture.
const WORD_LEN_MAX_BYTES: usize = 128;

/// The words of a text, in their order; those that are parts of one come after it.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for run in text.split(|character: char| !character.is_alphanumeric()) {
        if run.is_empty() || run.len() > WORD_LEN_MAX_BYTES {
            continue;
        }
        let parts = parts(run);
        words.push(run.to_lowercase());
        if parts.len() > 1 {
            // A number alone says little: of `login1`, `login` is a word, and `1` is not.
            let telling = parts.iter().filter(|part| !part.starts_with(is_digit));
            words.extend(telling.map(|part| part.to_lowercase()));
        }
    }
    words
}

fn is_digit(character: char) -> bool {
    character.is_numeric()
}

/// Where a run of letters and digits is put together: `Get`, `DNS`, `Servers`.
fn parts(run: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut before = None;
    let mut characters = run.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        if before.is_some_and(|before| begins_part(before, character, next)) {
            parts.push(&run[begin..at]);
            begin = at;
        }
        before = Some(character);
    }
    parts.push(&run[begin..]);
    parts
}

fn begins_part(before: char, character: char, next: Option<char>) -> bool {
    if is_digit(before) != is_digit(character) {
        return true;
    }
    character.is_uppercase() && (!before.is_uppercase() || next.is_some_and(char::is_lowercase))
}

/// The same for tantivy.
#[derive(Clone, Default)]
pub(super) struct WordTokenizer;

/// Words of one text.
pub(super) struct WordStream {
    words: std::vec::IntoIter<String>,
    token: Token,
}

impl Tokenizer for WordTokenizer {
    type TokenStream<'a> = WordStream;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream {
        WordStream { words: words(text).into_iter(), token: Token::default() }
    }
}

impl TokenStream for WordStream {
    fn advance(&mut self) -> bool {
        let Some(word) = self.words.next() else { return false };
        self.token.text = word;
        self.token.position = self.token.position.wrapping_add(1);
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> String {
        words(text).join(" ")
    }

    #[test]
    fn names_are_found_whole_and_by_their_parts() {
        let name = "org.freedesktop.login1.Manager.PowerOff";
        assert_eq!(joined(name), "org freedesktop login1 login manager poweroff power off");
        assert_eq!(joined("GetDNSServers"), "getdnsservers get dns servers");
        assert_eq!(joined("list_all-units"), "list all units");
        assert_eq!(joined("2048-qt IPv6"), "2048 qt ipv6 i pv");
        assert_eq!(joined("NetworkManager"), "networkmanager network manager");
    }

    #[test]
    fn texts_of_any_language_have_words() {
        assert_eq!(joined("Zürich: ÉTÉ, naïve"), "zürich été naïve");
        assert_eq!(joined(" \"(* -+:~^)\" AND /x/"), "and x");
        assert_eq!(joined("重启 网络"), "重启 网络");
        assert_eq!(joined(""), "");
    }

    #[test]
    fn what_nobody_looks_for_is_no_word() {
        let long = "a".repeat(WORD_LEN_MAX_BYTES);
        assert_eq!(words(&long), std::slice::from_ref(&long));
        assert_eq!(joined(&format!("x {long}a y")), "x y");
    }
}
