// Included by examples in the documentation that run against a cluster of their own.

/// What an example runs against. There is a topic `flights` of one partition.
#[allow(dead_code, reason = "each example takes what it shows")]
struct ExampleCluster {
    client: plimsoll_client::Client,
    controllers: Vec<String>,
}

/// Runs an example to its end. Without the feature `testkit` there are no clusters, and it is compiled only.
#[cfg(not(feature = "testkit"))]
fn with_cluster<E: Future<Output = Result<(), Box<dyn std::error::Error>>>>(
    _spus: u32,
    _example: impl FnOnce(ExampleCluster) -> E,
) -> Result<(), Box<dyn std::error::Error>> {
    Ok(())
}

/// Runs an example to its end, against a cluster of so many storage nodes.
#[cfg(feature = "testkit")]
fn with_cluster<E: Future<Output = Result<(), Box<dyn std::error::Error>>>>(
    spus: u32,
    example: impl FnOnce(ExampleCluster) -> E,
) -> Result<(), Box<dyn std::error::Error>> {
    // Programs of examples lie in temporary folders: there is no binary beside them.
    let workspace =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(1).ok_or("a workspace")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let built = workspace.join(target).join("debug/plimsoll");
    let settings = plimsoll_client::testkit::TestCluster::builder().spus(spus);
    let named = std::env::var_os("PLIMSOLL_BINARY").is_some();
    let settings = if !named && built.is_file() { settings.binary(built) } else { settings };

    tokio::runtime::Runtime::new()?.block_on(async {
        let cluster = settings.start().await?;
        let client = cluster.client().clone();
        let config = plimsoll_client::TopicConfig { partitions: 1, ..Default::default() };
        client.admin().create_topic("flights", config).await?;
        let controllers = cluster.controller_addresses();
        example(ExampleCluster { client, controllers }).await
    })
}
