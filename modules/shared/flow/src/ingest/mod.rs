//! The way in for publishers: which stream a published path leads to, and who may write to it. The same for every
//! protocol that has publishers.

mod entrance;
mod pace;
mod pulled;
mod seats;

pub(crate) use pace::Pace;

pub use entrance::{Entrance, Instances, NoInstance, Target};
pub use pulled::Pulled;
pub use seats::{Identity, Seat, Taken};
