//! `plimsoll cluster metrics`: counters and alerts that the controllers agreed on, as Prometheus reads them.

use clap::Args;
use plimsoll_host::Host;
use plimsoll_proto::v1::MetricsResponse;
use serde::Serialize;

use crate::connect::ConnectArgs;
use crate::exit::Outcome;
use crate::output::{ShowArgs, print};
use crate::words::hex;

#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Serialize)]
struct Metrics {
    applied_index: u64,
    events: Vec<EventCount>,
    no_ops_total: u64,
    alerts: Vec<Alert>,
    partitions: u32,
    partitions_without_leader: u32,
    partitions_under_replicated: u32,
    partitions_below_min_in_sync: u32,
}

#[derive(Serialize)]
struct EventCount {
    kind: String,
    total: u64,
}

#[derive(Serialize)]
struct Alert {
    id: String,
    code: String,
    subject: String,
    spu: u32,
    volume_id: Option<String>,
    index: u64,
    since_ms: u64,
    reason: String,
}

impl From<MetricsResponse> for Metrics {
    fn from(answer: MetricsResponse) -> Self {
        let events =
            answer.events.into_iter().map(|count| EventCount { kind: count.kind, total: count.total });
        let alerts = answer.alerts.into_iter().map(|alert| Alert {
            id: alert.id,
            code: alert.code,
            subject: alert.subject,
            spu: alert.spu_id,
            volume_id: (!alert.volume_id.is_empty()).then(|| hex(&alert.volume_id)),
            index: alert.index,
            since_ms: alert.since_ms,
            reason: alert.reason,
        });
        Self {
            applied_index: answer.version,
            events: events.collect(),
            no_ops_total: answer.no_ops_total,
            alerts: alerts.collect(),
            partitions: answer.partitions,
            partitions_without_leader: answer.partitions_without_leader,
            partitions_under_replicated: answer.partitions_under_replicated,
            partitions_below_min_in_sync: answer.partitions_below_min_in_sync,
        }
    }
}

pub(super) async fn run(args: MetricsArgs, host: &Host) -> Outcome {
    let answer = args.connect.connect(host).await?.admin().metrics().await?;
    print(args.show, &Metrics::from(answer), text)
}

/// The text format of Prometheus, version 0.0.4.
fn text(metrics: &Metrics) -> String {
    let mut text = Text::default();
    text.family("plimsoll_events_total", "counter", "Events of applied entries, by kind.");
    for count in &metrics.events {
        text.sample("plimsoll_events_total", &[("kind", &count.kind)], count.total);
    }
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        text.family(name, kind, help);
        text.sample(name, &[], value);
    };
    one(
        "plimsoll_no_ops_total",
        "counter",
        "Entries applied without effect, as an expectation did not hold.",
        metrics.no_ops_total,
    );
    for (name, help, value) in [
        ("plimsoll_partitions", "Partitions of all topics.", metrics.partitions),
        (
            "plimsoll_partitions_without_leader",
            "Partitions without a leader on a live node.",
            metrics.partitions_without_leader,
        ),
        (
            "plimsoll_partitions_under_replicated",
            "Partitions with fewer in-sync replicas than replicas.",
            metrics.partitions_under_replicated,
        ),
        (
            "plimsoll_partitions_below_min_in_sync",
            "Partitions with fewer in-sync replicas than their topic asks for.",
            metrics.partitions_below_min_in_sync,
        ),
    ] {
        one(name, "gauge", help, u64::from(value));
    }
    text.family(
        "plimsoll_alert",
        "gauge",
        "1 for each node or volume that is out of service, by health code.",
    );
    for alert in &metrics.alerts {
        text.sample("plimsoll_alert", &[("code", &alert.code), ("subject", &alert.subject)], 1);
    }
    text.family("plimsoll_alert_since_seconds", "gauge", "Since when, in seconds since 1970.");
    for alert in &metrics.alerts {
        let labels = [("code", alert.code.as_str()), ("subject", alert.subject.as_str())];
        text.sample("plimsoll_alert_since_seconds", &labels, alert.since_ms / 1000);
    }
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let pairs: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
        self.0.push_str(&format!("{name}{labels} {value}\n"));
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::v1;

    use super::*;

    #[test]
    fn every_family_has_its_help_and_type_and_labels_are_escaped() {
        let answer = MetricsResponse {
            version: 9,
            events: vec![v1::EventCount { kind: "volume_state".to_owned(), total: 3 }],
            no_ops_total: 2,
            alerts: vec![v1::Alert {
                code: "DISK_FULL".to_owned(),
                subject: "spu 1 /a \"b\" \\c".to_owned(),
                since_ms: 5_999,
                ..v1::Alert::default()
            }],
            partitions: 4,
            partitions_under_replicated: 1,
            ..MetricsResponse::default()
        };
        let text = text(&Metrics::from(answer));
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            r#"plimsoll_events_total{kind="volume_state"} 3"#,
            "plimsoll_no_ops_total 2",
            "plimsoll_partitions 4",
            "plimsoll_partitions_without_leader 0",
            "plimsoll_partitions_under_replicated 1",
            r#"plimsoll_alert{code="DISK_FULL",subject="spu 1 /a \"b\" \\c"} 1"#,
            r#"plimsoll_alert_since_seconds{code="DISK_FULL",subject="spu 1 /a \"b\" \\c"} 5"#,
        ] {
            assert!(lines.contains(&line), "{line} in\n{text}");
        }
        let samples = lines.iter().filter(|line| !line.starts_with('#'));
        for name in samples.map(|line| line.split(['{', ' ']).next().expect("a name")) {
            let help = lines.iter().position(|line| line.starts_with(&format!("# HELP {name} ")));
            let kind = lines.iter().position(|line| line.starts_with(&format!("# TYPE {name} ")));
            assert_eq!(help.map(|at| at + 1), kind, "{name} in\n{text}");
            assert_eq!(name.ends_with("_total"), text.contains(&format!("# TYPE {name} counter")), "{name}");
        }
    }
}
