//! Reading configuration: sizes, durations and TOML files whose unknown keys are errors.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

/// A size in bytes, written "64MiB", "10GB" or "512".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// A length of time, written "500ms", "10s", "5min", "1h" or "7d".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

/// A shared secret, such as a join token. It is never shown: `Debug` says only that there is one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl Secret {
    /// Whether `given` is the secret. How long that takes depends on the lengths alone.
    pub fn matches(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let pairs = own.iter().zip(given.iter().chain(std::iter::repeat(&0)));
        let different = pairs.fold(0u8, |different, (own, given)| different | (own ^ given));
        std::hint::black_box(different) == 0 && own.len() == given.len()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {path}: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        why: String,
    },
    /// The file is not TOML of the expected shape, or has an unknown key.
    #[error("configuration file {path}: {why}")]
    Malformed {
        /// The file.
        path: String,
        /// Where and what, with the line.
        why: String,
    },
    /// A value is outside its range, or two values do not agree.
    #[error("configuration: {0}")]
    Invalid(String),
}

const SIZE_UNITS: [(&str, u64); 10] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Longest unit first, so that "ms" is not read as minutes or seconds.
const SPAN_UNITS: [(&str, u64); 7] = [
    ("min", 60_000_000),
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

fn scaled(text: &str, units: &[(&str, u64)], bare: Option<u64>) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim_start();
    let factor = if unit.is_empty() {
        bare?
    } else {
        units.iter().find(|(name, _)| *name == unit).map(|(_, f)| *f)?
    };
    number.checked_mul(factor)
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        scaled(text, &SIZE_UNITS, Some(1))
            .map(Self)
            .ok_or_else(|| format!("'{text}' is not a size; write it like 64MiB, 10GB or 512"))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        scaled(text, &SPAN_UNITS, None).map(|micros| Self(Duration::from_micros(micros))).ok_or_else(|| {
            format!("'{text}' is not a length of time; write it like 500ms, 10s, 5min, 1h or 7d")
        })
    }
}

impl fmt::Display for ByteSize {
    /// The largest binary unit with at most one digit after the point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("TiB", 40u32), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            let one = 1u64 << shift;
            if self.0 >= one {
                let tenths = u128::from(self.0) * 10 / u128::from(one);
                return if tenths.is_multiple_of(10) {
                    write!(f, "{}{unit}", tenths / 10)
                } else {
                    write!(f, "{}.{}{unit}", tenths / 10, tenths % 10)
                };
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        for (unit, factor) in
            [("d", 86_400_000_000u128), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000)]
        {
            if micros >= factor && micros.is_multiple_of(factor) {
                return write!(f, "{}{unit}", micros / factor);
            }
        }
        if micros.is_multiple_of(1000) { write!(f, "{}ms", micros / 1000) } else { write!(f, "{micros}us") }
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

as_text!(ByteSize);
as_text!(Span);

/// Reads a TOML file. Give the type `#[serde(deny_unknown_fields)]`.
///
/// # Errors
/// [`ConfigError`] names the file, and the line of what is wrong in it.
pub fn load_toml<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { path: shown.clone(), why: error.to_string() })?;
    toml::from_str(&text).map_err(|error| ConfigError::Malformed { path: shown, why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_itself_only_and_is_not_shown() {
        let secret = Secret("tok\u{e9}n".to_owned());
        assert!(secret.matches("tok\u{e9}n".as_bytes()));
        for other in ["", "tok", "tok\u{e9}n ", "tok\u{e9}n\0", "TOK\u{e9}N"] {
            assert!(!secret.matches(other.as_bytes()), "{other:?}");
        }
        assert!(!format!("{secret:?}").contains("tok"));
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("512", 512), ("64MiB", 64 << 20), ("10 GB", 10_000_000_000), ("1KiB", 1024)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "10XB", "-1", "MiB", "1.5GiB", "99999999999TiB", "ü"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
        assert_eq!(ByteSize(1_610_612_736).to_string(), "1.5GiB");
    }

    #[test]
    fn spans() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("5min", 300_000), ("1h", 3_600_000), ("2m", 120_000)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for bad in ["", "5", "10 parsecs", "-1s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert_eq!(Span(Duration::from_millis(1500)).to_string(), "1500ms");
        assert_eq!(Span(Duration::from_secs(300)).to_string(), "5min");
    }
}
