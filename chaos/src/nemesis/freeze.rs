//! A disk that answers nothing: `fsfreeze`.

use std::process::{Child, Command, Stdio};

use crate::rig::{Disk, Missing, program};

/// A frozen filesystem; thawed when dropped, and after its time whatever becomes of this process.
#[derive(Debug)]
pub struct Frozen {
    mount: String,
    thaw: Child,
}

impl Frozen {
    /// Freezes a disk for at most `seconds`.
    ///
    /// # Errors
    /// [`Missing`] for filesystems that do not freeze.
    pub fn start(disk: &Disk, seconds: u32) -> anyhow::Result<Self> {
        let mount = disk.mount().display().to_string();
        // First of all what ends it: nothing else could, once even this process waits for the disk.
        let script = format!("sleep {seconds}; exec fsfreeze --unfreeze '{mount}'");
        let thaw = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Missing::because(format!("no shell: {error}")))?;
        let frozen = Self { mount, thaw };
        program::run_if_able("fsfreeze", &["--freeze", &frozen.mount])?;
        Ok(frozen)
    }

    /// Thaws it now.
    pub fn end(self) {}
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // It fails when the disk was not frozen, or is no longer.
        drop(program::run("fsfreeze", &["--unfreeze", &self.mount]));
        drop(self.thaw.kill());
        drop(self.thaw.wait());
    }
}
