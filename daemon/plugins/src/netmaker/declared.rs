//! What may be declared for networks.

use std::fmt;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::name;

const KEYS: [&str; 3] = ["present", "connected", "token"];
/// Longest token.
const TOKEN_LEN_MAX_BYTES: usize = 8192;

/// What is declared for a network; what is not declared is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) present: Option<bool>,
    pub(super) connected: Option<bool>,
    pub(super) token: Option<Token>,
}

/// What lets a machine join a network. It does not show itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token itself.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Reads what is declared, in its order.
pub(super) fn parse(desired: &Value) -> Result<Vec<(String, Network)>> {
    let Some(networks) = Fields::of(desired, "", &["networks"])?.object("networks")? else {
        return Ok(Vec::new());
    };
    let named = |(name, value): (&String, &Value)| {
        name::check("network", name)?;
        Ok((name.clone(), network(value, &format!("networks.{name}"))?))
    };
    networks.iter().map(named).collect()
}

fn network(value: &Value, place: &str) -> Result<Network> {
    let fields = Fields::of(value, place, &KEYS)?;
    let token = fields.text("token")?.map(|text| token(text, place)).transpose()?;
    Ok(Network { present: fields.flag("present")?, connected: fields.flag("connected")?, token })
}

fn token(text: &str, place: &str) -> Result<Token> {
    let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > TOKEN_LEN_MAX_BYTES || !is_printable || text.starts_with('-')
    {
        let rule = "1 to 8192 characters without blanks, the first not '-'";
        return Err(Error::invalid(format!("{place}.token: {rule}")));
    }
    Ok(Token(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn networks_are_read_and_their_tokens_not_shown() {
        let desired = json!({"networks": {"office": {"present": true, "token": "hunter2=="}}});
        let read = parse(&desired).unwrap();
        assert_eq!(read[0].1.token.as_ref().unwrap().reveal(), "hunter2==");
        assert!(!format!("{read:?}").contains("hunter2"));
    }

    #[test]
    fn wrong_ones_are_refused_without_the_token() {
        let long = "hunter2".repeat(2000);
        for network in [
            json!({"token": "-hunter2"}),
            json!({"token": "hunter2 "}),
            json!({"token": ""}),
            json!({"token": ["hunter2"]}),
            json!({"token": long}),
            json!({"connected": "hunter2"}),
            json!("hunter2"),
        ] {
            let error = parse(&json!({"networks": {"office": network}})).unwrap_err();
            assert!(!error.message.contains("hunter2"), "{error}");
        }
        assert!(parse(&json!({"networks": {"-t": {}}})).is_err());
    }
}
