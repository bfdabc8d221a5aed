//! From the events of an XML parser to the types of this module.

use std::borrow::Cow;

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::documentation::{Comment, TextBuilder, plain_text};
use super::entities::Entities;
use super::names::{NameProblem, check_free_name, check_interface_name, check_member_name};
use super::signature::check_complete_type;
use super::{
    Access, Annotation, Argument, DEPTH_MAX, DOCUMENT_LEN_MAX_BYTES, Direction, ELEMENTS_COUNT_MAX,
    Interface, Method, Node, Property, Signal,
};
use crate::TextError;

/// Most attributes of an element. Their names are compared with each other, so the
/// cost is quadratic.
const ATTRIBUTES_COUNT_MAX: usize = 64;

/// Most comments before an element that are looked at.
const COMMENTS_COUNT_MAX: usize = 8;

/// Longest piece of the document that an error repeats.
const SHOWN_LEN_MAX: usize = 80;

pub(super) fn parse(xml: &[u8]) -> Result<Node, TextError> {
    if xml.len() > DOCUMENT_LEN_MAX_BYTES {
        let problem = format!("a document of {} bytes is over the limit of 4 MiB", xml.len());
        return Err(TextError::at(xml, 0, 1, problem));
    }
    let text = std::str::from_utf8(xml)
        .map_err(|error| TextError::at(xml, error.valid_up_to(), 1, "not UTF-8"))?;
    let mut document = Document::new(text);
    let mut reader = Reader::from_str(text);
    // Every element then has a start and an end.
    reader.config_mut().expand_empty_elements = true;
    loop {
        document.offset = reader.buffer_position() as usize;
        match reader.read_event() {
            Ok(Event::Eof) => return document.finish(),
            Ok(event) => document.event(event)?,
            Err(error) => {
                let offset = reader.error_position() as usize;
                return Err(TextError::at(xml, offset, 1, shown(&error.to_string())));
            }
        }
    }
}

/// An element that has begun.
struct Open<'a> {
    element: Element,
    /// Comments that stand before it.
    comments: Vec<&'a str>,
    /// Documentation from an annotation in it.
    docstring: Option<String>,
    /// Documentation from an element in it.
    text: Option<String>,
}

enum Element {
    Node(Node),
    Interface(Interface),
    Method(Method),
    Signal(Signal),
    Property(Property),
    Argument(Argument),
    Annotation(Annotation),
    Documentation(TextBuilder),
    /// An element inside of documentation.
    Markup(String),
    Ignored,
}

struct Document<'a> {
    text: &'a str,
    /// Where the present event begins.
    offset: usize,
    open: Vec<Open<'a>>,
    elements_count: usize,
    /// Comments since the last element began or ended.
    comments: Vec<&'a str>,
    entities: Entities<'a>,
    root: Option<Node>,
}

impl<'a> Document<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            offset: 0,
            open: Vec::new(),
            elements_count: 0,
            comments: Vec::new(),
            entities: Entities::default(),
            root: None,
        }
    }

    fn event(&mut self, event: Event<'a>) -> Result<(), TextError> {
        match event {
            Event::Start(start) => self.start(&start),
            Event::End(_) => self.end(),
            Event::Text(text) => self.characters(&text.into_inner()),
            Event::CData(text) => self.characters(&text.into_inner()),
            Event::GeneralRef(reference) => self.reference(&reference),
            Event::Comment(comment) => {
                // Read from a slice, an event borrows from it.
                if let Cow::Borrowed(comment) = comment.into_inner() {
                    if self.comments.len() == COMMENTS_COUNT_MAX {
                        self.comments.remove(0);
                    }
                    self.comments.push(comment);
                }
                Ok(())
            }
            Event::DocType(declaration) => self.document_type(declaration.into_inner()),
            Event::Decl(_) | Event::PI(_) | Event::Empty(_) | Event::Eof => Ok(()),
        }
    }

    fn finish(self) -> Result<Node, TextError> {
        if !self.open.is_empty() {
            return Err(self.wrong("the document ends within an element"));
        }
        match self.root {
            Some(root) => Ok(root),
            None => Err(self.wrong("the document has no <node>")),
        }
    }

    /// Takes a document type: its external part is never read, what it declares inside
    /// must be harmless.
    fn document_type(&mut self, declaration: Cow<'a, str>) -> Result<(), TextError> {
        if self.root.is_some() || !self.open.is_empty() {
            return Err(self.wrong("a document type must stand before the first element"));
        }
        // Read from a slice, an event borrows from it.
        if let Cow::Borrowed(declaration) = declaration {
            self.entities = Entities::parse(declaration).map_err(|problem| self.wrong(problem))?;
        }
        Ok(())
    }

    fn start(&mut self, start: &BytesStart<'a>) -> Result<(), TextError> {
        self.elements_count += 1;
        if self.elements_count > ELEMENTS_COUNT_MAX {
            let problem = format!("the document has over {ELEMENTS_COUNT_MAX} elements");
            return Err(self.wrong(problem));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(self.wrong(format!("elements are nested over {DEPTH_MAX} deep")));
        }
        let element = self.element(start)?;
        let comments = std::mem::take(&mut self.comments);
        self.open.push(Open { element, comments, docstring: None, text: None });
        Ok(())
    }

    /// Returns the element that begins, if it may begin here.
    fn element(&mut self, start: &BytesStart<'a>) -> Result<Element, TextError> {
        let qualified_name = start.name();
        let name = qualified_name.as_ref();
        let local_name = start.local_name();
        let local_name = local_name.as_ref();
        if self.builder().is_some() {
            // The condition of an error says little without its name.
            let error = match local_name {
                "error" => self.attributes(start).ok().and_then(|attributes| attributes.name),
                _ => None,
            };
            if let Some(builder) = self.builder() {
                builder.start_tag(local_name);
                if let Some(error) = error {
                    builder.term(&error);
                }
            }
            return Ok(Element::Markup(local_name.to_owned()));
        }
        let parent = self.open.last().map(|open| &open.element);
        if matches!(parent, Some(Element::Ignored | Element::Annotation(_))) {
            return Ok(Element::Ignored);
        }
        let place = match (name, parent) {
            ("node", None) if self.root.is_some() => Err("the first node"),
            ("node", None | Some(Element::Node(_))) => Ok(()),
            ("node", _) => Err("another node"),
            ("interface", Some(Element::Node(_))) => Ok(()),
            ("interface", _) => Err("a node"),
            ("method" | "signal" | "property", Some(Element::Interface(_))) => Ok(()),
            ("method" | "signal" | "property", _) => Err("an interface"),
            ("arg", Some(Element::Method(_) | Element::Signal(_))) => Ok(()),
            ("arg", _) => Err("a method or a signal"),
            (_, None) => Err("a node"),
            _ => Ok(()),
        };
        if let Err(place) = place {
            return Err(self.wrong(format!("<{}> must stand in {place}", shown(name))));
        }
        match name {
            "node" => self.node(start),
            "interface" => self.interface(start),
            "method" | "signal" => self.member(start, name),
            "property" => self.property(start),
            "arg" => self.argument(start),
            "annotation" => self.annotation(start),
            _ if is_documentation(name, local_name) => {
                Ok(Element::Documentation(TextBuilder::default()))
            }
            _ => Ok(Element::Ignored),
        }
    }

    fn node(&self, start: &BytesStart<'a>) -> Result<Element, TextError> {
        let attributes = self.attributes(start)?;
        if let Some(name) = &attributes.name {
            self.check_name("node", name, check_free_name)?;
        }
        Ok(Element::Node(Node { name: attributes.name, ..Node::default() }))
    }

    fn interface(&self, start: &BytesStart<'a>) -> Result<Element, TextError> {
        let name = self.required("interface", "name", self.attributes(start)?.name)?;
        self.check_name("interface", &name, check_interface_name)?;
        Ok(Element::Interface(Interface { name, ..Interface::default() }))
    }

    fn member(&self, start: &BytesStart<'a>, what: &str) -> Result<Element, TextError> {
        let name = self.required(what, "name", self.attributes(start)?.name)?;
        self.check_name(what, &name, check_member_name)?;
        Ok(match what {
            "method" => Element::Method(Method { name, ..Method::default() }),
            _ => Element::Signal(Signal { name, ..Signal::default() }),
        })
    }

    fn property(&self, start: &BytesStart<'a>) -> Result<Element, TextError> {
        let attributes = self.attributes(start)?;
        let name = self.required("property", "name", attributes.name)?;
        self.check_name("property", &name, check_free_name)?;
        let type_signature = self.type_signature("property", attributes.type_signature)?;
        let access = match self.required("property", "access", attributes.access)?.as_str() {
            "read" => Access::Read,
            "write" => Access::Write,
            "readwrite" => Access::ReadWrite,
            other => {
                let other = shown(other);
                let problem = format!("access is {other:?}, not read, write or readwrite");
                return Err(self.wrong(problem));
            }
        };
        let (documentation, annotations) = (None, Vec::new());
        let property = Property { name, type_signature, access, documentation, annotations };
        Ok(Element::Property(property))
    }

    fn argument(&self, start: &BytesStart<'a>) -> Result<Element, TextError> {
        let attributes = self.attributes(start)?;
        // An empty name is what some generators write for none.
        let name = attributes.name.filter(|name| !name.is_empty());
        if let Some(name) = &name {
            self.check_name("argument", name, check_free_name)?;
        }
        let type_signature = self.type_signature("argument", attributes.type_signature)?;
        let in_signal = matches!(self.open.last(), Some(Open { element: Element::Signal(_), .. }));
        let direction = match attributes.direction.as_deref() {
            // Some documents say that an argument of a signal goes in. It cannot.
            None | Some("in" | "out") if in_signal => Direction::Out,
            None | Some("in") => Direction::In,
            Some("out") => Direction::Out,
            Some(other) => {
                let other = shown(other);
                return Err(self.wrong(format!("direction is {other:?}, not in or out")));
            }
        };
        let (documentation, annotations) = (None, Vec::new());
        let argument = Argument { name, type_signature, direction, documentation, annotations };
        Ok(Element::Argument(argument))
    }

    fn annotation(&self, start: &BytesStart<'a>) -> Result<Element, TextError> {
        let attributes = self.attributes(start)?;
        let name = self.required("annotation", "name", attributes.name)?;
        self.check_name("annotation", &name, check_free_name)?;
        let value = self.required("annotation", "value", attributes.value)?;
        Ok(Element::Annotation(Annotation { name, value }))
    }

    fn end(&mut self) -> Result<(), TextError> {
        self.comments.clear();
        let Some(mut ended) = self.open.pop() else {
            return Err(self.wrong("an element ends that has not begun"));
        };
        if let Element::Markup(name) = &ended.element {
            if let Some(builder) = self.builder() {
                builder.end_tag(name);
            }
            return Ok(());
        }
        let documentation = ended.documentation();
        match (self.open.last_mut(), ended.element) {
            (Some(parent), element) => parent.take(element, documentation),
            (None, Element::Node(node)) => self.root = Some(node),
            (None, _) => {}
        }
        Ok(())
    }

    fn characters(&mut self, text: &str) -> Result<(), TextError> {
        if let Some(builder) = self.builder() {
            builder.push_str(text);
        } else if !text.trim_ascii().is_empty() {
            if self.open.is_empty() {
                return Err(self.wrong("text stands outside of the <node>"));
            }
            // The comment was about the text.
            self.comments.clear();
        }
        Ok(())
    }

    fn reference(&mut self, reference: &BytesRef<'a>) -> Result<(), TextError> {
        let name: &str = reference;
        let character = match reference.resolve_char_ref() {
            Ok(Some(character)) => Some(character),
            Ok(None) => resolve_predefined_entity(name).and_then(|text| text.chars().next()),
            Err(_) => return Err(self.wrong(format!("&{}; is no character", shown(name)))),
        };
        if let Some(character) = character {
            return self.characters(character.encode_utf8(&mut [0; 4]));
        }
        match self.entities.expand(name) {
            Ok(Some(value)) => self.characters(value),
            Ok(None) => Err(self.wrong(format!("&{}; is not defined", shown(name)))),
            Err(problem) => Err(self.wrong(problem)),
        }
    }

    /// Returns the text of the documentation in which the present event stands.
    fn builder(&mut self) -> Option<&mut TextBuilder> {
        self.open.iter_mut().rev().find_map(|open| match &mut open.element {
            Element::Documentation(builder) => Some(builder),
            _ => None,
        })
    }

    fn attributes(&self, start: &BytesStart<'a>) -> Result<Attributes, TextError> {
        let mut attributes = Attributes::default();
        for (index, attribute) in start.attributes().enumerate() {
            if index == ATTRIBUTES_COUNT_MAX {
                let problem = format!("an element has over {ATTRIBUTES_COUNT_MAX} attributes");
                return Err(self.wrong(problem));
            }
            let attribute = attribute.map_err(|error| self.wrong(shown(&error.to_string())))?;
            let slot = match attribute.key.as_ref() {
                "name" => &mut attributes.name,
                "type" => &mut attributes.type_signature,
                "direction" => &mut attributes.direction,
                "access" => &mut attributes.access,
                "value" => &mut attributes.value,
                _ => continue,
            };
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| self.wrong(shown(&error.to_string())))?;
            *slot = Some(value.into_owned());
        }
        Ok(attributes)
    }

    fn required(
        &self,
        what: &str,
        attribute: &str,
        value: Option<String>,
    ) -> Result<String, TextError> {
        value.ok_or_else(|| self.wrong(format!("{what} without {attribute}")))
    }

    fn type_signature(&self, what: &str, value: Option<String>) -> Result<String, TextError> {
        let signature = self.required(what, "type", value)?;
        check_complete_type(&signature).map_err(|error| {
            let signature = shown(&signature);
            self.wrong(format!("{signature:?} is not the type of one {what}: {error}"))
        })?;
        Ok(signature)
    }

    fn check_name(
        &self,
        what: &str,
        name: &str,
        check: impl Fn(&str) -> Result<(), NameProblem>,
    ) -> Result<(), TextError> {
        check(name).map_err(|problem| {
            let name = shown(name);
            self.wrong(format!("{name:?} is not a name of {what}: {problem}"))
        })
    }

    fn wrong(&self, problem: impl Into<String>) -> TextError {
        TextError::at(self.text.as_bytes(), self.offset, 1, problem)
    }
}

impl Open<'_> {
    /// Returns what people wrote about this element, and hands what a comment says
    /// about its arguments to these.
    fn documentation(&mut self) -> Option<String> {
        let name = match &self.element {
            Element::Interface(interface) => &interface.name,
            Element::Method(method) => &method.name,
            Element::Signal(signal) => &signal.name,
            Element::Property(property) => &property.name,
            Element::Argument(argument) => argument.name.as_deref().unwrap_or_default(),
            _ => return None,
        };
        let comments = self.comments.iter().filter_map(|comment| Comment::parse(comment));
        // Of the comments about this element the last one wins, but one that names it
        // wins over one that names nothing.
        let mut comment = comments
            .filter(|comment| comment.symbol.as_deref().is_none_or(|symbol| means(symbol, name)))
            .max_by_key(|comment| comment.symbol.is_some())
            .unwrap_or_default();
        if let Element::Method(Method { arguments, .. })
        | Element::Signal(Signal { arguments, .. }) = &mut self.element
        {
            for (name, text) in comment.arguments.drain(..) {
                let named = arguments.iter_mut().find(|argument| {
                    argument.name.as_deref() == Some(&name) && argument.documentation.is_none()
                });
                if let Some(argument) = named {
                    argument.documentation = Some(text);
                }
            }
        }
        self.text.take().or_else(|| self.docstring.take()).or(comment.text)
    }

    /// Takes an element that has ended in this one.
    fn take(&mut self, element: Element, text: Option<String>) {
        match (&mut self.element, element) {
            (Element::Node(parent), Element::Node(node)) => parent.nodes.push(node),
            (Element::Node(parent), Element::Interface(interface)) => {
                parent.interfaces.push(Interface { documentation: text, ..interface });
            }
            (Element::Interface(parent), Element::Method(method)) => {
                parent.methods.push(Method { documentation: text, ..method });
            }
            (Element::Interface(parent), Element::Signal(signal)) => {
                parent.signals.push(Signal { documentation: text, ..signal });
            }
            (Element::Interface(parent), Element::Property(property)) => {
                parent.properties.push(Property { documentation: text, ..property });
            }
            (
                Element::Method(Method { arguments, .. })
                | Element::Signal(Signal { arguments, .. }),
                Element::Argument(argument),
            ) => arguments.push(Argument { documentation: text, ..argument }),
            (_, Element::Documentation(builder)) => {
                self.text = self.text.take().or_else(|| builder.finish());
            }
            (_, Element::Annotation(annotation)) => self.annotate(annotation),
            _ => {}
        }
    }

    fn annotate(&mut self, annotation: Annotation) {
        if annotation.name.ends_with(".DocString") {
            self.docstring = plain_text(&annotation.value);
            return;
        }
        if annotation.name.ends_with(".DocString.Short") {
            if self.docstring.is_none() {
                self.docstring = plain_text(&annotation.value);
            }
            return;
        }
        match &mut self.element {
            Element::Interface(Interface { annotations, .. })
            | Element::Method(Method { annotations, .. })
            | Element::Signal(Signal { annotations, .. })
            | Element::Property(Property { annotations, .. })
            | Element::Argument(Argument { annotations, .. }) => annotations.push(annotation),
            _ => {}
        }
    }
}

#[derive(Default)]
struct Attributes {
    name: Option<String>,
    type_signature: Option<String>,
    direction: Option<String>,
    access: Option<String>,
    value: Option<String>,
}

/// Tells whether an element is documentation, whatever prefix its author chose.
fn is_documentation(name: &str, local_name: &str) -> bool {
    matches!(local_name, "doc" | "docstring" | "documentation") || name.starts_with("doc:")
}

/// Tells whether the symbol of a comment means the element of this name.
///
/// Authors err in the case and in the end of a name (`OperatorId` before
/// `OperatorIdentifier`); a quite different symbol is that of another element, which
/// has been removed without its comment.
fn means(symbol: &str, name: &str) -> bool {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let (symbol, name) = (last(symbol), last(name));
    !symbol.is_empty() && (symbol.starts_with(&name) || name.starts_with(&symbol))
}

/// Cuts a piece of the document to a length that an error may repeat.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_LEN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
