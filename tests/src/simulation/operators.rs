//! Operators at work during the faults: what they ask for may be refused, or take effect late; in the end everything is
//! as it was.

use std::time::Duration;

use plimsoll_client::AdminError;
use plimsoll_proto::ids::SpuId;
use plimsoll_proto::image::MetadataImage;
use plimsoll_proto::v1::SpuDuty;

use super::faults::{EVERYWHERE, Fault, Node};
use super::observer::{Observer, PARTITIONS, Problem, TOPIC};

/// How long an operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause before something is asked again.
const AGAIN: Duration = Duration::from_millis(250);
/// After the faults everything is as it was within this: a node that was away several times is held before it is given
/// replicas again.
const RESTORE_MAX: Duration = Duration::from_secs(100);

/// Does what faults ask for, each once, as far as it goes. Never ends.
pub(super) async fn operate(observer: &Observer) {
    if !observer.told.borrow().operated {
        return std::future::pending().await;
    }
    loop {
        let next = {
            let mut told = observer.told.borrow_mut();
            let next = told.asked.pop_front();
            told.operating = next.is_some();
            next
        };
        match next {
            Some(deed) => {
                let outcome = deed_done(observer, deed).await;
                observer.line(format!("operator {deed:?}: {outcome:?}"));
            }
            None => observer.host.clock.sleep(Duration::from_millis(20)).await,
        }
    }
}

/// After the faults: every node serves, and every partition is everywhere again.
pub(super) async fn restore(observer: &Observer) -> Result<(), Problem> {
    if !observer.told.borrow().operated {
        return Ok(());
    }
    observer.told.borrow_mut().asked.clear();
    let until = observer.host.clock.now() + RESTORE_MAX;
    while observer.told.borrow().operating {
        observer.host.clock.sleep(AGAIN).await;
    }
    let serve = Node::SPUS.map(Fault::Serve);
    let everywhere = (0..PARTITIONS).map(|partition| Fault::Reassign { partition, to: EVERYWHERE });
    let deeds: Vec<Fault> = serve.into_iter().chain(everywhere).collect();
    loop {
        let mut open = None;
        for deed in &deeds {
            if let Err(error) = deed_done(observer, *deed).await {
                open = Some(format!("{deed:?} is not possible after the faults: {error}"));
            }
        }
        match open {
            None if observer.client.wait_metadata(AGAIN, is_restored).await => break,
            None => {}
            Some(why) if observer.host.clock.now() > until => return Err(why.into()),
            Some(_) => observer.host.clock.sleep(AGAIN).await,
        }
        if observer.host.clock.now() > until {
            return Err("a move does not end after the faults".into());
        }
    }
    observer.line("every partition is where it was");
    Ok(())
}

fn is_restored(image: &MetadataImage) -> bool {
    image.topic_by_name(TOPIC).is_some_and(|topic| {
        topic.partitions.iter().all(|partition| {
            let places: Vec<u32> = partition.replicas.iter().map(|replica| replica.spu_id).collect();
            partition.reassignment.is_none() && places == EVERYWHERE
        })
    })
}

async fn deed_done(observer: &Observer, deed: Fault) -> Result<(), AdminError> {
    let admin = observer.client.admin().timeout(PATIENCE);
    match deed {
        Fault::Reassign { partition, to } => {
            let to = to.iter().copied().map(SpuId).collect();
            admin.reassign(TOPIC, partition, to, false).await.map(drop)
        }
        Fault::Drain(Node::Spu(n)) => {
            admin.set_spu_duty(SpuId(n.into()), SpuDuty::Draining, false).await.map(drop)
        }
        Fault::Serve(Node::Spu(n)) => {
            admin.set_spu_duty(SpuId(n.into()), SpuDuty::Serving, false).await.map(drop)
        }
        Fault::Relieve => admin.relieve(false).await.map(drop),
        Fault::CallOffRelief => admin.cancel_relief().await.map(drop),
        _ => Ok(()),
    }
}
