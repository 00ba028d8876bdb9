//! Small real filesystems, made for one test and taken away with it, also when it fails.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted filesystem. Unmounted and removed when dropped.
pub(crate) struct Rig {
    top: PathBuf,
    mounts: Vec<PathBuf>,
}

impl Rig {
    /// A tmpfs with so many bytes.
    ///
    /// # Errors
    /// Why it can't be had here, for people.
    pub(crate) fn tmpfs(mib: u64) -> Result<Self, String> {
        let mut rig = Self::new()?;
        let disk = rig.dir("disk")?;
        rig.mount(&["-t", "tmpfs", "-o", &format!("size={mib}m,nr_inodes=400"), "plimsoll-proof"], &disk)?;
        Ok(rig)
    }

    /// A filesystem in an image of so many bytes, itself on a tmpfs; `mkfs` gets the image as its last argument.
    ///
    /// # Errors
    /// Why it can't be had here, for people.
    pub(crate) fn image(mib: u64, mkfs: &[&str], options: &str) -> Result<Self, String> {
        let mut rig = Self::new()?;
        let store = rig.dir("store")?;
        rig.mount(&["-t", "tmpfs", "-o", &format!("size={}m", mib + 8), "plimsoll-proof"], &store)?;
        let image = store.join("image");
        run("truncate", &["-s", &format!("{mib}M"), text(&image)])?;
        let (program, arguments) = mkfs.split_first().ok_or("no mkfs named")?;
        run(program, &[arguments, &[text(&image)]].concat())?;
        let disk = rig.dir("disk")?;
        rig.mount(&["-o", options, text(&image)], &disk)?;
        Ok(rig)
    }

    /// Where the filesystem is.
    pub(crate) fn path(&self) -> PathBuf {
        self.top.join("disk")
    }

    fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounting needs root".to_owned());
        }
        let top = run("mktemp", &["-d", text(&std::env::temp_dir().join("plimsoll-proof.XXXXXX"))])?;
        Ok(Self { top: PathBuf::from(top.trim()), mounts: Vec::new() })
    }

    fn dir(&self, name: &str) -> Result<PathBuf, String> {
        let dir = self.top.join(name);
        run("mkdir", &["-p", text(&dir)])?;
        Ok(dir)
    }

    fn mount(&mut self, arguments: &[&str], at: &Path) -> Result<(), String> {
        run("mount", &[arguments, &[text(at)]].concat())?;
        self.mounts.push(at.to_path_buf());
        Ok(())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for mount in self.mounts.iter().rev() {
            if run("umount", &[text(mount)]).is_err() {
                let _ = run("umount", &["-l", text(mount)]);
            }
        }
        let _ = run("rm", &["-rf", "--one-file-system", text(&self.top)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", said.lines().next().unwrap_or("failed")))
}
