//! `plimsoll log` on files alone: no cluster, no lock, nothing written.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plimsoll_proto::batch::{BatchBuilder, Compression, NewRecord, stamp};
use plimsoll_proto::ids::{LeaderEpoch, Offset};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    #[expect(clippy::disallowed_methods, reason = "a file of the test")]
    fn write(&self, bytes: &[u8]) -> &Self {
        std::fs::write(self.0.join(format!("{:020}.log", 0)), bytes).unwrap();
        self
    }

    /// Runs `plimsoll log VERB` on the folder: its status, and what it wrote.
    fn log(&self, verb: &str, arguments: &[&str]) -> (i32, String) {
        run(&self.0, verb, arguments)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn run(directory: &Path, verb: &str, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.args(["log", verb]).arg(directory).args(arguments).stdin(Stdio::null());
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("PLIMSOLL_")) {
        command.env_remove(key);
    }
    let ran = command.output().unwrap();
    (ran.status.code().unwrap(), String::from_utf8(ran.stdout).unwrap())
}

/// Three batches of two records, from offset 0 on.
fn segment() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, codec) in [Compression::None, Compression::Zstd, Compression::None].into_iter().enumerate() {
        let mut builder = BatchBuilder::new(codec);
        for (value, timestamp_ms) in [(&b"first"[..], 1000), (b"\x1b[2Jsecond", 2000)] {
            builder.push(&NewRecord { value: Some(value), timestamp_ms, ..NewRecord::default() }).unwrap();
        }
        let mut batch = builder.build().unwrap();
        stamp(&mut batch, Offset::new(2 * u64::try_from(number).unwrap()).unwrap(), LeaderEpoch(4)).unwrap();
        bytes.extend_from_slice(&batch);
    }
    bytes
}

#[test]
fn what_is_sound_is_0_and_nothing_is_written() {
    let folder = Folder::new("log-sound");
    folder.write(&segment());
    let (code, out) = folder.log("verify", &[]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("sound"), "{out}");
    let (code, out) = folder.log("verify", &["-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json["damaged"].as_bool()), (0, Some(false)));
    assert_eq!((&json["logs"][0]["records"], &json["logs"][0]["log_end"]), (&6.into(), &6.into()));
    let (code, out) = folder.log("dump", &["--records"]);
    assert_eq!(
        (code, out.matches("  batch ").count(), out.matches("    record ").count()),
        (0, 3, 6),
        "{out}"
    );
    assert!(!out.contains('\x1b'), "what lies on a disk does not reach the terminal");
    let (_, out) = folder.log("dump", &["-o", "json", "--from", "2", "--to", "4"]);
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "a segment and one batch: {out}");
    for nothing in [["--from", "4", "--to", "4"], ["--from", "4", "--to", "2"]] {
        assert_eq!(folder.log("dump", &nothing).0, 2, "{nothing:?}");
    }
    assert_eq!((&lines[1]["kind"], &lines[1]["base_offset"]), (&"batch".into(), &2.into()));
    assert_eq!((&lines[1]["compression"], &lines[1]["leader_epoch"]), (&"zstd".into(), &4.into()));
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn damage_is_1_and_is_shown() {
    let folder = Folder::new("log-damaged");
    let mut bytes = segment();
    bytes[70] ^= 1;
    folder.write(&bytes);
    let (code, out) = folder.log("verify", &[]);
    assert_eq!(code, 1);
    assert!(out.contains("damage") && out.contains("checksum") && out.contains("at 0"), "{out}");
    let (code, out) = folder.log("dump", &[]);
    assert_eq!((code, out.matches("crc ok").count()), (0, 2), "{out}");
    assert!(out.contains("DAMAGED: checksum"), "{out}");
    folder.write(&[0x5a; 1000]);
    let (code, out) = folder.log("dump", &["--records"]);
    assert_eq!(code, 0);
    assert!(out.contains("DAMAGED: 1000 B at 0"), "{out}");
}

#[test]
fn where_no_log_is_it_is_4() {
    let folder = Folder::new("log-none");
    for verb in ["dump", "verify"] {
        assert_eq!(folder.log(verb, &[]).0, 4);
        assert_eq!(run(&folder.0.join("missing"), verb, &[]).0, 4);
    }
    assert!(!folder.0.join("missing").exists());
    folder.write(&segment());
    let other = format!("{}-0", "7".repeat(32));
    assert_eq!(folder.log("verify", &["--partition", &other]).0, 4);
}
