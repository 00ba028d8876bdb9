//! How batches fail, and what they are told.

use super::*;

#[test]
fn a_batch_that_was_never_written_gives_its_sequence_to_the_next() {
    let mut d = Driver::new(true, 3, false);
    d.enqueue(3);
    let (_, requests) = d.look();
    d.ack(requests[0], false);
    d.refuse(requests[1], ErrorDetail::not_written(Reason::CorruptBatch, "bad"));
    assert!(matches!(&d.failed[..], [(1, ProduceErrorKind::Refused(_))]));
    d.refuse(requests[2], disorder());
    assert_eq!(d.look().0, [(2, Some(10))]);
    assert_eq!(d.identities, 0);
}

#[test]
fn a_batch_of_unknown_fate_is_given_up_with_its_producer_id() {
    let mut d = Driver::new(true, 1, false);
    d.enqueue(1);
    d.look();
    // No answer: the connection counts as dead, again and again, until the deadline.
    d.advance(Duration::from_secs(15));
    d.advance(Duration::from_secs(1));
    assert_eq!(d.look().0, [(0, Some(0))]);
    d.now = Duration::from_secs(30);
    d.enqueue(1);
    d.advance(Duration::from_secs(30));
    let [(0, ProduceErrorKind::DeadlineExceeded { outcome: Outcome::Unknown, .. })] = &d.failed[..] else {
        panic!("{:?}", d.failed);
    };
    assert_eq!(d.identities, 1);
    d.look();
    d.with(|window, now, out| window.identity(ProducerId(2), ProducerEpoch(0), now, out));
    assert_eq!(d.look().0, [(1, Some(0))]);
}

#[test]
fn a_deadline_tells_what_stood_in_the_way() {
    let mut d = Driver::new(true, 1, false);
    d.enqueue(1);
    while d.failed.is_empty() {
        let (_, requests) = d.look();
        requests.into_iter().for_each(|request| d.refuse(request, full()));
        d.advance_to_wake();
    }
    let (_, ProduceErrorKind::DeadlineExceeded { outcome, last, .. }) = &d.failed[0] else {
        panic!("{:?}", d.failed);
    };
    assert_eq!(*outcome, Outcome::NotWritten);
    assert_eq!(last.as_ref().and_then(LastCause::refusal).map(Refusal::reason_name), Some("DISK_FULL"));
    assert!(!d.window.takes());
    // Nothing that could try the next leader is left; what others send goes there all the same.
    d.route(Route::Leader(target(2, 2)));
    assert!(d.window.takes());
    d.enqueue(1);
    d.advance(DISK_NEWS_JITTER);
    assert_eq!(d.look().0.len(), 1);
}

#[test]
fn a_deadline_tells_of_lost_connections_and_leaders_too() {
    let last_of = |d: &Driver| match &d.failed[..] {
        [(_, ProduceErrorKind::DeadlineExceeded { last, .. })] => last.clone(),
        other => panic!("{other:?}"),
    };
    // Nobody answers.
    let mut d = Driver::new(true, 1, false);
    d.window.settings.answer_max = DEADLINE * 2;
    d.enqueue(1);
    d.advance(DEADLINE);
    assert_eq!(last_of(&d), Some(LastCause::Unanswered { spu: SpuId(1) }));

    // The connection broke after a refusal, and came up no more.
    let mut d = Driver::new(true, 1, false);
    d.enqueue(1);
    let (_, requests) = d.look();
    d.refuse(requests[0], full());
    d.advance_to_wake();
    let (.., connection, _, _) = d.sent[0];
    d.with(|window, now, out| window.connection_lost(&lost(connection, "reset"), now, out));
    d.window.settings.answer_max = DEADLINE * 2;
    d.advance(DEADLINE);
    assert_eq!(last_of(&d), Some(LastCause::ConnectionLost { spu: SpuId(1), why: "reset".to_owned() }));

    // There was no leader any more.
    let mut d = Driver::new(true, 1, false);
    d.enqueue(1);
    let (_, requests) = d.look();
    d.refuse(requests[0], full());
    d.route(Route::NoLeader);
    d.advance(DEADLINE);
    assert_eq!(last_of(&d), Some(LastCause::NoLeader));
}

#[test]
fn fail_when_full_fails_at_once() {
    let mut d = Driver::new(true, 2, true);
    d.enqueue(2);
    let (_, requests) = d.look();
    d.refuse(requests[0], full());
    d.refuse(requests[1], disorder());
    assert!(matches!(&d.failed[..], [(0, ProduceErrorKind::Refused(_))]));
    // The next one takes the sequence that became free.
    assert_eq!(d.look().0, [(1, Some(0))]);
}

#[test]
fn a_deleted_topic_fails_what_waits_and_what_comes() {
    let mut d = Driver::new(true, 1, false);
    d.enqueue(2);
    d.route(Route::Gone);
    assert!(matches!(d.failed[1].1, ProduceErrorKind::UnknownTopic(_)));
    assert!(matches!(d.failed[0].1, ProduceErrorKind::DeadlineExceeded { outcome: Outcome::Unknown, .. }));
    assert!(d.window.wants_batch());
    d.enqueue(1);
    assert_eq!(d.failed.len(), 3);
}

#[test]
fn a_fenced_producer_stops() {
    let mut d = Driver::new(true, 1, false);
    d.enqueue(1);
    let (_, requests) = d.look();
    d.refuse(requests[0], ErrorDetail::not_written(Reason::ProducerFenced, "newer"));
    assert!(matches!(&d.failed[..], [(0, ProduceErrorKind::Refused(_))]));
    d.enqueue(1);
    assert_eq!(d.failed.len(), 2);
    assert!(d.look().0.is_empty());
}

fn forgotten() -> ErrorDetail {
    ErrorDetail::not_written(Reason::UnknownProducer, "the leader has forgotten this producer")
}

#[test]
fn a_forgotten_producer_goes_on_under_another_id_once_nothing_is_under_way() {
    let mut d = Driver::new(true, 3, false);
    d.enqueue(3);
    let (sent, requests) = d.look();
    assert_eq!(sent, [(0, Some(0)), (1, Some(10)), (2, Some(20))]);
    d.ack(requests[0], false);
    d.refuse(requests[1], forgotten());
    d.advance(Duration::from_secs(5));
    assert_eq!((d.identities, d.look().0.len()), (0, 0), "the last one may still be written");
    d.refuse(requests[2], forgotten());
    d.advance_to_wake();
    assert_eq!((d.identities, d.look().0.len()), (1, 0));
    d.with(|window, now, out| window.identity(ProducerId(2), ProducerEpoch(0), now, out));
    let (sent, requests) = d.look();
    assert_eq!(sent, [(1, Some(0)), (2, Some(10))], "in order, under new sequences");
    requests.into_iter().for_each(|request| d.ack(request, false));
    assert_eq!((d.acked.as_slice(), d.failed.len()), (&[0, 1, 2][..], 0));
}

#[test]
fn what_may_have_been_written_is_never_sent_under_another_id() {
    let mut d = Driver::new(true, 2, false);
    d.enqueue(2);
    let connection = d.sent[0].2;
    d.look();
    // Nobody knows what became of both; sent again, the leader has forgotten the producer.
    d.with(|window, now, out| window.connection_lost(&lost(connection, "reset"), now, out));
    d.advance_to_wake();
    let (_, requests) = d.look();
    requests.into_iter().for_each(|request| d.refuse(request, forgotten()));
    d.enqueue(1);
    d.advance_to_wake();
    let failed: Vec<_> = d
        .failed
        .iter()
        .map(|(batch, kind)| (*batch, crate::error::ProduceError::new(kind.clone()).outcome()))
        .collect();
    assert_eq!(failed, [(0, Outcome::Unknown), (1, Outcome::Unknown)]);
    d.with(|window, now, out| window.identity(ProducerId(2), ProducerEpoch(0), now, out));
    assert_eq!(d.look().0, [(2, Some(0))]);
}

/// What stood in the way of the former leader may stand in that of the next.
#[test]
fn after_a_failure_one_batch_tries_before_the_others() {
    let no_answer = |d: &mut Driver| {
        let connection = d.sent[0].2;
        d.look();
        d.with(|window, now, out| window.connection_lost(&lost(connection, "reset"), now, out));
    };
    let timed_out = |d: &mut Driver| {
        let (_, requests) = d.look();
        for request in requests {
            d.refuse(request, ErrorDetail::unknown(Reason::TimedOut, "too few followers"));
        }
    };
    let moved = |d: &mut Driver| {
        d.look();
        d.route(Route::Leader(target(2, 2)));
    };
    for failure in [&no_answer as &dyn Fn(&mut Driver), &timed_out, &moved] {
        let mut d = Driver::new(true, 5, false);
        d.enqueue(4);
        failure(&mut d);
        d.advance(BACKOFF_MAX);
        assert_eq!(d.asked, 0, "whose turn it is says nothing here");
        let (sent, requests) = d.look();
        assert_eq!(sent, [(0, Some(0))]);
        d.ack(requests[0], false);
        assert_eq!(d.look().0, [(1, Some(10)), (2, Some(20)), (3, Some(30))]);
    }
}
