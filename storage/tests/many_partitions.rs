//! More partitions than a process may have open files, and what an idle one keeps in memory.

#![allow(dead_code, reason = "scenes are shared with the benches")]

#[path = "../benches/figures/figure.rs"]
mod figure;
#[path = "../benches/figures/lab.rs"]
mod lab;
#[path = "../benches/figures/many.rs"]
mod many;
mod rig;

/// More than files that may be open; the bench takes 10,000.
const PARTITIONS: u32 = 2000;

#[test]
fn partitions_are_bounded_in_memory_and_open_files() {
    let lab = lab::Lab::in_memory();
    let seen = many::run(lab.path(), PARTITIONS);
    assert!(seen.files < 1024, "{} files are open", seen.files);
    assert!(seen.bytes_each < 16.0 * 1024.0, "{} bytes for an idle partition", seen.bytes_each);
}
