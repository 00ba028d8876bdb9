//! `plimsoll disk`: every volume, how full it is and why it is at its level; and what can be done about it.

mod orders;
mod reclaim;

use clap::{Args, Subcommand};
use plimsoll_client::{Client, MetadataImage, SpuId};
use plimsoll_host::Host;
use plimsoll_host::config::ByteSize;
use serde::Serialize;

use crate::change::quoted;
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{ShowArgs, print_wide, table};
use crate::volume::{Volume, gauge, volumes_of, why};
use crate::words;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DiskArgs {
    #[command(subcommand)]
    command: Option<DiskCommand>,
    /// Shows this storage node only
    #[arg(long)]
    spu: Option<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Subcommand)]
enum DiskCommand {
    /// Shows what reclaim would delete; deletes nothing
    Plan(reclaim::PlanArgs),
    /// Deletes what retention and the topics allow, until so much is free; there is no undo
    Reclaim(reclaim::ReclaimArgs),
    /// Lowers the read-only mark of a volume for a while; it comes back by itself
    Borrow(orders::BorrowArgs),
    /// Makes a volume behave as if it were short of space, for a while; uses none and deletes nothing
    Drill(orders::DrillArgs),
}

/// Which volumes are meant.
#[derive(Clone, Debug, Args)]
struct VolumeArgs {
    /// Of this storage node
    #[arg(long)]
    spu: u32,
    /// The volume, by its path or the beginning of its id; not needed where the node has one
    #[arg(long, value_name = "PATH|ID")]
    volume: Option<String>,
}

/// One volume of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chosen {
    spu: SpuId,
    volume_id: bytes::Bytes,
    path: String,
}

impl VolumeArgs {
    /// As it is typed again in an undo.
    fn again(&self) -> String {
        let volume =
            self.volume.as_ref().map(|volume| format!(" --volume {}", quoted(volume))).unwrap_or_default();
        format!("--spu {}{volume}", self.spu)
    }

    fn choose(&self, image: &MetadataImage) -> Result<Chosen, Failure> {
        let mut found = chosen(image, Some(self.spu), self.volume.as_deref())?;
        if found.len() == 1 {
            return Ok(found.remove(0));
        }
        let paths: Vec<&str> = found.iter().map(|chosen| chosen.path.as_str()).collect();
        let why =
            format!("spu {} has several volumes; choose one with --volume: {}", self.spu, paths.join(", "));
        Err(Failure::new(Code::Usage, why))
    }
}

/// The volumes in the metadata that are meant, at least one.
fn chosen(image: &MetadataImage, spu: Option<u32>, volume: Option<&str>) -> Result<Vec<Chosen>, Failure> {
    if let Some(spu) = spu.filter(|spu| !image.spus.contains_key(&SpuId(*spu))) {
        let why = format!("there is no spu {spu}\nsee which there are with `plimsoll spu list`");
        return Err(Failure::new(Code::NotFound, why));
    }
    // Every id begins with it.
    if volume == Some("") {
        let why =
            "--volume is empty; give a path, or the beginning of an id as `plimsoll disk -o wide` shows it";
        return Err(Failure::new(Code::Usage, why));
    }
    let meant = |chosen: &Chosen| {
        volume.is_none_or(|text| chosen.path == text || words::hex(&chosen.volume_id).starts_with(text))
    };
    let found: Vec<Chosen> = image
        .spus
        .iter()
        .filter(|(id, _)| spu.is_none_or(|spu| id.0 == spu))
        .flat_map(|(id, info)| {
            info.volumes.iter().map(|volume| Chosen {
                spu: *id,
                volume_id: volume.volume_id.clone(),
                path: volume.path.clone(),
            })
        })
        .filter(meant)
        .collect();
    match (found.is_empty(), volume) {
        (false, _) => Ok(found),
        (true, Some(text)) => {
            let why =
                format!("no volume has the path or id '{text}'\nsee which there are with `plimsoll disk`");
            Err(Failure::new(Code::NotFound, why))
        }
        (true, None) => Err(Failure::new(Code::NotFound, "no storage node is registered")),
    }
}

#[derive(Serialize)]
struct Disks {
    volumes: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    volume: Volume,
    /// Replicas on this volume that are not in sync.
    replicas_behind: u32,
}

pub(crate) async fn run(args: DiskArgs, host: &Host) -> Outcome {
    match args.command {
        None => show(args, host).await,
        Some(DiskCommand::Plan(args)) => reclaim::plan(args, host).await,
        Some(DiskCommand::Reclaim(args)) => reclaim::reclaim(args, host).await,
        Some(DiskCommand::Borrow(args)) => orders::borrow(args, host).await,
        Some(DiskCommand::Drill(args)) => orders::drill(args, host).await,
    }
}

async fn show(args: DiskArgs, host: &Host) -> Outcome {
    let client = args.connect.connect(host).await?;
    let status = crate::cluster::status_of(&client).await?;
    let image = client.metadata();
    if let Some(spu) = args.spu {
        chosen(&image, Some(spu), None)?;
    }
    let mut volumes: Vec<Volume> = status.spus.iter().flat_map(volumes_of).collect();
    volumes.retain(|volume| args.spu.is_none_or(|spu| spu == volume.spu));
    volumes.sort_by(|a, b| (a.spu, &a.path).cmp(&(b.spu, &b.path)));
    let volumes =
        volumes.into_iter().map(|volume| Row { replicas_behind: behind(&client, &volume), volume }).collect();
    print_wide(args.show, &Disks { volumes }, |disks, wide| table_of(&disks.volumes, wide))
}

/// Replicas on this volume that their leaders do not count as in sync.
fn behind(client: &Client, volume: &Volume) -> u32 {
    let image = client.metadata();
    let partitions = image.topics.values().flat_map(|topic| &topic.partitions);
    let behind = partitions.filter(|partition| {
        let here = partition.replicas.iter().any(|replica| {
            replica.spu_id == volume.spu && words::hex(&replica.volume_id) == volume.volume_id
        });
        here && !partition.in_sync.contains(&volume.spu)
    });
    u32::try_from(behind.count()).unwrap_or(u32::MAX)
}

fn table_of(volumes: &[Row], wide: bool) -> String {
    if volumes.is_empty() {
        return "no storage node is registered\n".to_owned();
    }
    let rows: Vec<Vec<String>> = volumes
        .iter()
        .map(|row| {
            let volume = &row.volume;
            // Nothing is known of a volume that was not heard of: no figure is better than 0.
            let known = |shown: String| if volume.level.is_some() { shown } else { "-".to_owned() };
            let bytes = |bytes| known(ByteSize(bytes).to_string());
            let inodes =
                if volume.capacity_inodes == 0 { "-".to_owned() } else { volume.free_inodes.to_string() };
            let full = volume.time_to_full_ms.map_or_else(|| "-".to_owned(), words::span);
            let mut cells = vec![
                volume.spu.to_string(),
                volume.path.clone(),
                volume.level.unwrap_or("unknown").to_owned(),
                gauge(volume),
                bytes(volume.free_bytes),
                bytes(volume.used_bytes),
                bytes(volume.capacity_bytes),
                known(format!("{}/s", words::signed_bytes(volume.fill_bytes_per_s))),
                known(full),
                known(format!("{}/{}", volume.leaders, volume.replicas)),
                row.replicas_behind.to_string(),
                known(volume.refused_total.to_string()),
            ];
            if wide {
                cells.extend([
                    inodes,
                    bytes(volume.pending_bytes),
                    bytes(volume.preallocated_unused_bytes),
                    bytes(volume.marks.reclaim_enter_bytes),
                    bytes(volume.marks.throttle_enter_bytes),
                    bytes(volume.marks.read_only_enter_bytes),
                    bytes(volume.marks.read_only_exit_bytes),
                    known(volume.replica_stops_total.to_string()),
                    volume.volume_id.chars().take(8).collect(),
                ]);
            }
            cells.push(why(volume));
            cells
        })
        .collect();
    let mut header = vec![
        "spu", "volume", "level", "not free", "free", "ours", "capacity", "fills", "full in", "led",
        "behind", "refused",
    ];
    if wide {
        header.extend([
            "inodes free",
            "pending",
            "preallocated",
            "r at",
            "t at",
            "o at",
            "o until",
            "stops",
            "id",
        ]);
    }
    header.push("why");
    table(&header, &rows) + "marks: r reclaim, t throttle, o read-only; capital when passed\n"
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::v1::{SpuInfo, VolumeInfo};

    use super::*;

    #[test]
    fn volumes_are_chosen_by_node_path_and_id() {
        let mut image = MetadataImage::empty();
        let volume = |id: u8, path: &str| VolumeInfo {
            volume_id: vec![id; 16].into(),
            path: path.to_owned(),
            ..Default::default()
        };
        let two = SpuInfo { volumes: vec![volume(1, "/a"), volume(2, "/b")], ..Default::default() };
        let one = SpuInfo { volumes: vec![volume(3, "/a")], ..Default::default() };
        image.spus.insert(SpuId(1), two);
        image.spus.insert(SpuId(2), one);
        let count = |spu, volume| chosen(&image, spu, volume).map(|found| found.len()).map_err(|f| f.code);
        assert_eq!(count(None, None), Ok(3));
        assert_eq!(count(None, Some("/a")), Ok(2));
        assert_eq!(count(Some(1), Some("0202")), Ok(1));
        assert_eq!(count(Some(1), Some("/c")), Err(4));
        assert_eq!(count(Some(9), None), Err(4));
        assert_eq!(count(Some(2), Some("")), Err(2));
        let args = |spu, volume: Option<&str>| VolumeArgs { spu, volume: volume.map(str::to_owned) };
        assert_eq!(args(1, None).choose(&image).expect_err("two").code, 2);
        assert_eq!(args(2, None).choose(&image).expect("one").path, "/a");
        assert_eq!(args(1, Some("/b")).again(), "--spu 1 --volume /b");
        assert_eq!(args(1, Some("/b c")).again(), "--spu 1 --volume '/b c'");
    }
}
