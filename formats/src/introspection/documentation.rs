//! Plain text out of what people wrote in comments, annotations and elements.
//!
//! Only markup is removed and white space collapsed; the words stay as they are.

/// Tags that stand apart from the text around them, by their local names: of DocBook,
/// XHTML and the `doc` vocabulary.
const BLOCK_TAGS: [&str; 38] = [
    "blockquote",
    "br",
    "code",
    "dd",
    "definition",
    "deprecated",
    "description",
    "div",
    "dl",
    "error",
    "errors",
    "example",
    "informalexample",
    "item",
    "itemizedlist",
    "li",
    "list",
    "listitem",
    "member",
    "note",
    "ol",
    "orderedlist",
    "p",
    "para",
    "permission",
    "pre",
    "programlisting",
    "section",
    "seealso",
    "simplelist",
    "summary",
    "table",
    "title",
    "tr",
    "ul",
    "variablelist",
    "varlistentry",
    "warning",
];

/// Tags of terms, which a colon parts from their definition.
const TERM_TAGS: [&str; 2] = ["dt", "term"];

/// Longest tag that is taken for one in a comment, where a `<` may be just that.
const TAG_LEN_MAX_BYTES: usize = 1024;

/// Most arguments that a comment may describe.
const ARGUMENTS_COUNT_MAX: usize = 256;

/// What must be written before the next word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    Space,
    Paragraph,
    /// A space that does not grow to a paragraph: what follows explains a term.
    AfterTerm,
}

/// Collects words and parts them by single spaces and paragraphs.
#[derive(Debug, Default)]
pub(super) struct TextBuilder {
    text: String,
    gap: Gap,
}

impl TextBuilder {
    /// Appends text in which white space has no meaning.
    pub(super) fn push_str(&mut self, text: &str) {
        for character in text.chars() {
            self.push(character);
        }
    }

    pub(super) fn push(&mut self, character: char) {
        if character.is_whitespace() || character.is_control() {
            self.widen(Gap::Space);
            return;
        }
        if !self.text.is_empty() {
            match self.gap {
                Gap::None => {}
                Gap::Space | Gap::AfterTerm => self.text.push(' '),
                Gap::Paragraph => self.text.push_str("\n\n"),
            }
        }
        self.gap = Gap::None;
        self.text.push(character);
    }

    /// Begins a new paragraph, unless nothing stands before it.
    pub(super) fn paragraph(&mut self) {
        self.widen(Gap::Paragraph);
    }

    /// Notes that the element of this local name begins.
    pub(super) fn start_tag(&mut self, name: &str) {
        if BLOCK_TAGS.contains(&name) || TERM_TAGS.contains(&name) {
            self.paragraph();
        }
    }

    /// Notes that the element of this local name ends.
    pub(super) fn end_tag(&mut self, name: &str) {
        if TERM_TAGS.contains(&name) {
            if !self.text.is_empty() && !self.text.ends_with(':') {
                self.text.push(':');
            }
            self.gap = Gap::AfterTerm;
        } else if BLOCK_TAGS.contains(&name) {
            self.paragraph();
        }
    }

    /// Appends a term that the text after it explains.
    pub(super) fn term(&mut self, term: &str) {
        self.push_str(term);
        self.end_tag(TERM_TAGS[0]);
    }

    /// Returns the text, if there is any.
    pub(super) fn finish(self) -> Option<String> {
        (!self.text.is_empty()).then_some(self.text)
    }

    fn widen(&mut self, gap: Gap) {
        self.gap = self.gap.max(gap);
    }
}

/// What a comment says about the element after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comment {
    /// The name that it begins with, if it is in the style of gtk-doc.
    pub(super) symbol: Option<String>,
    pub(super) text: Option<String>,
    /// Name and text of each argument.
    pub(super) arguments: Vec<(String, String)>,
}

impl Comment {
    /// Parses a comment, or returns `None` if it documents nothing: a rule, a licence,
    /// or elements that somebody has put out of use.
    pub(super) fn parse(comment: &str) -> Option<Self> {
        let start = comment.trim_start();
        let retired = ["<method", "<signal", "<property", "<interface", "<arg", "<annotation"];
        if !comment.contains(char::is_alphabetic)
            || retired.iter().any(|tag| start.starts_with(tag))
            || comment.contains("Copyright")
            || comment.contains("SPDX-License-Identifier")
            || comment.contains("This file is part of")
        {
            return None;
        }
        let mut lines = comment.lines().map(undecorated).skip_while(|line| line.is_empty());
        let mut parts = Parts::default();
        let first = lines.next()?;
        let symbol = symbol_of(first).map(str::to_owned);
        if symbol.is_none() {
            parts.line(first);
        }
        lines.for_each(|line| parts.line(line));
        let text = plain_text(&[parts.summary, "\n\n", &parts.body].concat());
        let arguments: Vec<(String, String)> = parts
            .arguments
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), plain_text(&text)?)))
            .collect();
        (text.is_some() || !arguments.is_empty()).then_some(Self { symbol, text, arguments })
    }
}

/// The lines of a comment, sorted.
#[derive(Default)]
struct Parts<'a> {
    summary: &'a str,
    arguments: Vec<(&'a str, String)>,
    /// Whether the next line may go on with the last argument.
    in_argument: bool,
    body: String,
}

impl<'a> Parts<'a> {
    fn line(&mut self, line: &'a str) {
        if let Some((name, text)) = argument_of(line) {
            self.in_argument = false;
            match name {
                "short_description" => self.summary = text,
                "since" | "stability" | "title" | "see_also" => {}
                _ if self.arguments.len() == ARGUMENTS_COUNT_MAX => {}
                _ => {
                    self.arguments.push((name, text.to_owned()));
                    self.in_argument = true;
                }
            }
            return;
        }
        // An empty line ends an argument.
        self.in_argument &= !line.is_empty();
        match self.arguments.last_mut() {
            _ if is_since(line) => {}
            Some((_, text)) if self.in_argument => {
                text.push(' ');
                text.push_str(line);
            }
            _ => {
                self.body.push_str(line);
                self.body.push('\n');
            }
        }
    }
}

/// Returns the plain text of a docstring or of a part of a comment, if there is any.
pub(super) fn plain_text(markup: &str) -> Option<String> {
    let mut builder = TextBuilder::default();
    let mut rest = markup;
    let mut previous = ' ';
    while let Some(character) = rest.chars().next() {
        let taken = match character {
            '<' => take_tag(rest, &mut builder),
            '&' => take_entity(rest, &mut builder),
            '\n' if rest[1..].trim_start_matches([' ', '\t', '\r']).starts_with('\n') => {
                builder.paragraph();
                Some(1)
            }
            // Marks of gtk-doc before a symbol, a constant and an argument.
            '#' | '%' | '@' if previous.is_whitespace() || previous == '(' => {
                rest[1..].starts_with(|next: char| next.is_alphabetic() || next == '_').then_some(1)
            }
            _ => None,
        };
        let len = taken.unwrap_or_else(|| {
            builder.push(character);
            character.len_utf8()
        });
        rest = &rest[len..];
        previous = character;
    }
    builder.finish()
}

/// Takes the tag at the start of `text`, if there is one, and returns its length.
fn take_tag(text: &str, builder: &mut TextBuilder) -> Option<usize> {
    const CDATA: &str = "<![CDATA[";
    if text.starts_with(CDATA) {
        return Some(CDATA.len());
    }
    let closing = text.starts_with("</");
    let name_start = 1 + usize::from(closing);
    let tail = &text.as_bytes()[name_start..];
    let name_len = tail
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || b":_-".contains(byte))
        .count();
    // `<user@example.org>` and `<http://example.org>` are no tags.
    let starts = tail.first().is_some_and(u8::is_ascii_alphabetic);
    let ends = tail.get(name_len).is_some_and(|byte| b" \t\r\n/>".contains(byte));
    let name = &text[name_start..name_start + name_len];
    if !starts || !ends || name.ends_with(':') {
        return None;
    }
    let tag_end = tail.iter().take(TAG_LEN_MAX_BYTES).position(|byte| b"<>".contains(byte))?;
    if tail[tag_end] != b'>' {
        return None;
    }
    let local_name = name.rsplit_once(':').map_or(name, |(_, local_name)| local_name);
    if closing {
        builder.end_tag(local_name);
    } else {
        builder.start_tag(local_name);
    }
    Some(name_start + tag_end + 1)
}

/// Takes the entity at the start of `text`, if it is one that everybody knows.
fn take_entity(text: &str, builder: &mut TextBuilder) -> Option<usize> {
    let known = [("&lt;", '<'), ("&gt;", '>'), ("&amp;", '&'), ("&quot;", '"'), ("&apos;", '\'')];
    let (entity, character) = known.into_iter().find(|(entity, _)| text.starts_with(entity))?;
    builder.push(character);
    Some(entity.len())
}

/// Returns a line without its indentation and the asterisk of a boxed comment.
fn undecorated(line: &str) -> &str {
    let line = line.trim();
    match line.strip_prefix('*') {
        Some("") => "",
        Some(rest) if rest.starts_with(' ') => rest.trim_start(),
        _ => line,
    }
}

/// Returns the name of a line `Name:`.
fn symbol_of(line: &str) -> Option<&str> {
    let name = line.strip_suffix(':')?.trim_end();
    let part = |character: char| character.is_ascii_alphanumeric() || "._-:".contains(character);
    (!name.is_empty() && name.chars().all(part)).then_some(name)
}

/// Returns name and text of a line `@name: text`.
fn argument_of(line: &str) -> Option<(&str, &str)> {
    let (name, text) = line.strip_prefix('@')?.split_once(':')?;
    let part = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
    (!name.is_empty() && name.chars().all(part)).then_some((name, text.trim()))
}

/// Tells whether a line says nothing but the version that brought the element.
fn is_since(line: &str) -> bool {
    line.strip_prefix("Since:").is_some_and(|version| version.split_whitespace().count() <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_in_the_style_of_gtk_doc_is_taken_apart() {
        let comment = "
            Mount:
            @device: The device, as in
              <filename>/dev</filename>.
            @options: How to mount it (see @device).

            Mounts a device &amp; waits. Fails with %NULL if
            #org.example.Disk is <emphasis>not</emphasis> ready.

            Costs <2 s & <10 MB, see <http://example.org>.

            Since: 1.2
        ";
        let parsed = Comment::parse(comment).unwrap();
        assert_eq!(parsed.symbol.as_deref(), Some("Mount"));
        assert_eq!(
            parsed.text.as_deref(),
            Some(
                "Mounts a device & waits. Fails with NULL if org.example.Disk is not ready.\n\n\
                 Costs <2 s & <10 MB, see <http://example.org>."
            )
        );
        let argument = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(
            parsed.arguments,
            [
                argument("device", "The device, as in /dev."),
                argument("options", "How to mount it (see device)."),
            ]
        );
    }

    #[test]
    fn a_short_description_comes_first() {
        let comment = "\norg.example.Disk:\n@short_description: Disks.\n\nLong.\n";
        let parsed = Comment::parse(comment).unwrap();
        assert_eq!(parsed.symbol.as_deref(), Some("org.example.Disk"));
        assert_eq!(parsed.text.as_deref(), Some("Disks.\n\nLong."));
    }

    #[test]
    fn lists_become_paragraphs_with_their_terms() {
        let markup = "Keys:\n<variablelist><varlistentry>\n<term>modal b</term><listitem><para>\n\
                      Whether it is\n modal.</para></listitem></varlistentry><varlistentry>\
                      <term>x:</term> <listitem>y</listitem></varlistentry></variablelist> End.";
        assert_eq!(
            plain_text(markup).as_deref(),
            Some("Keys:\n\nmodal b: Whether it is modal.\n\nx: y\n\nEnd.")
        );
    }

    #[test]
    fn a_free_comment_is_text() {
        let parsed = Comment::parse(" * Says how loud it is.\n * From 0 to 1. ").unwrap();
        assert_eq!(parsed.symbol, None);
        assert_eq!(parsed.text.as_deref(), Some("Says how loud it is. From 0 to 1."));
    }

    #[test]
    fn what_documents_nothing_is_no_documentation() {
        for comment in [
            "",
            " ***** ",
            " Copyright 2020 Somebody. All rights ",
            "<method name='Old'/>",
            "\n Name:\n\n Since: 1.0\n",
        ] {
            assert_eq!(Comment::parse(comment), None, "{comment}");
        }
    }
}
