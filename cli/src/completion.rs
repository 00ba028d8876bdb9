//! `plimsoll completion` and `plimsoll man`: made from the arguments, so that they cannot be out of date.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use crate::exit::{Code, Failure, Outcome};
use crate::files;
use crate::output::{say, write_out};

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Which shell; for bash: plimsoll completion bash > /etc/bash_completion.d/plimsoll
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Writes one page for each command into this folder, instead of the first to standard output
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn completion(args: &CompletionArgs, mut command: Command) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "plimsoll", &mut text);
    write_out(&text)
}

pub(crate) fn man(args: &ManArgs, mut command: Command) -> Outcome {
    command.build();
    let Some(dir) = &args.dir else { return write_out(&page(&command)?) };
    let written = pages(&command, dir)?;
    say(format!(
        "wrote {written} pages to {}; read one with `man {}/plimsoll.1`",
        dir.display(),
        dir.display()
    ));
    Ok(())
}

fn pages(command: &Command, dir: &Path) -> Result<usize, Failure> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = dir.join(format!("{name}.1"));
    let text = String::from_utf8_lossy(&page(command)?).into_owned();
    files::replace(&path, &text)
        .map_err(|error| Failure::new(Code::Failed, format!("{}: {error}", path.display())))?;
    let mut written = 1;
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        written += pages(inner, dir)?;
    }
    Ok(written)
}

fn page(command: &Command) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    Ok(text)
}
