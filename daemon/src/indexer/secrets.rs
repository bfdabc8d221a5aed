//! What of a document looks secret, by its names and by its form: that stays out of texts.

use serde_json::Value;

/// What the names of secrets contain, in small letters and without what parts their words.
const NAMES: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "token",
    "credential",
    "privatekey",
    "presharedkey",
    "sharedkey",
    "secretkey",
    "encryptionkey",
    "signingkey",
    "masterkey",
    "accesskey",
    "apikey",
    "sshkey",
    "wepkey",
    "keymaterial",
    "keydata",
    "psk",
    "cookie",
    "authorization",
];
/// Members that name what another member of the same object is.
const LABELS: &[&str] = &["name", "key", "id", "variable", "option", "setting", "property", "type"];

/// Whether what has this name is secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let letters: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    NAMES.iter().any(|secret| letters.contains(secret))
}

/// Whether an object says of itself that it is a secret: `{"name": "PASSWORD", "value": …}`.
pub(super) fn is_labelled_secret(members: &serde_json::Map<String, Value>) -> bool {
    members.iter().any(|(name, value)| {
        let is_label = LABELS.iter().any(|label| name.eq_ignore_ascii_case(label));
        is_label && value.as_str().is_some_and(is_secret_name)
    })
}

/// Whether a text has a secret in it: a key in its armour, a password in an address, or
/// `PASSWORD=…`.
pub(super) fn has_secret(text: &str) -> bool {
    if text.contains("-----BEGIN") {
        return true;
    }
    let has_login = text.split_whitespace().any(|word| {
        let authority =
            word.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or(rest));
        authority
            .and_then(|authority| authority.split_once('@'))
            .is_some_and(|(user, _)| user.contains(':'))
    });
    has_login || (text.contains(['=', ':']) && is_secret_name(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_secrets_are_known_however_they_are_spelt() {
        for name in [
            "password",
            "Pass-Phrase",
            "wifi_psk",
            "clientSecret",
            "API_KEY",
            "private-key",
            "access.token",
            "wep-key0",
            "leap-password-flags",
            "key_material",
            "pre shared key",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["hostname", "mtu", "key", "keyboard", "passive", "monkey"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn secrets_are_seen_in_labels_and_texts() {
        let labelled = |value: Value| is_labelled_secret(value.as_object().unwrap());
        assert!(labelled(json!({ "Name": "DB_PASSWORD", "value": "x" })));
        assert!(!labelled(json!({ "name": "HOME", "value": "/root" })));
        for text in [
            "DB_PASSWORD=x",
            "-----BEGIN PRIVATE KEY-----",
            "postgres://user:x@host/db",
            "{\"token\": \"x\"}",
            "curl https://a:b@c/",
        ] {
            assert!(has_secret(text), "{text}");
        }
        for text in ["wpa-psk", "https://host/a:b@c", "a=b", "user@host:/path", "::1"] {
            assert!(!has_secret(text), "{text}");
        }
    }
}
