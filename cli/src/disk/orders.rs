//! `plimsoll disk borrow` and `plimsoll disk drill`.

use clap::{Args, ValueEnum};
use plimsoll_client::DiskLevel;
use plimsoll_host::Host;
use plimsoll_host::config::{ByteSize, Span};
use plimsoll_proto::v1::{BorrowRequest, DrillRequest};
use serde::Serialize;

use super::VolumeArgs;
use crate::change::{Change, ChangeArgs};
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::words;

#[derive(Debug, Args)]
pub(super) struct BorrowArgs {
    #[command(flatten)]
    volume: VolumeArgs,
    /// By how much the mark is lowered; 0 puts it back at once
    #[arg(long, value_name = "SIZE")]
    bytes: ByteSize,
    /// For how long; at most 24h
    #[arg(long, value_name = "TIME", default_value = "30min")]
    ttl: Span,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(super) struct DrillArgs {
    #[command(flatten)]
    volume: VolumeArgs,
    /// The level to be reached
    #[arg(long, value_enum, default_value_t)]
    level: Level,
    /// For how long; at most 1h
    #[arg(long, value_name = "TIME", default_value = "30s")]
    ttl: Span,
    /// Ends the drill that runs
    #[arg(long, conflicts_with_all = ["level", "ttl"])]
    end: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Level {
    Reclaim,
    Throttle,
    #[default]
    ReadOnly,
}

impl Level {
    fn wire(self) -> DiskLevel {
        match self {
            Self::Reclaim => DiskLevel::Reclaim,
            Self::Throttle => DiskLevel::Throttle,
            Self::ReadOnly => DiskLevel::ReadOnly,
        }
    }
}

#[derive(Serialize)]
struct Borrowed {
    spu: u32,
    volume: String,
    borrowed_bytes: u64,
    read_only_enter_bytes: u64,
    read_only_enter_bytes_configured: u64,
    ttl_ms: u64,
}

#[derive(Serialize)]
struct Drilled {
    spu: u32,
    volume: String,
    drill_level: Option<&'static str>,
    pretended_free_bytes: u64,
    free_bytes: u64,
    ttl_ms: u64,
}

/// Milliseconds, 1 to `max_s` seconds.
fn ttl_ms(span: Span, max_s: u64) -> Result<u64, Failure> {
    let ms = u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
    if (1..=max_s * 1000).contains(&ms) {
        return Ok(ms);
    }
    let most = Span(std::time::Duration::from_secs(max_s));
    Err(Failure::new(Code::Usage, format!("--ttl is {span}, it must be from 1ms to {most}")))
}

pub(super) async fn borrow(args: BorrowArgs, host: &Host) -> Outcome {
    let ttl_ms = ttl_ms(args.ttl, 24 * 3600)?;
    let client = args.connect.connect(host).await?;
    let volume = args.volume.choose(&client.metadata())?;
    let request = BorrowRequest {
        volume_id: volume.volume_id.clone(),
        bytes: args.bytes.0,
        ttl_ms,
        dry_run: args.change.dry_run,
    };
    let answer = client.node(volume.spu).borrow(request).await?;
    let place = format!("spu {} {}", volume.spu.0, volume.path);
    let (now, configured) =
        (ByteSize(answer.read_only_enter_bytes), ByteSize(answer.read_only_enter_bytes_configured));
    let detail = Borrowed {
        spu: volume.spu.0,
        volume: volume.path,
        borrowed_bytes: answer.borrowed_bytes,
        read_only_enter_bytes: answer.read_only_enter_bytes,
        read_only_enter_bytes_configured: answer.read_only_enter_bytes_configured,
        ttl_ms: answer.ttl_ms,
    };
    if answer.borrowed_bytes == 0 {
        let what = format!("the read-only mark of {place} back to {configured}");
        return Change::with(args.change, format!("put {what}"), format!("put {what}"), detail)
            .print(args.change);
    }
    let what = format!("the read-only mark of {place} from {configured} to {now} for {}", args.ttl);
    Change::with(
        args.change,
        format!("lower {what}"),
        format!("lowered {what}; it comes back by itself"),
        detail,
    )
    .undo(format!("plimsoll disk borrow {} --bytes 0", args.volume.again()))
    .print(args.change)
}

pub(super) async fn drill(args: DrillArgs, host: &Host) -> Outcome {
    let ttl_ms = ttl_ms(args.ttl, 3600)?;
    let client = args.connect.connect(host).await?;
    let volume = args.volume.choose(&client.metadata())?;
    let level = (!args.end).then(|| args.level.wire());
    let request = DrillRequest {
        volume_id: volume.volume_id.clone(),
        level: level.unwrap_or(DiskLevel::Unspecified).into(),
        ttl_ms: if args.end { 0 } else { ttl_ms },
        dry_run: args.change.dry_run,
    };
    let answer = client.node(volume.spu).drill(request).await?;
    let place = format!("spu {} {}", volume.spu.0, volume.path);
    let drill_level = level.map(words::level);
    let detail = Drilled {
        spu: volume.spu.0,
        volume: volume.path,
        drill_level,
        pretended_free_bytes: answer.pretended_free_bytes,
        free_bytes: answer.free_bytes,
        ttl_ms: answer.ttl_ms,
    };
    let Some(level) = drill_level else {
        let what = format!("the drill on {place}");
        return Change::with(args.change, format!("end {what}"), format!("ended {what}"), detail)
            .print(args.change);
    };
    let free = ByteSize(answer.pretended_free_bytes);
    let what = format!("a drill on {place}: {level}, as if {free} were free, for {}", args.ttl);
    Change::with(args.change, format!("begin {what}"), format!("began {what}"), detail)
        .undo(format!("plimsoll disk drill {} --end", args.volume.again()))
        .print(args.change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_bounded_and_the_bound_is_told() {
        let span = |text: &str| text.parse::<Span>().expect("a time");
        assert_eq!(ttl_ms(span("30s"), 3600).expect("short"), 30_000);
        for bad in ["0s", "2h", "100us"] {
            let failure = ttl_ms(span(bad), 3600).expect_err(bad);
            assert_eq!(failure.code, 2);
            assert!(failure.message.contains("1h"), "{}", failure.message);
        }
    }
}
