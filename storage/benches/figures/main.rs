//! Figures of one volume, each against something measured in the same run.
//!
//! `scripts/bench [NAME...]` runs them in the release profile; docs/performance.md says what each of them means.
//! A line `FIGURE name value=... bar=... ok|missed` tells the median; `min` and `max` tell how far to trust it.
//! `PLIMSOLL_BENCH_DIR` names the folder, and with it the filesystem, to work in.

mod append;
mod commit;
mod figure;
mod lab;
mod many;
mod pressure;
mod read;
#[path = "../../tests/rig/mod.rs"]
mod rig;
mod slow;
mod sparse;
mod start;

use criterion::Criterion;

/// Measures and prints.
type Figures = fn(&mut Criterion);

/// By name; those that look at the memory of the process come first.
const FIGURES: [(&str, Figures); 8] = [
    ("partitions", |_| many::figures()),
    ("start", start::figures),
    ("append", append::figures),
    ("admission", append::admission_figures),
    ("commit", commit::figures),
    ("read", read::figures),
    ("lookup", read::lookup_figures),
    ("pressure", |_| pressure::figures()),
];

fn main() {
    // Cargo adds flags of its own, such as `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|name| FIGURES.iter().all(|(known, _)| known != name)) {
        let known = FIGURES.map(|(name, _)| name).join(" ");
        eprintln!("no figure is called {unknown}; there are: {known}");
        std::process::exit(2);
    }
    let mut criterion = figure::criterion();
    for (_, run) in FIGURES.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name)) {
        run(&mut criterion);
    }
}
