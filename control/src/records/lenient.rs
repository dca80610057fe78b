//! The second, slower reading of a record, for values that are not quite as Cilium writes them today.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// See [`super::from_json`]. Of fields that differ only in case the exact one counts.
pub(super) fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    let json = serde_json::from_str(&String::from_utf8_lossy(json)).map_err(|error| error.to_string())?;
    serde_path_to_error::deserialize(Lenient(json)).map_err(|error| error.to_string())
}

/// JSON whose field names are brought to the case that is asked for.
struct Lenient(Value);

/// The fields of a struct that are known and given.
fn known(given: Map<String, Value>, fields: &[&str]) -> Map<String, Value> {
    let (mut exact, mut folded) = (Map::new(), Map::new());
    for (name, value) in given.into_iter().filter(|(_, value)| !value.is_null()) {
        match fields.iter().find(|field| field.eq_ignore_ascii_case(&name)) {
            Some(field) if *field == name => exact.insert(name, value),
            Some(field) => folded.insert((*field).into(), value),
            None => None,
        };
    }
    folded.extend(exact);
    folded
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) => {
                let mut map = MapDeserializer::new(map.into_iter().map(|(k, v)| (k, Lenient(v))));
                visitor.visit_map(&mut map)
            }
            Value::Array(array) => visitor.visit_seq(SeqDeserializer::new(array.into_iter().map(Lenient))),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) => Lenient(Value::Object(known(map, fields))).deserialize_any(visitor),
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.or(Value::Object(Map::new())).deserialize_any(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.or(Value::Array(Vec::new())).deserialize_any(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.or(Value::String(String::new())).deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct enum identifier ignored_any
    }
}

impl Lenient {
    /// What stands in place of `null` in a list or map.
    fn or(self, empty: Value) -> Lenient {
        if self.0.is_null() { Lenient(empty) } else { self }
    }
}

impl IntoDeserializer<'_, Error> for Lenient {
    type Deserializer = Lenient;

    fn into_deserializer(self) -> Lenient {
        self
    }
}
