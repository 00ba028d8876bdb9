//! The tables of keys agree with the settings, and with `docs/configuration.md`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use plimsoll_spu::SpuSettings;
use serde::Serialize;

use super::super::controller::ControllerFile;
use super::super::standalone::StandaloneFile;
use super::*;

/// What the file says when nothing is said.
fn defaults<T: Default + Serialize>() -> serde_json::Map<String, serde_json::Value> {
    let json = serde_json::to_value(T::default()).expect("settings are data");
    json.as_object().expect("settings are a table").clone()
}

fn shown(key: &Key, default: &serde_json::Value) -> String {
    let nothing = default.is_null()
        || default.as_str() == Some("")
        || default.as_array().is_some_and(Vec::is_empty)
        || (default == 0 && key.minimum.contains("required"));
    match (key.absent, nothing) {
        ("", true) => "-".to_owned(),
        ("", false) if key.kind == Kind::Percent => format!("{default} %"),
        ("", false) => format!("`{default}`"),
        (absent, _) => absent.to_owned(),
    }
}

fn table<T: Keys + Default + Serialize>() -> String {
    let defaults = defaults::<T>();
    let mut text =
        "| key | flag | environment | default | minimum | |\n|---|---|---|---|---|---|\n".to_owned();
    for key in T::KEYS {
        let default = shown(key, &defaults[key.name]);
        let (flag, variable) = (key.flag_name(), key.variable());
        let minimum = if key.minimum.is_empty() { "-" } else { key.minimum };
        writeln!(
            text,
            "| `{}` | `--{flag}` | `{variable}` | {default} | {minimum} | {} |",
            key.name, key.about
        )
        .expect("text");
    }
    text
}

fn names<T: Keys + Default + Serialize>() {
    let fields: BTreeSet<String> = defaults::<T>().keys().cloned().collect();
    let keys: BTreeSet<String> = T::KEYS.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(keys, fields, "each setting has a key, a flag and a variable");
}

#[test]
fn each_setting_is_a_key_a_flag_and_a_variable() {
    names::<SpuSettings>();
    names::<ControllerFile>();
    names::<StandaloneFile>();
}

/// With `PLIMSOLL_WRITE_DOCS=1` the page is corrected instead.
#[test]
fn the_configuration_page_is_exact() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = std::fs::read_to_string(&path).expect("docs/configuration.md is there");
    let mut exact = page.clone();
    for (name, table) in [
        ("spu", table::<SpuSettings>()),
        ("controller", table::<ControllerFile>()),
        ("standalone", table::<StandaloneFile>()),
    ] {
        let (begin, end) = (format!("<!-- keys of {name} -->\n"), format!("<!-- end of {name} -->"));
        let from = exact.find(&begin).expect("the page has the table's begin") + begin.len();
        let to = exact.find(&end).expect("the page has the table's end");
        exact.replace_range(from..to, &table);
    }
    if std::env::var_os("PLIMSOLL_WRITE_DOCS").is_some() {
        #[expect(clippy::disallowed_methods, reason = "a page of the documentation, on request")]
        std::fs::write(&path, &exact).expect("the page can be written");
        return;
    }
    assert!(exact == page, "run this test with PLIMSOLL_WRITE_DOCS=1: the page should be\n{exact}");
}

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    keys: KeyArgs<SpuSettings>,
}

fn parse(arguments: &[&str]) -> Result<SpuSettings, String> {
    let flags = <Flags as clap::Parser>::try_parse_from([&["spu"], arguments].concat());
    flags.map_err(|error| error.to_string())?.keys.settings().map_err(|failure| failure.message)
}

#[test]
fn flags_become_settings() {
    let settings = parse(&[
        "--id=3",
        "--data-dir=/a,/b",
        "--data-dir=/c",
        "--controller=1@a:1",
        "--reclaim-percent=30",
        "--reserve=4MiB",
        "--heartbeat-interval=250ms",
    ])
    .expect("known flags");
    assert_eq!(settings.id, 3);
    assert_eq!(settings.data_dirs, ["/a", "/b", "/c"].map(PathBuf::from));
    assert_eq!(settings.reclaim_percent, 30);
    assert_eq!(settings.reserve, Some(ByteSize(4 << 20)));
    assert_eq!(settings.heartbeat_interval, Span(std::time::Duration::from_millis(250)));
    for wrong in ["--reserve=much", "--heartbeat-interval=5", "--id=x", "--frobnication"] {
        assert!(parse(&[wrong]).is_err(), "{wrong}");
    }
}
