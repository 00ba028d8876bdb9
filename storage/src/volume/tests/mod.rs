//! Tests of a whole volume on the memory disk.

mod basics;
mod crash;
mod door;
mod full_disk;
mod gone;
mod level;
mod model;
mod rebuild;
mod recovery;
mod upkeep;
mod world;
