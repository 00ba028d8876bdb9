//! Settings of a server: defaults, below its file, below environment and flags.

use std::path::Path;

use plimsoll_host::config::load_toml;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::exit::{Code, Failure};

/// The settings of the file, with what flags and environment say on top, by key.
pub(super) fn overlaid<T: DeserializeOwned>(file: Option<&Path>, given: Table) -> Result<T, Failure> {
    let mut table = Table::new();
    if let Some(path) = file {
        // Read as settings first, so that what is wrong is told with its line.
        load_toml::<T>(path)?;
        table = load_toml(path)?;
    }
    table.extend(given);
    let settings = table.try_into();
    settings.map_err(|error: toml::de::Error| {
        Failure::new(Code::Configuration, format!("configuration: {}", error.message()))
    })
}

#[cfg(test)]
mod tests {
    use plimsoll_spu::SpuSettings;
    use toml::Value;

    use super::*;

    #[test]
    fn flags_lie_above_the_defaults() {
        let given = toml::toml! { id = 7
        byte_limit = "64MiB"
        controllers = ["1@a:1"] };
        let settings: SpuSettings = overlaid(None, given).expect("known keys");
        assert_eq!(settings.id, 7);
        assert_eq!(settings.byte_limit.map(|limit| limit.0), Some(64 << 20));
        assert_eq!(settings.controllers, ["1@a:1"]);
        assert_eq!(settings.listen, SpuSettings::default().listen);
    }

    #[test]
    fn a_value_that_cannot_be_read_is_a_matter_of_configuration() {
        let wrong = Table::from_iter([("byte_limit".to_owned(), Value::String("much".to_owned()))]);
        assert_eq!(overlaid::<SpuSettings>(None, wrong).expect_err("not a size").code, 7);
    }
}
