//! The commands, as a terminal and a shell run them. One program, so that it is linked once.

mod command_line;
mod disks;
mod documents;
mod dry_runs;
mod interrupted;
mod local_cluster;
mod log_files;
mod operators;
mod process;
mod records;
mod relief;
mod surroundings;
mod taken_at_its_word;
mod terminal;
mod undo;
mod unreachable;
