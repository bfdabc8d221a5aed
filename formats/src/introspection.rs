//! D-Bus introspection XML, with its documentation.
