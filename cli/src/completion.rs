//! `plimsoll completion` and `plimsoll man`: made from the arguments, so that they cannot be out of date.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use crate::change::quoted;
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
    /// Writes one page for each command into this folder, instead of the first to standard output; replaces pages that
    /// it wrote before, and nothing else
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// With --dir: lists the pages that would be written or replaced, and writes none
    #[arg(long, requires = "dir")]
    dry_run: bool,
}

pub(crate) fn completion(args: &CompletionArgs, mut command: Command) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "plimsoll", &mut text);
    write_out(&text)
}

pub(crate) fn man(args: &ManArgs, mut command: Command) -> Outcome {
    command.build();
    let Some(dir) = &args.dir else { return write_out(&page(&command)?) };
    let mut all = Vec::new();
    pages(&command, dir, &mut all)?;
    // All of them first: nothing is half done.
    let there = all.iter().map(|(path, _)| is_there(path)).collect::<Result<Vec<bool>, Failure>>()?;
    let undo = undo(all.iter().map(|(path, _)| path.as_path()).zip(there.iter().copied()));
    if args.dry_run {
        let line = |((path, _), there): (&(PathBuf, String), &bool)| {
            format!("would {} {}\n", if *there { "replace" } else { "write" }, path.display())
        };
        let lines: String = all.iter().zip(&there).map(line).collect();
        return write_out(format!("{lines}nothing was changed\nundo: {undo}\n").as_bytes());
    }
    for (path, text) in &all {
        files::replace(path, text).map_err(|error| failed(path, &error))?;
    }
    say(format!(
        "wrote {} pages to {}; read one with `man {}/plimsoll.1`\nundo: {undo}",
        all.len(),
        dir.display(),
        dir.display()
    ));
    Ok(())
}

/// What takes pages back, each with whether one was replaced.
fn undo<'a>(pages: impl Iterator<Item = (&'a Path, bool)>) -> String {
    let (mut undo, mut replaced) = ("rm".to_owned(), 0);
    for (path, there) in pages {
        undo.push(' ');
        undo.push_str(&quoted(&path.display().to_string()));
        replaced += u32::from(there);
    }
    match replaced {
        0 => undo,
        _ => format!(
            "there is none: {replaced} pages were there before; the plimsoll that wrote them writes them again"
        ),
    }
}

/// The comment that every page begins with.
const MARK: &str = ".\\\" Written by `plimsoll man`, and written over by it.\n";

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::Failed, format!("{}: {error}", path.display()))
}

/// Whether there is a page already. Refuses a file that is there and that is not a page of ours.
fn is_there(path: &Path) -> Result<bool, Failure> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(path, &error)),
        Ok(text) if text.starts_with(MARK.as_bytes()) => Ok(true),
        Ok(_) => {
            let why = format!(
                "{} is there already and was not written by `plimsoll man`; nothing was written\nremove it, or name another folder",
                path.display()
            );
            Err(Failure::new(Code::Usage, why))
        }
    }
}

/// The pages of a command and those below it, and where they go.
fn pages(command: &Command, dir: &Path, all: &mut Vec<(PathBuf, String)>) -> Outcome {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    all.push((dir.join(format!("{name}.1")), String::from_utf8_lossy(&page(command)?).into_owned()));
    command
        .get_subcommands()
        .filter(|inner| inner.get_name() != "help")
        .try_for_each(|inner| pages(inner, dir, all))
}

fn page(command: &Command) -> Result<Vec<u8>, Failure> {
    let mut text = MARK.as_bytes().to_vec();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    Ok(text)
}
