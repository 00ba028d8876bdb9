//! Documents as YAML: block mappings and sequences, every text in double quotes as in JSON, which YAML 1.2 takes as
//! it is (<https://yaml.org/spec/1.2.2/#double-quoted-style>). Writing is all that is needed, so no library.

use serde_json::Value;

/// One document with its marker, so that several can follow each other.
pub(crate) fn document(value: &Value) -> String {
    let mut text = "---\n".to_owned();
    block(value, 0, &mut text);
    text
}

/// A value that begins on a line of its own.
fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                text.push_str(&" ".repeat(indent));
                text.push_str(&key_text(key));
                text.push(':');
                after_key(value, indent, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                text.push_str(&" ".repeat(indent));
                text.push('-');
                match item {
                    Value::Object(map) if !map.is_empty() => {
                        // The first key stands beside the dash, the others below it.
                        let mut inner = String::new();
                        block(item, indent + 2, &mut inner);
                        text.push(' ');
                        text.push_str(inner.trim_start());
                    }
                    _ => after_key(item, indent, text),
                }
            }
        }
        scalar => {
            text.push_str(&" ".repeat(indent));
            text.push_str(&scalar.to_string());
            text.push('\n');
        }
    }
}

fn after_key(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            block(value, indent + 2, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            block(value, indent + 2, text);
        }
        // Empty collections, numbers, booleans, null and quoted text are the same in JSON.
        flow => {
            text.push(' ');
            text.push_str(&flow.to_string());
            text.push('\n');
        }
    }
}

/// Our own keys are plain words; anything else, such as a name that somebody chose, is quoted.
fn key_text(key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !matches!(key, "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null");
    if plain { key.to_owned() } else { Value::from(key).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_are_indented_and_text_is_quoted() {
        let value = json!({
            "version": 1, "name": "no: \"x\"\n# y", "none": null, "empty": [], "nothing": {},
            "list": [1, "a", {"k": [true, {"deep": -1.5}], "l": 2}], "DISK_FULL": 7, "no": "off", "nested": [[1], []],
        });
        let expected = r##"---
"DISK_FULL": 7
empty: []
list:
  - 1
  - "a"
  - k:
      - true
      - deep: -1.5
    l: 2
name: "no: \"x\"\n# y"
nested:
  -
    - 1
  - []
"no": "off"
none: null
nothing: {}
version: 1
"##;
        let mut lines: Vec<&str> = expected.lines().collect();
        let text = document(&value);
        let mut found: Vec<&str> = text.lines().collect();
        // Whether maps keep the order of their keys is a feature of serde_json that other crates may turn on.
        lines.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, lines, "{text}");
        assert!(text.contains("  - k:\n      - true\n      - deep: -1.5\n    l: 2\n"), "{text}");
    }

    #[test]
    fn a_scalar_is_a_document() {
        assert_eq!(document(&json!("x")), "---\n\"x\"\n");
        assert_eq!(document(&json!({})), "---\n{}\n");
    }
}
