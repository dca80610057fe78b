//! Text → documents → objects.

use crate::objects::{Invalid, Object, ObjectKey, key_of};
use serde_json::Value;

/// One document of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Position in the file, from 1; `2[0]` for an item of a List.
    pub index: String,
    /// Which object it is about, as far as it says.
    pub key: Option<ObjectKey>,
    /// The object, or what is wrong with it.
    pub object: Result<Object, Invalid>,
}

impl Document {
    /// Stands for the contents of a file that cannot be read.
    pub(super) fn unreadable(error: &str) -> Document {
        Document { index: "1".into(), key: None, object: Err(Invalid::new("", error)) }
    }
}

/// Reads all documents of a manifest (YAML or JSON). `cluster` is the name of the own cluster, to
/// which selectors are limited by default.
pub fn parse(text: &str, cluster: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut index = 0;
    for (line, part) in split(text) {
        let value = match yaml(part) {
            Ok(Value::Null) => continue,
            Ok(value) => Ok(value),
            // Again, with line numbers of the file and not of the part.
            Err(_) => yaml(&format!("{}{part}", "\n".repeat(line))),
        };
        index += 1;
        match value {
            Ok(value) => add(&mut documents, index.to_string(), &value, cluster),
            Err(error) => documents.push(Document {
                index: index.to_string(),
                key: None,
                object: Err(Invalid::new("", format!("not YAML: {error}"))),
            }),
        }
    }
    documents
}

/// Adds a document, or the items of a List.
fn add(documents: &mut Vec<Document>, index: String, value: &Value, cluster: &str) {
    if value.get("kind").and_then(Value::as_str) != Some("List") {
        documents.push(Document { index, key: key_of(value), object: Object::read(value, cluster) });
        return;
    }
    match value.get("items").and_then(Value::as_array) {
        Some(items) => {
            for (i, item) in items.iter().enumerate() {
                let (index, key) = (format!("{index}[{i}]"), key_of(item));
                documents.push(Document { index, key, object: Object::read(item, cluster) });
            }
        }
        None => documents.push(Document {
            index,
            key: None,
            object: Err(Invalid::new("items", "missing: a List needs a list of objects")),
        }),
    }
}

/// Splits at document markers, so that one document's syntax error cannot hide the others. Gives
/// the number of lines before each part.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.strip_prefix("---");
        if marker.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            parts.push((start_line, &text[start..offset]));
            (start, start_line) = (offset + 3, number);
        }
        offset += line.len();
    }
    parts.push((start_line, &text[start..]));
    parts
}

/// By way of YAML's own value, which refuses duplicate keys.
fn yaml(text: &str) -> Result<Value, String> {
    let value: serde_norway::Value = serde_norway::from_str(text).map_err(|e| e.to_string())?;
    serde_json::to_value(value).map_err(|e| e.to_string())
}
