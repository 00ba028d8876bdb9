//! Small real filesystems, made for one test and taken away with it, also when it fails.

#![allow(dead_code, reason = "each proof uses a part of it")]

pub(crate) mod life;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// After this a frozen filesystem thaws by itself, whatever became of the test.
const THAW_SECONDS_MAX: u32 = 20;

/// A mounted filesystem. Unmounted and removed when dropped, its loop device with it.
pub(crate) struct Rig {
    top: PathBuf,
    mounts: Vec<PathBuf>,
    /// How the last of the mounts was made.
    mounted_by: Vec<String>,
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
        Self::thin(mib, mib + 8, mkfs, options)
    }

    /// As [`Rig::image`], on a tmpfs of `store_mib`: with less than the image has, a volume that lies.
    ///
    /// # Errors
    /// Why it can't be had here, for people.
    pub(crate) fn thin(mib: u64, store_mib: u64, mkfs: &[&str], options: &str) -> Result<Self, String> {
        let mut rig = Self::new()?;
        let store = rig.dir("store")?;
        rig.mount(&["-t", "tmpfs", "-o", &format!("size={store_mib}m"), "plimsoll-proof"], &store)?;
        let image = rig.image_path();
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

    fn image_path(&self) -> PathBuf {
        self.top.join("store/image")
    }

    fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounting needs root".to_owned());
        }
        let top = run("mktemp", &["-d", text(&std::env::temp_dir().join("plimsoll-proof.XXXXXX"))])?;
        let top = PathBuf::from(top.trim());
        // Others than root must reach what is mounted below.
        run("chmod", &["755", text(&top)])?;
        Ok(Self { top, mounts: Vec::new(), mounted_by: Vec::new() })
    }

    fn dir(&self, name: &str) -> Result<PathBuf, String> {
        let dir = self.top.join(name);
        run("mkdir", &["-p", text(&dir)])?;
        Ok(dir)
    }

    fn mount(&mut self, arguments: &[&str], at: &Path) -> Result<(), String> {
        run("mount", &[arguments, &[text(at)]].concat())?;
        self.mounts.push(at.to_path_buf());
        self.mounted_by = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Ok(())
    }

    /// Runs a program on the mounted filesystem: its path comes last.
    ///
    /// # Errors
    /// What it said.
    pub(crate) fn on_disk(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        run(program, &[arguments, &[text(&self.path())]].concat())
    }

    /// Power is lost: only what was synced is left. Nothing on the filesystem may be open any more.
    ///
    /// # Errors
    /// Why it can't be done here, for people.
    pub(crate) fn power_loss(&mut self) -> Result<(), String> {
        // Without -f: the filesystem's own journal is not flushed either (xfs_io(8); ext4 knows the same ioctl).
        self.on_disk("xfs_io", &["-x", "-c", "shutdown"])?;
        self.remount()
    }

    /// Unmounts and mounts again.
    ///
    /// # Errors
    /// What mount said.
    pub(crate) fn remount(&mut self) -> Result<(), String> {
        let disk = self.path();
        run("umount", &[text(&disk)])?;
        self.mounts.retain(|mount| *mount != disk);
        let arguments = self.mounted_by.clone();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.mount(&arguments, &disk)
    }

    /// Gives the tmpfs below the image so many bytes: what lied keeps its word from now on.
    ///
    /// # Errors
    /// What mount said.
    pub(crate) fn back_with(&self, store_mib: u64) -> Result<(), String> {
        let options = format!("remount,size={store_mib}m");
        run("mount", &["-o", &options, text(&self.top.join("store"))]).map(drop)
    }

    /// Makes the image so large while it is mounted, and returns its device; the filesystem is still as it was.
    ///
    /// # Errors
    /// What is missing here, for people.
    pub(crate) fn grow_image(&self, mib: u64) -> Result<String, String> {
        self.back_with(mib + 8)?;
        let image = self.image_path();
        run("truncate", &["-s", &format!("{mib}M"), text(&image)])?;
        let device = run("losetup", &["-n", "-O", "NAME", "-j", text(&image)])?.trim().to_owned();
        run("losetup", &["-c", &device])?;
        Ok(device)
    }

    /// Freezes the filesystem until the guard is dropped.
    ///
    /// # Errors
    /// Why it can't be done here, for people.
    pub(crate) fn freeze(&self) -> Result<Frozen, String> {
        let disk = self.path();
        // The thaw first: a writer on a frozen filesystem can't be killed.
        let thaw = Command::new("sh")
            .args([
                "-c",
                "sleep \"$1\"; fsfreeze -u \"$2\"",
                "sh",
                &THAW_SECONDS_MAX.to_string(),
                text(&disk),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("sh: {error}"))?;
        let frozen = Frozen { disk, thaw };
        run("fsfreeze", &["-f", text(&frozen.disk)])?;
        Ok(frozen)
    }
}

/// A frozen filesystem; thaws when dropped.
pub(crate) struct Frozen {
    disk: PathBuf,
    thaw: Child,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = run("fsfreeze", &["-u", text(&self.disk)]);
        let _ = self.thaw.kill();
        let _ = self.thaw.wait();
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

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// Runs a program to its end and returns what it wrote.
///
/// # Errors
/// The first line of what it complained about.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // Some begin with their version.
    let line = said.lines().find(|line| line.contains(": ")).unwrap_or("failed");
    Err(format!("{program}: {}", line.trim_start_matches(program).trim_start_matches(": ")))
}
