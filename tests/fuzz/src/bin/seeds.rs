//! Writes the inputs that fuzzing `PLIMSOLL_FUZZ` begins with into the folder that it is given: files as a volume or a
//! controller leaves them.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_default());
    let asked = std::env::var("PLIMSOLL_FUZZ").unwrap_or_default();
    let corpus = match plimsoll_controller::fuzz::corpus(&asked) {
        none if none.is_empty() => plimsoll_storage::fuzz::corpus(),
        found => found,
    };
    for (number, input) in corpus.into_iter().enumerate() {
        #[expect(clippy::disallowed_methods, reason = "files for the fuzzer, not for a volume")]
        std::fs::write(folder.join(format!("seed-{number:03}")), input)?;
    }
    Ok(())
}
