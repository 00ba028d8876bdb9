//! Random operations against a plain model.

use std::time::Duration;

use plimsoll_proto::ids::LeaderEpoch;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::world::*;
use crate::fs::memory::{MemoryDisk, MemoryDiskSettings, PowerLoss};
use crate::inspect::{Finding, FindingKind};
use crate::log::AppendError;
use crate::volume::{ReplicaGuards, Volume};

#[derive(Clone, Debug)]
enum Op {
    /// Append so many records of so many bytes.
    Append(u8, u16),
    /// Append the last batch of the producer again.
    Again,
    Sync,
    TrimTo(u8),
    TruncateTo(u8),
    Reopen {
        in_order: bool,
    },
    PowerLoss(u64),
    Tick(u16),
    ForeignFill,
    ForeignRelease,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (1u8..4, 1u16..4000).prop_map(|(n, bytes)| Op::Append(n, bytes)),
        2 => Just(Op::Again),
        2 => Just(Op::Sync),
        1 => any::<u8>().prop_map(Op::TrimTo),
        1 => any::<u8>().prop_map(Op::TruncateTo),
        1 => any::<bool>().prop_map(|in_order| Op::Reopen { in_order }),
        1 => any::<u64>().prop_map(Op::PowerLoss),
        1 => (0u16..20_000).prop_map(Op::Tick),
        1 => Just(Op::ForeignFill),
        1 => Just(Op::ForeignRelease),
    ];
    proptest::collection::vec(op, 1..120)
}

/// The log as it should be: values from offset 0 on, of which those below `start` are gone.
#[derive(Default)]
struct Model {
    values: Vec<Vec<u8>>,
    /// First record, producer epoch, sequence and number of records of each batch.
    batches: Vec<(usize, i16, i32, i32)>,
    start: usize,
    synced: usize,
    epoch: i16,
    epochs_made: i16,
    sequence: i32,
    made: u32,
    now: u64,
}

fn play(ops: &[Op]) {
    let disk = MemoryDisk::new(MemoryDiskSettings::plain(32 << 20));
    let (mut volume, _) = open(shared(&disk), Duration::ZERO);
    volume.create_partition(partition(0), small_segments(), Duration::ZERO).unwrap();
    volume.sync(&partition(0)).unwrap();
    let mut model = Model::default();
    for op in ops {
        model.now += 1;
        volume = step(volume, &disk, &mut model, op);
        compare(&mut volume, &model);
    }
}

fn send(
    volume: &mut Volume,
    values: &[&[u8]],
    (epoch, sequence): (i16, i32),
    now: u64,
) -> Result<crate::log::Appended, AppendError> {
    let batch = batch(values, Some((9, epoch, sequence)));
    volume.append_as_leader(&partition(0), batch, LeaderEpoch(1), Duration::from_millis(now), WALL_MS + now)
}

fn step(mut volume: Volume, disk: &MemoryDisk, model: &mut Model, op: &Op) -> Volume {
    let end = model.values.len();
    let between = |share: u8| model.start + (end - model.start) * usize::from(share) / 256;
    match op {
        Op::Append(count, bytes) => {
            let values: Vec<Vec<u8>> = (0..*count)
                .map(|_| {
                    model.made += 1;
                    let mut value = model.made.to_be_bytes().to_vec();
                    value.resize(usize::from(*bytes).max(4), 7);
                    value
                })
                .collect();
            let parts: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            match send(&mut volume, &parts, (model.epoch, model.sequence), model.now) {
                Ok(appended) => {
                    assert_eq!(appended.base_offset.get(), u64::try_from(end).unwrap());
                    model.batches.push((end, model.epoch, model.sequence, i32::from(*count)));
                    model.sequence += i32::from(*count);
                    model.values.extend(values);
                }
                // What it wrote was trimmed and what followed was cut: a new epoch begins.
                Err(AppendError::UnknownProducer) if model.start > 0 => {
                    model.epochs_made += 1;
                    (model.epoch, model.sequence) = (model.epochs_made, 0);
                }
                Err(AppendError::OutOfSpace { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        Op::Again => {
            // A duplicate of what was trimmed is told only while its producer is remembered.
            let last = model.batches.last().filter(|(first, ..)| *first >= model.start);
            if let Some(&(first, epoch, sequence, count)) = last {
                let last = first + usize::try_from(count).unwrap();
                let parts: Vec<&[u8]> = model.values[first..last].iter().map(Vec::as_slice).collect();
                match send(&mut volume, &parts, (epoch, sequence), model.now) {
                    Ok(again) => {
                        assert!(again.duplicate && again.base_offset.get() == u64::try_from(first).unwrap())
                    }
                    Err(AppendError::OutOfSpace { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
        Op::Sync => {
            assert_eq!(volume.sync(&partition(0)).unwrap().get(), u64::try_from(end).unwrap());
            model.synced = end;
        }
        Op::TrimTo(share) => {
            let to = between(*share);
            volume.trim_head(&partition(0), offset(u64::try_from(to).unwrap())).unwrap();
            model.start = to;
        }
        Op::TruncateTo(share) => {
            let to = between(*share);
            volume.truncate_tail(&partition(0), offset(u64::try_from(to).unwrap())).unwrap();
            let start = model.start;
            cut(model, to);
            // A batch that straddles the log start goes whole, and the log goes on at its start.
            model.values.resize(model.values.len().max(start), Vec::new());
            model.start = start;
            // What a power loss may bring back of the cut tail is not modelled: make the cut durable.
            volume.sync(&partition(0)).unwrap();
            model.synced = model.values.len();
        }
        Op::Reopen { in_order } => {
            if *in_order {
                volume.close(WALL_MS).unwrap();
                model.synced = end;
            } else {
                drop(volume);
            }
            sound(disk);
            return open(shared(disk), Duration::from_millis(model.now)).0;
        }
        Op::PowerLoss(seed) => {
            drop(volume);
            disk.power_loss(PowerLoss::Tears { seed: *seed });
            let (mut volume, report) = open(shared(disk), Duration::from_millis(model.now));
            assert!(report.damaged.is_empty() && report.failed.is_empty(), "{report:?}");
            let view = volume.log(&partition(0)).unwrap();
            let found = usize::try_from(view.log_end.get()).unwrap();
            assert!(found >= model.synced && found <= end, "{found} of {}..{end}", model.synced);
            cut(model, found);
            // A log whose unsynced end lies below its log start begins anew there.
            assert!(found == model.values.len() || view.log_start == view.log_end);
            model.values.resize(found, Vec::new());
            // A log start that a trim wrote down never goes back.
            assert!(usize::try_from(view.log_start.get()).unwrap() >= model.start.min(found));
            model.start = usize::try_from(view.log_start.get()).unwrap();
            volume.sync(&partition(0)).unwrap();
            model.synced = found;
            return volume;
        }
        Op::Tick(by) => {
            model.now += u64::from(*by);
            volume.tick(Duration::from_millis(model.now), WALL_MS + model.now, &ReplicaGuards::new());
        }
        Op::ForeignFill => {
            disk.take_all_bytes();
        }
        Op::ForeignRelease => {
            disk.release();
            for _ in 0..40 {
                model.now += 50;
                let sample = crate::fs::Disk::space(disk).unwrap();
                volume.observe(crate::space::Observation::Sample(sample), Duration::from_millis(model.now));
            }
        }
    }
    volume
}

/// Whatever was done, the files that it left are sound for those who read them offline.
fn sound(disk: &MemoryDisk) {
    for log in crate::inspect::find_logs(disk).unwrap() {
        let found = log.verify(disk).unwrap();
        // Indexes are hints and never synced: a power loss may have left any mixture of them.
        let damage = |finding: &&Finding| finding.kind.is_damage() && finding.kind != FindingKind::Index;
        assert_eq!(found.findings.iter().find(damage), None);
    }
}

fn cut(model: &mut Model, to: usize) {
    while let Some(&(first, epoch, sequence, count)) = model.batches.last() {
        let end = first + usize::try_from(count).unwrap();
        if end <= to {
            break;
        }
        model.batches.pop();
        (model.epoch, model.sequence) = (epoch, sequence);
        model.values.truncate(first);
    }
    model.synced = model.synced.min(model.values.len());
    model.start = model.start.min(model.values.len());
}

fn compare(volume: &mut Volume, model: &Model) {
    let view = volume.log(&partition(0)).unwrap();
    assert_eq!(view.log_end.get(), u64::try_from(model.values.len()).unwrap());
    assert_eq!(view.log_start.get(), u64::try_from(model.start).unwrap());
    assert!(view.log_start <= view.high_watermark && view.high_watermark <= view.log_end);
    assert!(view.durable_end <= view.log_end);
    let found: Vec<Vec<u8>> =
        read_all(volume, &partition(0), None).into_iter().map(|(_, v)| v.to_vec()).collect();
    assert!(found == model.values[model.start..], "contents differ");
}

#[test]
fn random_operations_agree_with_the_model() {
    let cases = if in_full() { 4000 } else { 120 };
    let seed = seed().unwrap_or(42);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let outcome = runner.run(&ops(), |ops| {
        play(&ops);
        Ok(())
    });
    // The message holds the shortest list of operations that fails.
    assert!(outcome.is_ok(), "PLIMSOLL_SEED={seed} scripts/prove model\n{}", outcome.unwrap_err());
    println!("CASES model random cases={cases} seed={seed}");
}

/// Found by the model: the producers' state of a batch that straddles the log start was lost with the page cache.
#[test]
fn a_batch_that_straddles_the_log_start_keeps_its_producer() {
    play(&[
        Op::Append(1, 1),
        Op::Append(2, 1),
        Op::TrimTo(171),
        Op::Append(1, 1),
        Op::TruncateTo(128),
        Op::PowerLoss(0),
        Op::Append(1, 1),
    ]);
}

/// Found by the model: a power loss took the batches just below the log start, and older ones of the same producer
/// were taken for its last.
#[test]
fn what_was_lost_below_the_log_start_is_not_made_up_from_older_batches() {
    let mut ops = vec![Op::Append(2, 1), Op::Reopen { in_order: true }, Op::Append(3, 1), Op::Append(3, 1)];
    ops.extend([Op::Append(1, 1), Op::Append(1, 1), Op::Append(1, 1), Op::Append(1, 1), Op::TrimTo(107)]);
    ops.extend([Op::PowerLoss(9_727_667_541_986_399_751), Op::Append(1, 1)]);
    play(&ops);
}

/// Found by the model: an index entry from before a cut, for the very offset where the log ended and a position within
/// its torn tail, was taken for that end, and what was appended then lay behind garbage.
#[test]
fn an_index_from_before_a_cut_does_not_tell_where_the_log_ends() {
    let mut ops = vec![Op::Append(1, 1), Op::Append(1, 1), Op::Append(1, 1), Op::Tick(0)];
    ops.extend([Op::Append(1, 1), Op::Append(1, 1), Op::TrimTo(52), Op::TruncateTo(0), Op::ForeignRelease]);
    ops.extend([Op::Append(2, 1829), Op::Append(1, 1), Op::Tick(7988)]);
    ops.extend([Op::PowerLoss(7_903_483_252_955_185_623), Op::Append(1, 1), Op::Append(1, 1)]);
    ops.extend([Op::Append(1, 1), Op::Append(2, 1), Op::Sync, Op::TruncateTo(103), Op::Append(2, 1758)]);
    ops.extend([Op::PowerLoss(5_693_345_572_170_661_437), Op::Append(1, 1)]);
    play(&ops);
}

/// Found by the model: a power loss behind a cut to a trimmed log start made a producer that had written there look like
/// one that never wrote: it was told to begin at sequence 0, for ever.
#[test]
fn a_producer_of_which_nothing_is_left_is_not_taken_for_a_new_one() {
    let mut ops = vec![Op::Append(1, 1), Op::Append(2, 1), Op::Append(1, 1), Op::Tick(0), Op::Append(2, 1)];
    ops.extend([Op::Reopen { in_order: false }, Op::TrimTo(86), Op::TruncateTo(128), Op::ForeignRelease]);
    ops.extend([Op::Append(1, 2645), Op::Append(1, 1085), Op::Tick(0), Op::Append(1, 1), Op::Tick(7992)]);
    ops.extend([
        Op::PowerLoss(7488),
        Op::TruncateTo(0),
        Op::PowerLoss(0),
        Op::Append(1, 1),
        Op::Append(1, 1),
    ]);
    play(&ops);
}

/// Found by the model: behind a loss of power that took the batch just below the log start, a cut read the producers
/// again from a segment that ends before the log start, and took an older batch for the last one.
#[test]
fn a_cut_does_not_believe_what_ends_before_the_log_start() {
    let mut ops = vec![Op::Append(1, 1), Op::Sync, Op::Append(1, 1), Op::Append(1, 1), Op::TrimTo(171)];
    ops.push(Op::PowerLoss(547_752_190_942_317_309));
    ops.extend([Op::Append(1, 1), Op::Append(1, 1), Op::Append(1, 1), Op::Append(1, 1), Op::Append(1, 1)]);
    ops.extend([Op::TruncateTo(0), Op::Append(1, 1)]);
    play(&ops);
}

/// Found by the model: an index entry torn to position 0 was not doubted, and good records read as damaged.
#[test]
fn an_index_that_lies_about_the_first_position_is_doubted_too() {
    let mut ops =
        vec![Op::Append(2, 2009), Op::Append(2, 2009), Op::Append(1, 1), Op::Reopen { in_order: true }];
    ops.extend([Op::PowerLoss(1_187_485_766_754_261_014), Op::Append(2, 2009), Op::Append(1, 1)]);
    ops.extend([Op::Tick(9997), Op::PowerLoss(8_575_064_892_497_134_384), Op::TrimTo(103)]);
    play(&ops);
}

/// Found by the model: what recovery had cut was there again after the next loss of power, in the place of what had been
/// appended meanwhile.
#[test]
fn a_tail_that_recovery_cut_does_not_come_back() {
    let mut ops = vec![Op::Append(1, 1), Op::Append(1, 1), Op::TruncateTo(128), Op::Append(2, 1)];
    ops.extend([
        Op::TrimTo(171),
        Op::PowerLoss(106_456_933_394_927_368),
        Op::Append(1, 1),
        Op::TruncateTo(0),
    ]);
    ops.extend([Op::Append(1, 2494), Op::Append(2, 917), Op::PowerLoss(985_588_510_576_926_715)]);
    ops.extend([Op::TrimTo(0), Op::Append(1, 2491), Op::PowerLoss(10_549_392_428_734_620_047)]);
    play(&ops);
}
