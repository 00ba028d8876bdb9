//! `plimsoll events`: what the cluster committed about itself.

use std::time::Duration;

use clap::Args;
use plimsoll_client::{Admin, ClusterEvent};
use plimsoll_host::Host;
use serde::Serialize;

use crate::connect::ConnectArgs;
use crate::exit::Outcome;
use crate::output::{ShowArgs, one_line, print, table, write_out};
use crate::words::hex;

const FOLLOW_PAUSE: Duration = Duration::from_millis(500);
const PAGE: u32 = 1000;

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Shows events behind this index of the log of entries
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// Shows so many at most
    #[arg(long, default_value_t = PAGE, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Goes on as events happen, one line each; with -o json one object a line, each with its field `version`
    #[arg(long, conflicts_with_all = ["limit", "watch"])]
    follow: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Serialize)]
struct Events {
    events: Vec<Event>,
}

#[derive(Serialize)]
pub(crate) struct Event {
    index: u64,
    ordinal: u32,
    time_ms: u64,
    kind: String,
    spu: Option<u32>,
    volume_id: Option<String>,
    topic_id: Option<String>,
    partition: Option<u32>,
    from: String,
    to: String,
    reason: String,
}

impl From<ClusterEvent> for Event {
    fn from(event: ClusterEvent) -> Self {
        let id = |bytes: &[u8]| (!bytes.is_empty()).then(|| hex(bytes));
        let topic_id = id(&event.topic_id);
        Self {
            index: event.index,
            ordinal: event.ordinal,
            time_ms: event.time_ms,
            partition: (topic_id.is_some() && !event.kind.starts_with("topic_")).then_some(event.partition),
            kind: event.kind,
            spu: (event.spu_id > 0).then_some(event.spu_id),
            volume_id: id(&event.volume_id),
            topic_id,
            from: event.from,
            to: event.to,
            reason: event.reason,
        }
    }
}

impl Event {
    pub(crate) fn row(&self) -> Vec<String> {
        let short = |id: &Option<String>| id.as_ref().map(|id| id.chars().take(8).collect::<String>());
        let mut subject = Vec::new();
        subject.extend(self.spu.map(|spu| format!("spu {spu}")));
        subject.extend(short(&self.volume_id).map(|id| format!("volume {id}")));
        subject.extend(short(&self.topic_id).map(|id| match self.partition {
            Some(partition) => format!("topic {id} partition {partition}"),
            None => format!("topic {id}"),
        }));
        let change = match (self.from.is_empty(), self.to.is_empty()) {
            (true, true) => String::new(),
            (true, false) => self.to.clone(),
            _ => format!("{} -> {}", self.from, self.to),
        };
        vec![
            format!("{}.{}", self.index, self.ordinal),
            utc(self.time_ms),
            self.kind.clone(),
            subject.join(" "),
            change,
            self.reason.clone(),
        ]
    }
}

pub(crate) async fn run(args: EventsArgs, host: &Host) -> Outcome {
    let admin = args.connect.connect(host).await?.admin();
    if args.follow {
        return follow(&admin, args, host).await;
    }
    let events = admin.list_events(args.after, args.limit).await?;
    let events = Events { events: events.into_iter().map(Event::from).collect() };
    print(args.show, &events, |events| {
        let rows: Vec<Vec<String>> = events.events.iter().map(Event::row).collect();
        table(&["event", "time", "kind", "subject", "change", "reason"], &rows)
    })
}

async fn follow(admin: &Admin, args: EventsArgs, host: &Host) -> Outcome {
    let mut after = args.after;
    loop {
        for event in admin.list_events(after, PAGE).await? {
            after = after.max(event.index);
            let event = Event::from(event);
            let line = if args.show.output.for_people() {
                event.row().join("  ").trim_end().to_owned() + "\n"
            } else {
                one_line(args.show.output.output, &event)?
            };
            write_out(line.as_bytes())?;
        }
        host.clock.sleep(FOLLOW_PAUSE).await;
    }
}

/// Milliseconds since 1970 as UTC (days to civil date: Howard Hinnant, "chrono-compatible low-level date
/// algorithms").
fn utc(ms: u64) -> String {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", rest % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696_789, "2000-02-29T12:34:56.789Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(utc(ms), text);
        }
    }
}
