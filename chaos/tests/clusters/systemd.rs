//! The systemd units are what systemd takes without a word.

use std::path::Path;
use std::process::Command;

#[test]
fn the_units_verify_without_a_complaint() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("SKIPPED the_units_verify_without_a_complaint: systemd-analyze is not installed");
        return;
    }
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let folder = std::env::temp_dir().join(format!("plimsoll-units-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    // verify looks whether the program is there; any that exists will do.
    let program = std::env::current_exe().expect("this program");
    let mut files = Vec::new();
    for name in ["plimsoll-controller.service", "plimsoll-spu.service"] {
        let unit = std::fs::read_to_string(units.join(name)).expect("the unit");
        assert!(unit.contains("/usr/bin/plimsoll "), "{name} runs the binary");
        let file = folder.join(name);
        let unit = unit.replace("/usr/bin/plimsoll ", &format!("{} ", program.display()));
        write(&file, &unit);
        files.push(file);
    }
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .args(&files)
        .output()
        .expect("it was there a moment ago");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{}: {said}", output.status);
}

#[expect(clippy::disallowed_methods, reason = "a file of the test itself")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the folder takes a file");
}
