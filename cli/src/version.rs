//! `plimsoll version`.

use clap::Args;
use serde::Serialize;

use crate::exit::Outcome;
use crate::output::{ShowArgs, print};

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Serialize)]
struct Version {
    plimsoll: &'static str,
}

pub(crate) fn run(args: VersionArgs) -> Outcome {
    let version = Version { plimsoll: env!("CARGO_PKG_VERSION") };
    print(args.show, &version, |version| format!("plimsoll {}\n", version.plimsoll))
}
