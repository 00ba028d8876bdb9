//! Generates the messages and services of `proto/plimsoll/v1`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["admin", "common", "control", "metadata", "peer", "raft", "spu", "entry", "volume", "group"]
        .map(|name| format!("proto/plimsoll/v1/{name}.proto"));
    let descriptor = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("plimsoll_descriptor.bin");
    tonic_prost_build::configure()
        .bytes(".")
        .file_descriptor_set_path(descriptor)
        .compile_protos(&files, &["proto".to_owned()])?;
    Ok(())
}
