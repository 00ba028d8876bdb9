//! libFuzzer around the targets of `plimsoll_storage::fuzz` and `plimsoll_controller::fuzz`; `PLIMSOLL_FUZZ` names the
//! one to run.
//!
//! `scripts/fuzz` builds it with AddressSanitizer and coverage, and runs it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use plimsoll_controller::fuzz::TARGETS as CONTROLLER;
use plimsoll_storage::fuzz::{TARGETS as STORAGE, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let asked = std::env::var("PLIMSOLL_FUZZ").unwrap_or_default();
    let found = STORAGE.into_iter().chain(CONTROLLER).find(|(name, _)| *name == asked);
    found.unwrap_or_else(|| panic!("PLIMSOLL_FUZZ={asked} names no target")).1
});

fuzz_target!(|input: &[u8]| TARGET(input));
