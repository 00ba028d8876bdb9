//! `plimsoll partition elect`.

use clap::Args;
use plimsoll_client::SpuId;
use plimsoll_host::Host;
use plimsoll_proto::v1::{ElectLeaderResponse, ElectionCandidate};
use serde::Serialize;

use crate::change::ChangeArgs;
use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::moves::partition;
use crate::output::{print, table};

#[derive(Debug, Args)]
pub(crate) struct ElectArgs {
    /// The partition
    #[arg(value_name = "TOPIC/INDEX", value_parser = partition)]
    partition: (String, u32),
    /// The storage node that is to lead; the replica that loses least when not given
    #[arg(long)]
    to: Option<u32>,
    /// Also a replica that may lack committed records: what is at risk is lost for good
    #[arg(long)]
    unclean: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Serialize)]
struct Election {
    dry_run: bool,
    elected: bool,
    /// Who leads, or would.
    leader: Option<u32>,
    leader_epoch: u32,
    /// Whether committed records may be lost by it.
    unclean: bool,
    high_watermark: u64,
    candidates: Vec<Candidate>,
    /// The command that takes it back; absent when nothing does, or when nothing is changed.
    undo: Option<String>,
    /// Whether somebody was elected, or would be.
    #[serde(skip)]
    changes: bool,
}

#[derive(Serialize)]
struct Candidate {
    spu: u32,
    standing: &'static str,
    answered: bool,
    last_epoch: Option<u32>,
    log_start: Option<u64>,
    log_end: Option<u64>,
    high_watermark: Option<u64>,
    /// Committed offsets that could be lost, from here on; absent when none can be.
    at_risk_from: Option<u64>,
    /// Exclusive; absent when none can be lost, and when nobody knows how far it goes.
    at_risk_to: Option<u64>,
    /// Nobody knows how far it goes: no replica that holds everything answers.
    at_risk_open: bool,
}

impl From<ElectionCandidate> for Candidate {
    fn from(from: ElectionCandidate) -> Self {
        let told = |value: u64| from.answered.then_some(value);
        let open = from.at_risk_open;
        let at_risk = open || from.at_risk_from < from.at_risk_to;
        Self {
            spu: from.spu_id,
            standing: match (from.in_sync, from.eligible, from.cache_lost) {
                (_, _, true) => "lost its page cache",
                (true, _, false) => "in sync",
                (false, true, false) => "eligible",
                (false, false, false) => "out of sync",
            },
            answered: from.answered,
            last_epoch: from.answered.then_some(from.last_epoch),
            log_start: told(from.log_start),
            log_end: told(from.log_end),
            high_watermark: told(from.high_watermark),
            at_risk_from: at_risk.then_some(from.at_risk_from),
            at_risk_to: (at_risk && !open).then_some(from.at_risk_to),
            at_risk_open: open,
        }
    }
}

impl Candidate {
    fn at_risk(&self) -> String {
        match (self.at_risk_from, self.at_risk_to) {
            (Some(from), Some(to)) => format!("{from} to {to}"),
            (Some(from), None) => format!("{from} and on"),
            (None, _) => "none".to_owned(),
        }
    }
}

pub(crate) async fn elect(args: ElectArgs, host: &Host) -> Outcome {
    let (topic, index) = args.partition;
    let admin = args.connect.connect(host).await?.admin();
    let to = args.to.map(SpuId);
    let dry_run = args.change.dry_run;
    let answer = admin.elect_leader(topic.clone(), index, to, args.unclean, dry_run).await?;
    let refused = !answer.elected && answer.unclean && !dry_run;
    let mut election = Election::new(answer, dry_run, &topic, index);
    election.undo = election.undo.map(|undo| args.change.for_cluster(&undo));
    print(args.change, &election, |election| election.text(&topic, index))?;
    if refused {
        let why = format!(
            "{}; nothing was changed. Start a node that holds everything, or add --unclean",
            election.cost()
        );
        return Err(Failure::new(Code::Failed, why));
    }
    Ok(())
}

impl Election {
    fn new(answer: ElectLeaderResponse, dry_run: bool, topic: &str, index: u32) -> Self {
        let before = answer.leader_before;
        let moves = before != answer.leader;
        let taken_back = moves && !answer.unclean && before != 0;
        Self {
            changes: answer.elected || dry_run && (moves || answer.unclean),
            dry_run,
            elected: answer.elected,
            leader: (answer.leader != 0).then_some(answer.leader),
            leader_epoch: answer.leader_epoch,
            unclean: answer.unclean,
            high_watermark: answer.high_watermark,
            candidates: answer.candidates.into_iter().map(Candidate::from).collect(),
            undo: taken_back.then(|| format!("plimsoll partition elect {topic}/{index} --to {before}")),
        }
    }

    fn cost(&self) -> String {
        let who = self.leader.map_or_else(|| "nobody".to_owned(), |spu| format!("SPU {spu}"));
        let chosen = self.candidates.iter().find(|candidate| Some(candidate.spu) == self.leader);
        match chosen.map(|candidate| (candidate.at_risk_from, candidate.at_risk_to)) {
            Some((Some(from), Some(to))) => {
                format!("{who} would lose what is committed of the offsets {from} to {to}, exclusive")
            }
            Some((Some(from), None)) => format!(
                "{who} would lose what is committed from offset {from} on; how much that is, nobody who answers knows"
            ),
            _ if self.unclean => {
                format!("{who} is not in sync, though its log is as long as one that holds everything")
            }
            _ => format!("{who} loses nothing"),
        }
    }

    /// What takes it back.
    fn taken_back(&self) -> String {
        match &self.undo {
            Some(undo) => undo.clone(),
            None if self.unclean => "there is none: what is lost by it stays lost".to_owned(),
            None => "there is none: nobody else led before".to_owned(),
        }
    }

    fn text(&self, topic: &str, index: u32) -> String {
        let number = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
        let rows: Vec<Vec<String>> = self
            .candidates
            .iter()
            .map(|candidate| {
                vec![
                    candidate.spu.to_string(),
                    candidate.standing.to_owned(),
                    number(candidate.last_epoch.map(u64::from)),
                    number(candidate.log_start),
                    number(candidate.log_end),
                    number(candidate.high_watermark),
                    candidate.at_risk(),
                ]
            })
            .collect();
        let head = ["spu", "standing", "last epoch", "log start", "log end", "high watermark", "at risk"];
        let leader = self.leader.map_or_else(|| "nobody".to_owned(), |spu| format!("SPU {spu}"));
        let done = match (self.elected, self.dry_run) {
            (true, _) => format!("elected {leader} to lead {topic}/{index} in epoch {}", self.leader_epoch),
            (false, true) => format!("dry run: {}; nothing was changed", self.cost()),
            (false, false) if self.unclean => format!("nobody was elected for {topic}/{index}"),
            (false, false) => format!("{leader} leads {topic}/{index}; nothing was changed"),
        };
        let undo = match self.changes {
            true => format!("undo: {}\n", self.taken_back()),
            false => String::new(),
        };
        format!("{}\n{done}\n{undo}", table(&head, &rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_named_before_anything_is_lost() {
        let candidate = |spu_id, in_sync, at_risk_from| ElectionCandidate {
            spu_id,
            in_sync,
            answered: true,
            last_epoch: 4,
            log_end: 75,
            high_watermark: 70,
            at_risk_from,
            at_risk_to: 80,
            ..ElectionCandidate::default()
        };
        let answer = |leader, unclean| ElectLeaderResponse {
            leader,
            leader_before: 2,
            unclean,
            high_watermark: 80,
            candidates: vec![candidate(1, true, 80), candidate(3, false, 75)],
            ..ElectLeaderResponse::default()
        };
        let lossy = Election::new(answer(3, true), true, "t", 0);
        assert_eq!(lossy.cost(), "SPU 3 would lose what is committed of the offsets 75 to 80, exclusive");
        assert!(lossy.text("t", 0).contains("75 to 80"), "{}", lossy.text("t", 0));
        assert!(lossy.text("t", 0).ends_with("undo: there is none: what is lost by it stays lost\n"));
        let clean = Election::new(answer(1, false), true, "t", 0);
        assert_eq!(clean.cost(), "SPU 1 loses nothing");
        assert!(clean.text("t", 0).ends_with("undo: plimsoll partition elect t/0 --to 2\n"));
        let json = serde_json::to_value(&clean).expect("plain data");
        assert_eq!(
            (&json["candidates"][0]["at_risk_from"], &json["leader"], &json["undo"]),
            (&serde_json::Value::Null, &1.into(), &"plimsoll partition elect t/0 --to 2".into())
        );
        // Who led before, leads on: there is nothing to take back.
        let same = Election::new(answer(2, false), true, "t", 0);
        assert!(same.undo.is_none() && !same.text("t", 0).contains("undo"), "{}", same.text("t", 0));
        // Nobody led.
        let first = ElectLeaderResponse { leader_before: 0, elected: true, ..answer(1, false) };
        let first = Election::new(first, false, "t", 0).text("t", 0);
        assert!(first.ends_with("undo: there is none: nobody else led before\n"), "{first}");
    }

    #[test]
    fn a_range_whose_end_nobody_knows_is_never_called_empty() {
        let open = ElectionCandidate {
            spu_id: 2,
            answered: true,
            at_risk_from: 5,
            at_risk_to: 5,
            at_risk_open: true,
            ..ElectionCandidate::default()
        };
        let answer =
            ElectLeaderResponse { leader: 2, unclean: true, candidates: vec![open], ..Default::default() };
        let election = Election::new(answer, false, "t", 0);
        assert_eq!(
            election.cost(),
            "SPU 2 would lose what is committed from offset 5 on; how much that is, nobody who answers knows"
        );
        let text = election.text("t", 0);
        assert!(text.contains("5 and on") && text.ends_with("nobody was elected for t/0\n"), "{text}");
        let json = serde_json::to_value(&election).expect("plain data");
        let candidate = &json["candidates"][0];
        assert_eq!(
            (&candidate["at_risk_from"], &candidate["at_risk_to"], &candidate["at_risk_open"]),
            (&5.into(), &serde_json::Value::Null, &true.into())
        );
    }
}
