//! Nodes whose name has an IPv6 address that leads nowhere: connections come up all the same, and nobody takes a node for
//! dead.

use std::process::Command;
use std::time::Duration;

use plimsoll_client::testkit::TestCluster;
use plimsoll_client::{Client, Record, TopicConfig};
use plimsoll_host::Host;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{LIMIT, TOPIC, all_led};

const NAME: &str = "plimsoll-node.test";
/// Set in the process that has names of its own.
const INSIDE: &str = "PLIMSOLL_TEST_NAMES";

/// An IPv6 port whose accept queue is full: the kernel drops what comes further.
struct BlackHole {
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    async fn at(port: u16) -> std::io::Result<Self> {
        let address = std::net::SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port));
        let socket = TcpSocket::new_v6()?;
        socket.bind(address)?;
        let listener = socket.listen(1)?;
        let mut queued = Vec::new();
        loop {
            let one = TcpSocket::new_v6()?.connect(address);
            match Host::real().clock.timeout(Duration::from_millis(300), one).await {
                Ok(connected) => queued.push(connected?),
                Err(_) => return Ok(Self { _listener: listener, _queued: queued }),
            }
        }
    }
}

/// Runs this test again where `/etc/hosts` gives the name both kinds of address; whether that can be done here.
fn again_with_names() -> Option<std::process::Output> {
    let program = std::env::current_exe().expect("the path of this program");
    let script = format!(
        "f=$(mktemp) && printf '127.0.0.1 localhost {NAME}\\n::1 {NAME}\\n' > \"$f\" \
         && mount --bind \"$f\" /etc/hosts && rm \"$f\" && exec \"$0\" --exact --nocapture dual_stack::{TEST}"
    );
    let probe = Command::new("unshare").args(["-m", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).arg(program).env(INSIDE, "1");
    Some(command.output().expect("unshare runs"))
}

const TEST: &str = "an_aaaa_that_leads_nowhere_changes_no_state";

#[tokio::test]
async fn an_aaaa_that_leads_nowhere_changes_no_state() {
    if std::env::var_os(INSIDE).is_none() {
        let Some(output) = again_with_names() else {
            println!("SKIPPED {TEST}: no mount namespace (needs root)");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        println!("{said}");
        return;
    }
    let mut cluster = match TestCluster::builder().name(NAME).spus(2).start().await {
        Ok(cluster) => cluster,
        Err(error) => {
            println!("SKIPPED {TEST}: {error}");
            return;
        }
    };
    let mut addresses = cluster.controller_addresses();
    addresses.extend([1, 2].map(|id| cluster.spu(id).address().to_owned()));
    let mut holes = Vec::new();
    for address in &addresses {
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        match BlackHole::at(port).await {
            Ok(hole) => holes.push(hole),
            Err(error) => {
                println!("SKIPPED {TEST}: no IPv6 on the loopback interface: {error}");
                return;
            }
        }
    }
    let clock = Host::real().clock;
    let began = clock.now();
    let client =
        Client::builder().controllers(cluster.controller_addresses()).build().await.expect("connected");
    let took = clock.now() - began;
    println!("a client connected in {} ms", took.as_millis());
    assert!(took >= Duration::from_millis(200), "the hole is none: {took:?}");
    assert!(took < Duration::from_secs(3), "the other address was tried too late: {took:?}");
    let config = TopicConfig { partitions: 2, replicas: 2, min_in_sync: 2, ..Default::default() };
    client.admin().create_topic(TOPIC, config).await.expect("created");
    assert!(all_led(&client).await);
    let events = client.admin().list_events(0, 1000).await.expect("events");
    let before = events.last().map_or(0, |event| event.index);

    // Everybody dials anew.
    cluster.controller(1).kill();
    cluster.controller(1).start().expect("started");
    let producer = client.producer(TOPIC).deadline(LIMIT).build().await.expect("a producer");
    for partition in [0, 1] {
        let record = Record::new("on time").partition(partition);
        producer.send(record).await.expect("accepted").await.expect("acknowledged");
    }
    // Longer than it takes to suspect a node.
    clock.sleep(Duration::from_secs(8)).await;
    let events = client.admin().list_events(before, 1000).await.expect("events");
    let states: Vec<_> = events.iter().filter(|event| event.kind != "topic_created").collect();
    assert!(states.is_empty(), "{states:?}");
    drop(holes);
}
