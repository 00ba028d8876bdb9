//! The log of one partition.

mod error;
mod settings;
mod view;

pub use error::{AppendError, ReadError};
pub use settings::{FlushPolicy, LogSettings, OnPressure};
pub use view::{Appended, LogView, Offsets};
