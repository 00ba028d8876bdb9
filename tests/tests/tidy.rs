//! Rules of the house that a compiler does not check.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Lines of a source file at most.
const LINES_MAX: usize = 500;

/// Files that were longer when the rule came, with what they may have. These numbers only fall: a file that got
/// shorter must be written down with its new length, or struck out.
const LONGER: [(&str, usize); 0] = [];

/// Names of files and folders that say nothing. `common.proto` holds what the other messages share.
const NAMES: [&str; 5] = ["utils", "common", "helpers", "misc", "manager"];
const NAMES_ALLOWED: [&str; 1] = ["proto/proto/plimsoll/v1/common.proto"];

/// Folders that are not ours to check.
const SKIPPED: [&str; 3] = ["target", ".git", ".demo"];

/// Words that may stand nowhere. Written in two parts, so that this list is not found itself.
fn forbidden() -> Vec<(String, &'static str)> {
    vec![
        (["/wo", "rk/"].concat(), "a path of somebody's machine"),
        (["TO", "DO"].concat(), "do it, or open an issue"),
        (["FIX", "ME"].concat(), "fix it, or open an issue"),
        (["XX", "X:"].concat(), "say what is wrong"),
        (["#[ign", "ore"].concat(), "print SKIPPED and why: scripts/test counts those"),
        (["DESIGN", ".md"].concat(), "docs/ARCHITECTURE.md is the page to point at"),
        (["FACTS", ".md"].concat(), "give the source of the fact"),
        (["STYLE", ".md"].concat(), "CONTRIBUTING.md is the page to point at"),
    ]
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_path_buf()
}

/// Every file of the workspace, by its path from the root.
fn files() -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable folder").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
            if path.is_symlink() || SKIPPED.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let inside = path.strip_prefix(&root).expect("below the root");
                found.push(inside.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert!(found.len() > 50, "the walk lost its way: {found:?}");
    found
}

/// Text files; what is not UTF-8 (data sets) has no words.
fn texts() -> impl Iterator<Item = (String, String)> {
    let root = root();
    files().into_iter().filter_map(move |path| {
        let text = std::fs::read_to_string(root.join(&path)).ok()?;
        Some((path, text))
    })
}

#[test]
fn files_are_short() {
    let longer: BTreeMap<_, _> = LONGER.into_iter().collect();
    let mut wrong = Vec::new();
    for (path, text) in texts().filter(|(path, _)| path.ends_with(".rs") || path.ends_with(".proto")) {
        let lines = text.lines().count();
        match longer.get(path.as_str()) {
            None if lines > LINES_MAX => {
                wrong.push(format!("{path} has {lines} lines, {LINES_MAX} is the limit"))
            }
            Some(allowed) if lines > *allowed => {
                wrong.push(format!("{path} grew from {allowed} to {lines} lines; split it"));
            }
            Some(allowed) if lines < *allowed => {
                wrong.push(format!("{path} is down to {lines} lines; write that down in LONGER"));
            }
            None | Some(_) => {}
        }
    }
    for path in longer.keys() {
        if !root().join(path).exists() {
            wrong.push(format!("{path} is gone; strike it from LONGER"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn names_say_what_is_inside() {
    let empty_names: Vec<_> = files()
        .into_iter()
        .filter(|path| !NAMES_ALLOWED.contains(&path.as_str()))
        .filter(|path| {
            path.split('/').any(|part| NAMES.contains(&part.split('.').next().unwrap_or_default()))
        })
        .collect();
    assert!(empty_names.is_empty(), "{empty_names:?}");
}

#[test]
fn forbidden_words_stand_nowhere() {
    let forbidden = forbidden();
    let mut found = Vec::new();
    for (path, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            for (word, instead) in &forbidden {
                if line.contains(word.as_str()) {
                    found.push(format!("{path}:{}: '{word}': {instead}", number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_documents_point_at_exists() {
    let mut missing = Vec::new();
    for (path, text) in texts().filter(|(path, _)| path.ends_with(".md")) {
        let folder = root().join(&path).parent().expect("a file lies in a folder").to_path_buf();
        for target in links(&text) {
            if !folder.join(&target).exists() {
                missing.push(format!("{path} links to {target}"));
            }
        }
        for named in paths_in_code(&text) {
            if !root().join(&named).exists() && !folder.join(&named).exists() {
                missing.push(format!("{path} names {named}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Targets of Markdown links into the repository, without their anchors.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .map(|target| target.split(['#', ' ']).next().unwrap_or_default().to_owned())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}

/// What stands in single backquotes and looks like a file of ours: a first part that is one of our folders, and
/// nothing that stands for something else.
fn paths_in_code(text: &str) -> Vec<String> {
    const FOLDERS: [&str; 12] = [
        "proto",
        "host",
        "storage",
        "spu",
        "controller",
        "client",
        "cli",
        "chaos",
        "tests",
        "docs",
        "deploy",
        "scripts",
    ];
    text.lines()
        .filter(|line| !line.starts_with("```") && !line.starts_with("    "))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(|code| code.split_whitespace().next().unwrap_or_default())
        .filter(|code| code.contains('/') && !code.contains(['*', '<', '{', '$', '=', ':']))
        .filter(|code| code.split('/').next().is_some_and(|first| FOLDERS.contains(&first)))
        .map(|code| code.trim_end_matches(['/', ',', '.']).to_owned())
        .collect()
}

#[test]
fn the_readers_of_documents_find_what_is_there() {
    let text = "see [a](x/y.md#z), [b](https://c), `spu/src/lib.rs`, `spu/run --now`, `a/b`, `docs/*.md`";
    assert_eq!(links(text), ["x/y.md"]);
    assert_eq!(paths_in_code(text), ["spu/src/lib.rs", "spu/run"]);
}
