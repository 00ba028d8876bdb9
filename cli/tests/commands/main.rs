//! The commands, as a terminal and a shell run them. One program, so that it is linked once.

mod command_line;
mod local_cluster;
mod log_files;
mod operators;
mod process;
mod terminal;
mod unreachable;
