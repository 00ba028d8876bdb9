//! Every public type of the SDK has an example in its documentation, and callers reach every one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Sources of the crate, with their text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(folder).expect("a readable folder");
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    paths
        .flat_map(|path| match (path.is_dir(), path.extension().is_some_and(|kind| kind == "rs")) {
            (true, _) => sources(&path),
            (false, true) => vec![(path.clone(), std::fs::read_to_string(&path).expect("text"))],
            (false, false) => Vec::new(),
        })
        .collect()
}

/// Names that a `pub use` lists, those of other crates of the workspace included.
fn exported(library: &str) -> Vec<&str> {
    let uses = library.split("\npub use ").skip(1).filter_map(|rest| rest.split(';').next());
    let uses = uses.inspect(|listed| assert!(!listed.contains('*'), "{listed}: exports are listed by name"));
    uses.flat_map(words).filter(|word| word.starts_with(char::is_uppercase)).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Whether the line defines the type, or exports it by itself from another crate of the workspace.
fn introduces(line: &str, name: &str) -> bool {
    let Some(rest) = line.strip_prefix("pub ") else { return false };
    let defined = ["struct ", "enum ", "trait "].iter().find_map(|kind| rest.strip_prefix(kind));
    match defined {
        Some(rest) => words(rest).next() == Some(name),
        None => {
            let path = rest.strip_prefix("use plimsoll_").and_then(|path| path.strip_suffix(';'));
            path.is_some_and(|path| !path.contains('{') && words(path).last() == Some(name))
        }
    }
}

/// The comment above the line that introduces a type, if this source does.
fn comment<'a>(source: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines: Vec<&str> = source.lines().collect();
    let at = lines.iter().position(|line| introduces(line, name))?;
    let before = |line: &&&str| !line.is_empty() && !line.starts_with('}') && !line.starts_with("pub ");
    Some(lines[..at].iter().rev().take_while(before).copied().collect())
}

/// What callers of a source read of it: functions, fields and variants, without bodies and tests.
fn signatures(source: &str) -> String {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let starting = |kind| code.split(kind).skip(1);
    let functions = ["pub fn ", "pub async fn ", "pub const fn "].into_iter().flat_map(starting);
    let functions = functions.filter_map(|rest| rest.split('{').next());
    let enums = starting("pub enum ").filter_map(|rest| rest.split("\n}").next());
    let fields = code.lines().filter(|line| line.starts_with("    pub ") && line.ends_with(','));
    functions.chain(enums).chain(fields).collect::<Vec<_>>().join("\n")
}

/// Types of other crates of the workspace that callers of a source meet.
fn met(source: &str) -> BTreeSet<String> {
    let uses = source.split("\nuse plimsoll_").skip(1).filter_map(|rest| rest.split(';').next());
    let imported: BTreeSet<&str> = uses.flat_map(words).collect();
    let signatures = signatures(source);
    let qualified = signatures.split("v1::").skip(1).filter_map(|rest| words(rest).next());
    let met = qualified.chain(words(&signatures).filter(|word| imported.contains(word)));
    met.filter(|word| word.starts_with(char::is_uppercase)).map(str::to_owned).collect()
}

#[test]
fn every_public_type_has_an_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources = sources(&root);
    let text = |name: &str| std::fs::read_to_string(root.join(name)).expect("text");
    let (library, testkit) = (text("lib.rs"), text("testkit/mod.rs"));
    let mut names = exported(&library);
    names.extend(exported(&testkit));
    names.extend(["TestCluster", "TestClusterBuilder"]);
    for known in ["Producer", "TopicConfig", "TestServer"] {
        assert!(names.contains(&known), "the reader of the list lost its way: {names:?}");
    }
    let mut without = Vec::new();
    for name in names {
        let found = sources.iter().find_map(|(path, source)| Some((path, comment(source, name)?)));
        let (above, shown) = found.map_or((false, false), |(path, comment)| {
            // A module may explain its main type at length.
            let above = path.ends_with("testkit/mod.rs") && name == "TestCluster";
            (above, comment.iter().any(|line| line.starts_with("/// ```")))
        });
        if !above && !shown {
            without.push(name);
        }
    }
    assert!(without.is_empty(), "no example: {without:?}");
}

#[test]
fn callers_need_no_other_crate_of_the_workspace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let library = std::fs::read_to_string(root.join("lib.rs")).expect("text");
    let exported = exported(&library);
    let sources = sources(&root);
    let met: BTreeSet<String> = sources.iter().flat_map(|(_, source)| met(source)).collect();
    for known in ["AlterTopicRequest", "Host", "PartitionId"] {
        assert!(met.contains(known), "the reader of signatures lost its way: {met:?}");
    }
    let missing: Vec<&String> = met.iter().filter(|name| !exported.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "in public signatures and not exported: {missing:?}");
}

#[test]
fn every_example_program_is_run_against_a_cluster() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = std::fs::read_to_string(root.join("tests/against_clusters/examples.rs")).expect("text");
    let names = sources(&root.join("examples")).into_iter().map(|(path, _)| path);
    let names: Vec<String> =
        names.map(|path| path.file_stem().expect("a file").to_string_lossy().into_owned()).collect();
    assert!(names.len() >= 3, "{names:?}");
    let runs = |name: &str| {
        tests.contains(&format!("#[path = \"../../examples/{name}.rs\"]"))
            && tests.contains(&format!(" {name}::run("))
    };
    let without: Vec<&String> = names.iter().filter(|name| !runs(name)).collect();
    assert!(without.is_empty(), "no test runs {without:?}");
}
