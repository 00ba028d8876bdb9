//! Settings of a server: defaults, below its file, below environment and flags.

use std::path::{Path, PathBuf};

use plimsoll_host::config::load_toml;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::exit::{Code, Failure};

/// What flags and environment say, by key of the file.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    table: Table,
}

impl Overlay {
    pub(super) fn text(mut self, key: &str, value: Option<impl ToString>) -> Self {
        self.put(key, value.map(|value| Value::String(value.to_string())));
        self
    }

    pub(super) fn number(mut self, key: &str, value: Option<u32>) -> Self {
        self.put(key, value.map(|value| Value::Integer(value.into())));
        self
    }

    pub(super) fn flag(mut self, key: &str, value: bool) -> Self {
        self.put(key, value.then_some(Value::Boolean(true)));
        self
    }

    /// Nothing given leaves the file's list.
    pub(super) fn list(mut self, key: &str, values: &[String]) -> Self {
        let values: Vec<Value> = values.iter().cloned().map(Value::String).collect();
        self.put(key, (!values.is_empty()).then_some(Value::Array(values)));
        self
    }

    fn put(&mut self, key: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.table.insert(key.to_owned(), value);
        }
    }

    /// The settings: the file, with what was said here on top.
    pub(super) fn onto<T: DeserializeOwned>(self, file: Option<&Path>) -> Result<T, Failure> {
        let mut table = Table::new();
        if let Some(path) = file {
            // Read as settings first, so that what is wrong is told with its line.
            load_toml::<T>(path)?;
            table = load_toml(path)?;
        }
        table.extend(self.table);
        let settings = table.try_into();
        settings.map_err(|error: toml::de::Error| {
            Failure::new(Code::Configuration, format!("configuration: {}", error.message()))
        })
    }
}

/// A path as settings hold it, which is text.
pub(super) fn path_text(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::new(Code::Configuration, format!("{} is not UTF-8", path.display())))
}

pub(super) fn path_texts(paths: &[PathBuf]) -> Result<Vec<String>, Failure> {
    paths.iter().map(|path| path_text(path)).collect()
}

#[cfg(test)]
mod tests {
    use plimsoll_spu::SpuSettings;

    use super::*;

    #[test]
    fn flags_lie_above_the_defaults() {
        let overlay = Overlay::default()
            .number("id", Some(7))
            .text("byte_limit", Some("64MiB"))
            .text("rack", None::<String>)
            .list("controllers", &["1@a:1".to_owned()]);
        let settings: SpuSettings = overlay.onto(None).expect("known keys");
        assert_eq!(settings.id, 7);
        assert_eq!(settings.byte_limit.map(|limit| limit.0), Some(64 << 20));
        assert_eq!(settings.controllers, ["1@a:1"]);
        assert_eq!(settings.listen, SpuSettings::default().listen);
    }

    #[test]
    fn a_value_that_cannot_be_read_is_a_matter_of_configuration() {
        let wrong = Overlay::default().text("byte_limit", Some("much")).onto::<SpuSettings>(None);
        assert_eq!(wrong.expect_err("not a size").code, 7);
    }
}
