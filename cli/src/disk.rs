//! `plimsoll disk`: every volume, how full it is and why it is at its level.

use clap::Args;
use plimsoll_host::Host;
use plimsoll_host::config::ByteSize;
use serde::Serialize;

use crate::connect::ConnectArgs;
use crate::exit::Outcome;
use crate::output::{OutputArgs, print, table};
use crate::volume::{Volume, gauge, volumes_of, why};

#[derive(Debug, Args)]
pub(crate) struct DiskArgs {
    /// Shows this storage node only
    #[arg(long)]
    spu: Option<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Disks {
    volumes: Vec<Volume>,
}

pub(crate) async fn run(args: DiskArgs, host: &Host) -> Outcome {
    let status = args.connect.connect(host).await?.admin().cluster_status().await?;
    let mut volumes: Vec<Volume> = status.spus.iter().flat_map(volumes_of).collect();
    volumes.retain(|volume| args.spu.is_none_or(|spu| spu == volume.spu));
    volumes.sort_by(|a, b| (a.spu, &a.path).cmp(&(b.spu, &b.path)));
    print(args.output, &Disks { volumes }, |disks| show(&disks.volumes))
}

fn show(volumes: &[Volume]) -> String {
    if volumes.is_empty() {
        return "no storage node is registered\n".to_owned();
    }
    let rows: Vec<Vec<String>> = volumes
        .iter()
        .map(|volume| {
            // Nothing is known of a volume that was not heard of: no figure is better than 0.
            let known = |shown: String| if volume.level.is_some() { shown } else { "-".to_owned() };
            let bytes = |bytes| known(ByteSize(bytes).to_string());
            vec![
                volume.spu.to_string(),
                volume.path.clone(),
                volume.level.unwrap_or("unknown").to_owned(),
                gauge(volume),
                bytes(volume.free_bytes),
                bytes(volume.used_bytes),
                bytes(volume.capacity_bytes),
                if volume.capacity_inodes == 0 { "-".to_owned() } else { volume.free_inodes.to_string() },
                known(format!("{}/{}", volume.leaders, volume.replicas)),
                known(volume.refused_total.to_string()),
                why(volume),
            ]
        })
        .collect();
    let header = [
        "spu",
        "volume",
        "level",
        "not free",
        "free",
        "ours",
        "capacity",
        "inodes free",
        "led",
        "refused",
        "why",
    ];
    table(&header, &rows) + "marks: r reclaim, t throttle, o read-only; capital when passed\n"
}
