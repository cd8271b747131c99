//! Files as inputs.

mod read;
mod reading;

pub use read::read;
