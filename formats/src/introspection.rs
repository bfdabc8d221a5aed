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
//! is never read; inside, it may define entities with plain values and nothing else.
//! Elements that D-Bus does not define are ignored with all
//! that is in them.
//!
//! Source: D-Bus Specification 0.43, "Introspection Data Format", "Valid Names",
//! "Type System".

mod documentation;
mod entities;
mod names;
mod reader;
mod signature;

use crate::TextError;

pub use names::{
    NameProblem, check_bus_name, check_free_name, check_interface_name, check_member_name,
    check_object_path,
};
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
    /// What goes in, in order.
    pub fn inputs(&self) -> impl Iterator<Item = &Argument> {
        self.arguments.iter().filter(|argument| argument.direction == Direction::In)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(members: &str) -> Interface {
        let xml = format!("<node><interface name='org.example.Disk'>{members}</interface></node>");
        parse(xml.as_bytes()).unwrap().interfaces.remove(0)
    }

    fn error_of(xml: &str) -> (u64, u64, String) {
        let error = parse(xml.as_bytes()).unwrap_err();
        (error.line, error.column, error.problem)
    }

    #[test]
    fn documentation_is_found_in_every_place() {
        let disk = interface(
            "<!-- Mount:\n @device: Which.\n\n Mounts. -->
             <method name='Mount'><arg name='device' type='s' direction='in'/></method>
             <method name='Eject'>
               <doc:doc><doc:description><doc:para>Ejects&#x20;&amp; waits.</doc:para>
               </doc:description><doc:errors><doc:error name='org.example.Busy'>if busy
               </doc:error></doc:errors></doc:doc>
               <arg type='b'><tp:docstring>By <tp:b>force</tp:b>.</tp:docstring></arg>
             </method>
             <property name='Size' type='t' access='read'>
               <annotation name='org.gtk.GDBus.DocString' value='In &lt;b>bytes&lt;/b>.'/>
               <annotation name='org.example.Unit' value='byte'/>
             </property>",
        );
        let [mount, eject] = &disk.methods[..] else { panic!("{disk:?}") };
        assert_eq!(mount.documentation.as_deref(), Some("Mounts."));
        assert_eq!(mount.arguments[0].documentation.as_deref(), Some("Which."));
        let documentation = "Ejects & waits.\n\norg.example.Busy: if busy";
        assert_eq!(eject.documentation.as_deref(), Some(documentation));
        assert_eq!(eject.arguments[0].documentation.as_deref(), Some("By force."));
        assert_eq!(disk.properties[0].documentation.as_deref(), Some("In bytes."));
        assert_eq!(disk.properties[0].annotations.len(), 1);
    }

    #[test]
    fn a_comment_documents_the_next_element_alone() {
        let disk = interface(
            "<!-- One: --><!-- ********* -->
             <method name='A'><!-- B --></method>
             <!-- Text about C. --><!-- Copyright by somebody --><!-- ***** -->
             <signal name='C'/>
             <signal name='D'/>
             <!-- F:\n About another. -->
             <signal name='E'/>
             <!-- Serial:\n Its number. -->
             <property name='SerialNumber' type='s' access='read'/>",
        );
        assert_eq!(disk.methods[0].documentation, None);
        let [c, d, e] = &disk.signals[..] else { panic!("{disk:?}") };
        assert_eq!(c.documentation.as_deref(), Some("Text about C."));
        assert_eq!((&d.documentation, &e.documentation), (&None, &None));
        assert_eq!(disk.properties[0].documentation.as_deref(), Some("Its number."));
    }

    #[test]
    fn a_document_type_is_taken_if_it_is_harmless() {
        let node = "<node/>";
        for external in [
            "<!DOCTYPE node>",
            "<!DOCTYPE node SYSTEM 'introspect.dtd'>",
            "<!DOCTYPE node PUBLIC \"-//[x]//EN\" \"http://example.org/a[1].dtd\" >",
        ] {
            assert!(parse(format!("{external}{node}").as_bytes()).is_ok(), "{external}");
        }
        let reads_a_file =
            "<?xml version='1.0'?>\n<!DOCTYPE node [ <!ENTITY a SYSTEM 'b'> ]><node/>";
        let (line, column, problem) = error_of(reads_a_file);
        assert_eq!((line, column), (2, 1));
        assert!(problem.contains("only entities with a plain value"), "{problem}");
        let plain = "<!DOCTYPE node [<!ENTITY a 'b'>]>\n\
                     <node><interface name='x.y'><doc>a &a; c</doc></interface></node>";
        let node = parse(plain.as_bytes()).unwrap();
        assert_eq!(node.interfaces[0].documentation.as_deref(), Some("a b c"));
        assert!(error_of("<node/><!DOCTYPE node>").2.contains("before the first element"));
        let undefined = "<node><doc>&a;</doc></node>";
        assert_eq!(error_of(undefined).2, "&a; is not defined");
        assert!(parse(b"<node name='&a;'/>").is_err());
    }

    #[test]
    fn what_is_wrong_is_located() {
        let cases = [
            ("", 1, 1, "the document has no <node>"),
            ("<node>", 1, 7, "the document ends within an element"),
            ("<node>\n <interface>", 2, 2, "interface without name"),
            ("<node>\n\n<interface name='x'/>", 3, 1, "is not a name of interface: it has no"),
            ("<node><method name='A'/></node>", 1, 7, "<method> must stand in an interface"),
            ("<node><arg type='s'/></node>", 1, 7, "<arg> must stand in a method or a signal"),
            ("<interface name='a.b'/>", 1, 1, "<interface> must stand in a node"),
            ("<node/><node/>", 1, 8, "<node> must stand in the first node"),
            ("<html/>", 1, 1, "<html> must stand in a node"),
            ("<node/>x", 1, 8, "text stands outside of the <node>"),
            ("<node></nod>", 1, 7, "expected `</node>`"),
            ("<node><!-- ", 1, 7, "comment not closed"),
            ("<node a='1' a='2'/>", 1, 1, "duplicate"),
        ];
        for (xml, line, column, problem) in cases {
            let found = error_of(xml);
            assert!(found.2.contains(problem), "{xml}: {found:?}");
            assert_eq!((found.0, found.1), (line, column), "{xml}: {found:?}");
        }
        let members = [
            ("<method name='2'/>", "is not a name of method"),
            ("<method name='A'><arg/></method>", "argument without type"),
            ("<method name='A'><arg type='ss'/></method>", "is not the type of one argument"),
            ("<method name='A'><arg type='s' direction='up'/></method>", "not in or out"),
            ("<property name='A' type='s'/>", "property without access"),
            ("<property name='A' type='s' access='none'/>", "access is \"none\""),
            ("<annotation name='a.b'/>", "annotation without value"),
        ];
        for (member, problem) in members {
            let found = error_of(&format!("<node><interface name='a.b'>\n{member}"));
            assert!(found.2.contains(problem), "{member}: {found:?}");
            assert_eq!(found.0, 2);
        }
    }

    #[test]
    fn everything_is_bounded() {
        let nested = |depth: usize| "<node>".repeat(depth) + &"</node>".repeat(depth);
        assert!(parse(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(error_of(&nested(DEPTH_MAX + 1)).2.contains("nested over 32 deep"));
        let wide = |count: usize| format!("<node>{}</node>", "<x/>".repeat(count));
        assert!(parse(wide(ELEMENTS_COUNT_MAX - 1).as_bytes()).is_ok());
        assert!(error_of(&wide(ELEMENTS_COUNT_MAX)).2.contains("over 100000 elements"));
        let many: String = (0..=64).map(|n| format!(" a{n}=''")).collect();
        assert!(error_of(&format!("<node{many}/>")).2.contains("over 64 attributes"));
        let long = " ".repeat(DOCUMENT_LEN_MAX_BYTES + 1);
        assert!(error_of(&long).2.contains("over the limit of 4 MiB"));
        let name = "a".repeat(1_000_000);
        assert!(error_of(&format!("<{name}/>")).2.len() < 200);
    }

    #[test]
    fn directions_have_defaults() {
        let disk = interface(
            "<method name='A'><arg type='s'/><arg name='' type='u' direction='out'/></method>
             <signal name='B'><arg type='b'/><arg type='i' direction='in'/></signal>",
        );
        assert_eq!(disk.methods[0].input_signature(), "s");
        assert_eq!(disk.methods[0].output_signature(), "u");
        assert_eq!(disk.methods[0].arguments[1].name, None);
        assert_eq!(disk.signals[0].signature(), "bi");
    }

    #[test]
    fn what_d_bus_does_not_define_is_ignored() {
        let xml = "\u{FEFF}<?xml version='1.0'?><?xsl x?><node xmlns:x='y'><x:y><method/></x:y>
                   <interface name='a.b'><method name='A' x:type='1'/>text</interface></node>";
        let node = parse(xml.as_bytes()).unwrap();
        assert_eq!(node.interfaces[0].methods.len(), 1);
    }
}
