//! Codes that somebody does not want to count for a while. Kept on this machine, for each profile: another person's
//! `cluster health` is not changed by it.
//!
//! ```toml
//! [mutes."127.0.0.1:7001,127.0.0.1:7002"]
//! SPU_OFFLINE = 1767225600000
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::codes::Code;
use super::evaluate::Finding;
use crate::exit::{self, Failure, Outcome};
use crate::files;

/// By cluster (the list of its controllers) and code: until when, milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mutes {
    #[serde(default)]
    mutes: BTreeMap<String, BTreeMap<String, u64>>,
}

fn file() -> Result<PathBuf, Failure> {
    Ok(files::config_dir()?.join("muted.toml"))
}

impl Mutes {
    pub(super) fn load() -> Result<Self, Failure> {
        // Without a home there is nothing muted.
        let Ok(path) = file() else { return Ok(Self::default()) };
        Self::read(&path)
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let wrong = |why: String| {
            let why = format!("{}: {why}\ncorrect it or delete it", path.display());
            Failure::new(exit::Code::Configuration, why)
        };
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| wrong(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    pub(super) fn save(&self) -> Outcome {
        let path = file()?;
        let text = toml::to_string(self)
            .map_err(|error| Failure::new(exit::Code::Failed, format!("muted codes: {error}")))?;
        files::replace(&path, &text)
            .map_err(|error| Failure::new(exit::Code::Failed, format!("{}: {error}", path.display())))
    }

    /// Mutes a code of a cluster; what is over is forgotten.
    pub(super) fn mute(&mut self, cluster: &str, code: Code, until_ms: u64, now_ms: u64) {
        for codes in self.mutes.values_mut() {
            codes.retain(|_, until| *until > now_ms);
        }
        self.mutes.entry(cluster.to_owned()).or_default().insert(code.name().to_owned(), until_ms);
        self.mutes.retain(|_, codes| !codes.is_empty());
    }

    /// Whether it was muted.
    pub(super) fn unmute(&mut self, cluster: &str, code: Code) -> bool {
        self.mutes.get_mut(cluster).is_some_and(|codes| codes.remove(code.name()).is_some())
    }

    /// Marks what is muted.
    pub(super) fn apply(&self, cluster: &str, findings: &mut [Finding], now_ms: u64) {
        let Some(codes) = self.mutes.get(cluster) else { return };
        for finding in findings {
            finding.muted_until_ms = codes.get(finding.code).copied().filter(|until| *until > now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::codes::Severity;
    use super::*;

    #[test]
    fn a_mute_ends_by_itself_and_is_of_one_cluster() {
        let mut mutes = Mutes::default();
        mutes.mute("a:1", Code::SpuOffline, 1000, 0);
        let muted = |mutes: &Mutes, cluster, now_ms| {
            let mut findings = [Finding {
                code: Code::SpuOffline.name(),
                severity: Severity::Critical,
                summary: String::new(),
                members: Vec::new(),
                since_ms: None,
                next: String::new(),
                muted_until_ms: None,
            }];
            mutes.apply(cluster, &mut findings, now_ms);
            findings[0].muted_until_ms
        };
        assert_eq!(muted(&mutes, "a:1", 999), Some(1000));
        assert_eq!(muted(&mutes, "a:1", 1000), None);
        assert_eq!(muted(&mutes, "b:1", 0), None);
        let text = toml::to_string(&mutes).expect("plain data");
        assert_eq!(toml::from_str::<Mutes>(&text).expect("as written"), mutes);
        mutes.mute("b:1", Code::DiskFull, 5000, 2000);
        assert!(!mutes.mutes.contains_key("a:1"), "what is over is forgotten");
        assert!(mutes.unmute("b:1", Code::DiskFull) && !mutes.unmute("b:1", Code::DiskFull));
    }
}
