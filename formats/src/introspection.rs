//! D-Bus introspection XML as types, with its documentation.
//!
//! What an interface is *for* stands nowhere in the types of its members, so the
//! parser keeps what people wrote about them, from whichever place it stands in:
//! 1. an element such as `doc:doc` or `tp:docstring` inside the described one;
//! 2. an annotation whose name ends in `.DocString`;
//! 3. the comment before the described element, in the style of gtk-doc (`Name:`,
//!    `@argument: text`, paragraphs) or without any.
//!
//! The first of them that says something wins. Markup is removed: documentation is
//! plain text, its paragraphs parted by an empty line.
//!
//! Introspection comes from any process on the bus, so everything is bounded: size,
//! depth, number of elements, length of names. The external part of a document type
//! is never read; one with declarations inside, which could define entities that grow
//! without bound, is refused. Elements that D-Bus does not define are ignored with all
//! that is in them.
//!
//! Source: D-Bus Specification 0.43, "Introspection Data Format", "Valid Names",
//! "Type System".

mod documentation;
mod names;
mod reader;
mod signature;

use crate::TextError;

pub use names::{NameProblem, check_interface_name, check_member_name};
pub use signature::{SignatureError, check_complete_type, check_signature};

/// Largest document.
pub const DOCUMENT_LEN_MAX_BYTES: usize = 4 << 20;

/// Most elements that may be open at once.
pub const DEPTH_MAX: usize = 32;

/// Most elements of a document, ignored ones included.
pub const ELEMENTS_COUNT_MAX: usize = 100_000;

/// Longest name of anything.
pub const NAME_LEN_MAX_BYTES: usize = 255;

/// An object, or a part of the path to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Path of the object: absolute or absent at the root, relative below it.
    pub name: Option<String>,
    /// The interfaces it has.
    pub interfaces: Vec<Interface>,
    /// The objects below it.
    pub nodes: Vec<Node>,
}

/// A named set of methods, properties and signals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name, such as `org.example.Thing1`.
    pub name: String,
    /// What people wrote about it.
    pub documentation: Option<String>,
    /// Its annotations, without those that document it.
    pub annotations: Vec<Annotation>,
    /// What can be called.
    pub methods: Vec<Method>,
    /// What can be read or written.
    pub properties: Vec<Property>,
    /// What is emitted.
    pub signals: Vec<Signal>,
}

/// Something that can be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Method {
    /// Its name, such as `Frobnicate`.
    pub name: String,
    /// What people wrote about it.
    pub documentation: Option<String>,
    /// Its annotations, without those that document it.
    pub annotations: Vec<Annotation>,
    /// What goes in and what comes out, in order.
    pub arguments: Vec<Argument>,
}

/// Something that is emitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signal {
    /// Its name, such as `Frobnicated`.
    pub name: String,
    /// What people wrote about it.
    pub documentation: Option<String>,
    /// Its annotations, without those that document it.
    pub annotations: Vec<Annotation>,
    /// What it carries, in order.
    pub arguments: Vec<Argument>,
}

/// Something that can be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its name, such as `IsFrobnicating`.
    pub name: String,
    /// Its type: one complete type.
    pub type_signature: String,
    /// What can be done with it.
    pub access: Access,
    /// What people wrote about it.
    pub documentation: Option<String>,
    /// Its annotations, without those that document it.
    pub annotations: Vec<Annotation>,
}

/// An argument of a method or of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name, which D-Bus does not ask for.
    pub name: Option<String>,
    /// Its type: one complete type.
    pub type_signature: String,
    /// Where it goes.
    pub direction: Direction,
    /// What people wrote about it.
    pub documentation: Option<String>,
    /// Its annotations, without those that document it.
    pub annotations: Vec<Annotation>,
}

/// A fact about an interface, a member or an argument, in words of its author.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotation {
    /// Its name, such as `org.freedesktop.DBus.Deprecated`.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Where an argument goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the caller.
    In,
    /// To the caller, or to whoever receives the signal.
    Out,
}

/// What can be done with a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// It can be read.
    Read,
    /// It can be written.
    Write,
    /// It can be read and written.
    ReadWrite,
}

impl Method {
    /// The concatenated types of what goes in.
    #[must_use]
    pub fn input_signature(&self) -> String {
        signature_of(&self.arguments, Direction::In)
    }

    /// The concatenated types of what comes out.
    #[must_use]
    pub fn output_signature(&self) -> String {
        signature_of(&self.arguments, Direction::Out)
    }
}

impl Signal {
    /// The concatenated types of what it carries.
    #[must_use]
    pub fn signature(&self) -> String {
        signature_of(&self.arguments, Direction::Out)
    }
}

fn signature_of(arguments: &[Argument], direction: Direction) -> String {
    arguments
        .iter()
        .filter(|argument| argument.direction == direction)
        .map(|argument| argument.type_signature.as_str())
        .collect()
}

/// Parses a document.
///
/// # Errors
/// Says what is wrong, in which line and column: text that is not XML, names and
/// types that D-Bus does not allow, elements where they have no meaning, and whatever
/// is over a limit.
pub fn parse(xml: &[u8]) -> Result<Node, TextError> {
    reader::parse(xml)
}
