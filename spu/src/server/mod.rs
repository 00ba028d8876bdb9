//! The whole storage node: its settings, its start and its stop.
//!
//! What it does not do: it parses no command line and no file; the binary hands over [`SpuSettings`].
//!
//! Start at [`Spu::start`].

mod error;
mod identity;
mod settings;
mod spu;
mod unopened;

pub use error::StartError;
pub use settings::SpuSettings;
pub use spu::Spu;
