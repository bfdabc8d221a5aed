//! What must hold of the language of filters.

use op_dbus_formats::filter::{LEN_MAX_BYTES, Subject};
use op_dbus_formats::{Filter, Payload};

/// The canonical form of a filter is the filter again, and true of the same. Up to the first zero
/// byte it is a filter, then the payload of a record.
pub fn filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, payload) = text.split_once('\0').unwrap_or((text, "{}"));
    let filter = match Filter::parse(text) {
        Ok(filter) => filter,
        Err(error) => return super::check_place(text.as_bytes(), &error),
    };
    let canonical = filter.to_string();
    if canonical.len() > LEN_MAX_BYTES {
        return;
    }
    let again = Filter::parse(&canonical).unwrap_or_else(|error| panic!("{canonical}: {error}"));
    assert_eq!((&again, again.to_string()), (&filter, canonical));
    let payload = Payload::Json(payload.into());
    let subject = Subject { collection: "dbus", key: data, text: Some(text), payload: &payload };
    let is_true = filter.matches(&subject);
    assert_eq!(again.matches(&subject), is_true);
    // In parentheses: it may be too deep or too long then.
    if let Ok(negated) = Filter::parse(&format!("not ({text})")) {
        assert_eq!(negated.matches(&subject), !is_true);
    }
}
