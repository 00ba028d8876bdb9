//! Runs the commands of `docs/operations.md` as they stand there.

use std::path::Path;
use std::process::Command;

/// What the page says in its `sh` blocks, in order.
fn commands(page: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in page.lines() {
        match (inside, line) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, command) => {
                script.push_str(command);
                script.push('\n');
            }
            (false, _) => {}
        }
    }
    script
}

fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root for network namespaces and mounts".to_owned());
    }
    let probe = "ip netns add pl-probe && ip -n pl-probe link add probe type bridge";
    let works = Command::new("bash").args(["-c", probe]).output();
    drop(Command::new("ip").args(["netns", "del", "pl-probe"]).output());
    match works {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            Some(format!("no network namespaces: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => Some(format!("no bash: {error}")),
    }
}

/// Undoes what a script that failed half way has left.
struct Cleanup<'a>(&'a Path);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        let script = r#"
            for pid in "$LAB"/*.pid; do [ -e "$pid" ] && kill -9 "$(cat "$pid")" 2>/dev/null; done
            for n in 1 2 3; do umount -l "$LAB/disk-$n" 2>/dev/null; done
            for name in lan c1 c2 c3 s1 s2 s3; do ip netns del "pl-$name" 2>/dev/null; done
            rm -rf "$LAB"
        "#;
        drop(Command::new("bash").args(["-c", script]).env("LAB", self.0).output());
    }
}

#[test]
fn the_page_on_operations_works_as_it_is_written() {
    if let Some(reason) = missing() {
        println!("SKIPPED the_page_on_operations_works_as_it_is_written: {reason}");
        return;
    }
    let binary = plimsoll_chaos::process::find_binary().expect("cargo build -p plimsoll-cli comes first");
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let page = std::fs::read_to_string(top.join("docs/operations.md")).expect("the page");
    let script = format!("set -euo pipefail\nset -x\n{}", commands(&page));
    let lab = std::env::temp_dir().join(format!("plimsoll-lab-{}", std::process::id()));
    let _cleanup = Cleanup(&lab);
    let output = Command::new("timeout")
        .args(["--kill-after=5", "120", "bash", "-c", &script])
        .current_dir(top)
        .env("LAB", &lab)
        .env("BINARY", &binary)
        .output()
        .expect("bash starts");
    let logs = ["spu-1", "spu-2", "controller-1", "controller-2"].map(|name| {
        let text = std::fs::read_to_string(lab.join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("-- {name}\n{}", lines[lines.len().saturating_sub(15)..].join("\n"))
    });
    assert!(
        output.status.success(),
        "{}\n{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        logs.join("\n")
    );
}

#[test]
fn only_shell_blocks_are_commands() {
    let page = "text\n```sh\na\nb\n```\n```text\nno\n```\n```sh\nc\n```\n";
    assert_eq!(commands(page), "a\nb\nc\n");
}
