//! Which replicas are stopped is told as the node said it last, for as long as it says so.

use super::*;

fn named(partition: u32) -> v1::StoppedReplica {
    v1::StoppedReplica {
        topic_id: vec![5; 16].into(),
        partition,
        stopped_ms: 1500,
        leader: 2,
        leader_epoch: 7,
        cut_to: 40,
        high_watermark: 42,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_replicas_are_in_the_status_while_their_node_names_them() {
    let host = Host::real();
    let controllers = controllers(&host, 1).await;
    leader(&host, &controllers).await;
    let mut control = ControlClient::new(channel(&host, &controllers[0]));
    let mut admin = AdminClient::new(channel(&host, &controllers[0]));
    let registered = register(&host, &mut control, registration(1)).await;
    let (beats, queue) = mpsc::channel(1);
    let mut answers = control.heartbeat(ReceiverStream::new(queue)).await.unwrap().into_inner();
    let most = u32::try_from(v1::VolumeFacts::STOPPED_REPLICAS_MAX).unwrap();
    for (sequence, stopped) in (1..).zip([2, 0, most, most + 1]) {
        let facts = v1::VolumeFacts {
            stopped_replicas: (0..stopped).map(named).collect(),
            replicas_stopped: stopped,
            ..facts(1, v1::DiskLevel::Normal)
        };
        let beat = v1::HeartbeatRequest {
            cluster_id: registered.cluster_id.clone(),
            spu_id: 1,
            incarnation: registered.incarnation,
            sequence,
            volumes: vec![facts.clone()],
        };
        beats.send(beat).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        if stopped > most {
            assert_eq!(answer.error.map(|error| error.reason()), Some(Reason::InvalidArgument));
            break;
        }
        assert_eq!(answer.error, None);
        let status = admin.cluster_status(v1::ClusterStatusRequest::default()).await.unwrap().into_inner();
        let told = &status.spus[0].volumes[0];
        assert_eq!((&told.stopped_replicas, told.replicas_stopped), (&facts.stopped_replicas, stopped));
    }
    for controller in controllers {
        controller.stop(Duration::from_secs(1)).await;
    }
}
