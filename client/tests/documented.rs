//! Every public type of the SDK has an example in its documentation.

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

/// Names that a `pub use` of one of the crate's own modules lists.
fn exported(library: &str) -> Vec<&str> {
    let uses = library.split("\npub use ").skip(1).filter_map(|rest| rest.split(';').next());
    uses.filter(|listed| !listed.starts_with("plimsoll_proto"))
        .flat_map(|listed| listed.split(|c: char| !c.is_alphanumeric()))
        .filter(|word| word.starts_with(char::is_uppercase))
        .collect()
}

/// The comment above the definition of a type, if it is in this source.
fn comment<'a>(source: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines: Vec<&str> = source.lines().collect();
    let defines = |line: &&str| {
        ["struct", "enum", "trait"].iter().any(|kind| {
            let rest = line.strip_prefix("pub ").and_then(|rest| rest.strip_prefix(kind));
            let rest = rest.map(str::trim_start).and_then(|rest| rest.strip_prefix(name));
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        })
    };
    let at = lines.iter().position(defines)?;
    let above = lines[..at].iter().rev().take_while(|line| !line.is_empty() && !line.starts_with('}'));
    Some(above.copied().collect())
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
    assert!(names.len() > 30, "the reader of the list lost its way: {names:?}");
    let mut without = Vec::new();
    for name in names {
        let found = sources.iter().find_map(|(path, source)| Some((path, comment(source, name)?)));
        let Some((path, comment)) = found else { panic!("{name} is exported and not defined") };
        // A module may explain its main type at length.
        let above = path.ends_with("testkit/mod.rs") && name == "TestCluster";
        if !above && !comment.iter().any(|line| line.starts_with("/// ```")) {
            without.push(name);
        }
    }
    assert!(without.is_empty(), "no example: {without:?}");
}
