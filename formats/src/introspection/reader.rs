//! x
pub(super) fn parse(_: &[u8]) -> Result<super::Node, crate::TextError> { Ok(super::Node::default()) }
