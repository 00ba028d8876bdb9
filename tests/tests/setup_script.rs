//! `scripts/setup` on machines that lack something: it names what, and how to get it, before anything compiles.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a fixture outside any volume; a broken one fails the test"
)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use plimsoll_tests::Scratch;

/// What every machine has.
const BASICS: [&str; 13] =
    ["bash", "env", "cut", "paste", "sed", "sort", "head", "dirname", "id", "printf", "mktemp", "rm", "cat"];

fn on_path(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists()).unwrap()
}

/// A folder with the basics and with compilers as a test wants them.
fn machine(scratch: &Scratch, rust: Option<&str>) -> PathBuf {
    let folder = scratch.folder(rust.unwrap_or("none")).unwrap();
    for name in BASICS {
        symlink(on_path(name), folder.join(name)).unwrap();
    }
    if let Some(version) = rust {
        for name in ["cargo", "rustc"] {
            let file = folder.join(name);
            std::fs::write(&file, format!("#!/bin/bash\necho rustc {version} x\n")).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
    folder
}

fn run(script: &str, machine: &Path) -> (Output, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new(on_path("bash"))
        .arg(root.join("scripts").join(script))
        .env_clear()
        .env("PATH", machine)
        .env("HOME", machine)
        .env("TMPDIR", machine)
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

#[test]
fn what_is_missing_is_named_before_anything_compiles() {
    let scratch = Scratch::new().unwrap();
    let (bare, old, no_compiler) =
        (machine(&scratch, None), machine(&scratch, Some("1.50.0")), machine(&scratch, Some("1.999.0")));
    let cases: [(&Path, &[&str]); 3] = [
        (&bare, &["cargo is missing", "rustup"]),
        (&old, &["Rust 1.50.0 is too old"]),
        (&no_compiler, &["cc (a C compiler)", "protoc", "apt-get install build-essential protobuf-compiler"]),
    ];
    for script in ["setup", "demo", "plimsoll", "test"] {
        for (machine, words) in cases {
            let (output, said) = run(script, machine);
            assert_eq!(output.status.code(), Some(1), "{script}: {said}");
            for word in words {
                assert!(said.contains(word), "{script}: '{word}' is missing in:\n{said}");
            }
            assert!(!said.contains("Compiling"), "{said}");
        }
    }
    let (output, _) = run("test", &bare);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(printed.lines().last(), Some("0 passed, 1 failed, 0 skipped"), "{printed}");
}

/// A machine may have another library whose name begins alike.
#[test]
fn libclang_is_told_from_its_neighbours() {
    let scratch = Scratch::new().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scripts/setup");
    let function = r#"eval "$(sed -n '/^setup_has_libclang()/,/^}/p' "$1")"; setup_has_libclang "$2""#;
    for (number, (file, is_there)) in [
        (None, false),
        (Some("libclang-cpp.so.14"), false),
        (Some("libclang-cpp.so"), false),
        (Some("libclang.so"), true),
        (Some("libclang-14.so.1"), true),
        (Some("libclang.so.1"), true),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = scratch.folder(&number.to_string()).unwrap();
        if let Some(file) = file {
            std::fs::write(folder.join(file), "").unwrap();
        }
        let found =
            Command::new("bash").args(["-c", function, "-"]).arg(&script).arg(&folder).status().unwrap();
        assert_eq!(found.code(), Some(i32::from(!is_there)), "{file:?}");
    }
}
