//! Writes the inputs that fuzzing begins with into the folder that it is given: files as a volume leaves them.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_default());
    for (number, input) in plimsoll_storage::fuzz::corpus().into_iter().enumerate() {
        #[expect(clippy::disallowed_methods, reason = "files for the fuzzer, not for a volume")]
        std::fs::write(folder.join(format!("seed-{number:03}")), input)?;
    }
    Ok(())
}
