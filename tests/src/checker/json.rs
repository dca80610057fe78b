//! JSON as Go's encoder writes it (`cilium-interop` 2.1): compact, fields in the order of the
//! struct, maps sorted, `<`, `>` and `&` escaped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// An object with its fields in the order in which they stand.
#[derive(Debug)]
pub(super) struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Object {
    /// Reads a value; `order` names all fields there may be, in order, those that may be missing
    /// with a `?` behind.
    pub(super) fn read(value: &[u8], order: &[&str]) -> Result<Object, String> {
        let text = super::values::text(value)?;
        compact(text)?;
        let object: Object = serde_json::from_str(text).map_err(|error| format!("not the JSON: {error}"))?;
        let mut fields = object.0.iter().map(|(name, _)| name.as_str()).peekable();
        for expected in order {
            let name = expected.trim_end_matches('?');
            if fields.next_if_eq(&name).is_none() && name == *expected {
                return Err(format!(
                    "{name} is missing or not in its place: {}",
                    fields.peek().unwrap_or(&"the end")
                ));
            }
        }
        match fields.next() {
            Some(name) => Err(format!("{name} is unknown or not in its place")),
            None => Ok(object),
        }
    }

    /// A field; null if it is missing.
    pub(super) fn get(&self, name: &str) -> &Value {
        self.0.iter().find(|(field, _)| field == name).map_or(&Value::Null, |(_, value)| value)
    }

    pub(super) fn text(&self, name: &str) -> Result<&str, String> {
        self.get(name).as_str().ok_or_else(|| format!("{name} is {}, not text", self.get(name)))
    }

    pub(super) fn number(&self, name: &str) -> Result<u64, String> {
        self.get(name).as_u64().ok_or_else(|| format!("{name} is {}, not a number", self.get(name)))
    }

    pub(super) fn truth(&self, name: &str) -> Result<bool, String> {
        self.get(name).as_bool().ok_or_else(|| format!("{name} is {}, not true or false", self.get(name)))
    }

    /// Whether a field is what it must be.
    pub(super) fn expect(&self, name: &str, wanted: impl Into<Value>) -> Result<(), String> {
        let wanted = wanted.into();
        match self.get(name) == &wanted {
            true => Ok(()),
            false => Err(format!("{name} is {}, not {wanted}", self.get(name))),
        }
    }
}

/// No white space between tokens, and nothing in strings that Go would have escaped.
fn compact(text: &str) -> Result<(), String> {
    let (mut inside, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => inside = !inside,
            '<' | '>' | '&' => return Err(format!("'{c}' is not escaped")),
            c if c.is_whitespace() && !inside => return Err("white space between tokens".into()),
            _ => {}
        }
    }
    Ok(())
}

/// The bytes behind standard base64 with padding.
pub(super) fn base64(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_default()).expect("standard base64")
}
