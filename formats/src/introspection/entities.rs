//! Entities that a document defines for itself.
//!
//! PackageKit, UPower and fprintd name their errors so. What makes entities dangerous
//! is left out: values that refer to other entities (which multiply), parameter
//! entities, and external ones (which read files). What is expanded is counted, so a
//! document never grows by more than [`EXPANDED_LEN_MAX_BYTES`].

use std::collections::BTreeMap;

/// Most entities a document may define.
const ENTITIES_COUNT_MAX: usize = 256;

/// Longest value of an entity.
const VALUE_LEN_MAX_BYTES: usize = 1024;

/// Most bytes that all references of a document may expand to.
const EXPANDED_LEN_MAX_BYTES: usize = 1 << 20;

/// The entities of one document.
#[derive(Debug, Default)]
pub(super) struct Entities<'a> {
    values: BTreeMap<&'a str, &'a str>,
    expanded_len_bytes: usize,
}

impl<'a> Entities<'a> {
    /// Parses what follows `DOCTYPE` in a document type declaration.
    ///
    /// # Errors
    /// Says what in it is refused.
    pub(super) fn parse(declaration: &'a str) -> Result<Self, String> {
        let Some(start) = internal_subset_start(declaration) else { return Ok(Self::default()) };
        let subset = declaration[start..].trim_end();
        let Some(mut rest) = subset.strip_suffix(']').map(str::trim_start) else {
            return Err("the document type does not end with ]".to_owned());
        };
        let mut entities = Self::default();
        while !rest.is_empty() {
            if let Some(comment) = rest.strip_prefix("<!--") {
                let Some((_, after)) = comment.split_once("-->") else {
                    return Err("a comment in the document type does not end".to_owned());
                };
                rest = after.trim_start();
                continue;
            }
            let (name, value, after) = entity(rest)?;
            if entities.values.len() == ENTITIES_COUNT_MAX {
                return Err(format!("the document defines over {ENTITIES_COUNT_MAX} entities"));
            }
            // The first definition is the one that counts: XML 1.0, section 4.2.
            entities.values.entry(name).or_insert(value);
            rest = after.trim_start();
        }
        Ok(entities)
    }

    /// Returns what `&name;` stands for; `None` if the document does not define it.
    ///
    /// # Errors
    /// Says so if the document has expanded too much already.
    pub(super) fn expand(&mut self, name: &str) -> Result<Option<&'a str>, String> {
        let Some(&value) = self.values.get(name) else { return Ok(None) };
        self.expanded_len_bytes += value.len();
        if self.expanded_len_bytes > EXPANDED_LEN_MAX_BYTES {
            return Err("the entities of the document expand to over 1 MiB".to_owned());
        }
        Ok(Some(value))
    }
}

/// Finds where the declarations inside a document type begin: after the first `[`
/// that does not stand in a quoted identifier.
fn internal_subset_start(declaration: &str) -> Option<usize> {
    let mut quote = None;
    for (index, character) in declaration.char_indices() {
        match (quote, character) {
            (None, '"' | '\'') => quote = Some(character),
            (None, '[') => return Some(index + 1),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
    }
    None
}

/// Takes `<!ENTITY name "value">` from the start of `text`; returns what follows too.
fn entity(text: &str) -> Result<(&str, &str, &str), String> {
    const ONLY: &str = "only entities with a plain value may be declared in a document type";
    let only = || ONLY.to_owned();
    let declared = text.strip_prefix("<!ENTITY").ok_or_else(only)?;
    let name_start = declared.trim_start();
    let name_len = name_start.find(char::is_whitespace).ok_or_else(only)?;
    let (name, after_name) = name_start.split_at(name_len);
    let is_name = !name.is_empty()
        && name_start.len() < declared.len()
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'));
    let quoted = after_name.trim_start();
    let quote = quoted.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or_else(only)?;
    let (value, after) = quoted[1..].split_once(quote).ok_or_else(only)?;
    let after = after.trim_start().strip_prefix('>').ok_or_else(only)?;
    if !is_name || value.contains(['&', '%', '<']) {
        return Err(only());
    }
    if value.len() > VALUE_LEN_MAX_BYTES {
        let len = value.len();
        return Err(format!("an entity of {len} bytes is over the limit of 1024"));
    }
    Ok((name, value, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTERNAL: &str = r#"node PUBLIC "-//x//[y]//EN" "http://example.org/x.dtd""#;

    #[test]
    fn plain_entities_are_expanded() {
        let declaration = format!(
            "{EXTERNAL} [\n <!ENTITY A \"org.example.A\">\n<!-- > ] -->\n <!ENTITY b.c 'x' >\n]"
        );
        let mut entities = Entities::parse(&declaration).unwrap();
        assert_eq!(entities.expand("A"), Ok(Some("org.example.A")));
        assert_eq!(entities.expand("b.c"), Ok(Some("x")));
        assert_eq!(entities.expand("B"), Ok(None));
        assert_eq!(Entities::parse(EXTERNAL).unwrap().expand("A"), Ok(None));
    }

    #[test]
    fn what_could_grow_or_read_files_is_refused() {
        for subset in [
            r#"<!ENTITY a "&b;&b;">"#,
            r#"<!ENTITY a "&#38;b;">"#,
            r#"<!ENTITY % a "x">"#,
            r#"<!ENTITY a SYSTEM "file:///etc/passwd">"#,
            r#"<!ELEMENT node ANY>"#,
            r#"<!ENTITY a "x"#,
            r#"<!ENTITYa "x">"#,
            "%a;",
            "<!-- no end",
        ] {
            let declaration = format!("node [{subset}]");
            assert!(Entities::parse(&declaration).is_err(), "{subset}");
        }
        assert!(Entities::parse(r#"node [<!ENTITY a "x">"#).is_err());
        let long = format!("node [<!ENTITY a \"{}\">]", "x".repeat(VALUE_LEN_MAX_BYTES + 1));
        assert!(Entities::parse(&long).unwrap_err().contains("1025 bytes"));
        let many: String =
            (0..=ENTITIES_COUNT_MAX).map(|n| format!("<!ENTITY a{n} \"\">")).collect();
        assert!(Entities::parse(&format!("node [{many}]")).unwrap_err().contains("over 256"));
    }

    #[test]
    fn expansion_is_bounded() {
        let declaration = format!("node [<!ENTITY a \"{}\">]", "x".repeat(1024));
        let mut entities = Entities::parse(&declaration).unwrap();
        for _ in 0..EXPANDED_LEN_MAX_BYTES / 1024 {
            assert!(entities.expand("a").unwrap().is_some());
        }
        assert!(entities.expand("a").unwrap_err().contains("1 MiB"));
    }
}
