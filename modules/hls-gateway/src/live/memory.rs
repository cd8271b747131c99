//! What a playlist has promised, for the one that comes after it.

use super::numbers::Numbers;
use super::version::Looks;
use crate::options::Shaped;

/// Where numbers come from that outlive the process.
pub(crate) trait Memory {
    /// The number of a first segment: above all that were ever used.
    fn first_number(&mut self) -> u64;
    /// The discontinuity number of a first segment: above all that were ever used, and small. Players keep a list
    /// that is as long as this number (hls.js walks through it at each reload).
    fn first_discontinuity(&mut self) -> u64;
    /// Numbers of segments and of discontinuities below these are used.
    fn used(&mut self, number: u64, discontinuities: u64);
    /// What a playlist of this shape has promised before, and its name.
    fn promised(&self, shaped: Shaped) -> Option<(Numbers, String)>;
    /// Keeps that.
    fn promise(&mut self, shaped: Shaped, numbers: Numbers, name: &str);
    /// Whether that playlist has ended: nothing comes behind it.
    fn has_ended(&self, shaped: Shaped) -> bool;
    /// It ends.
    fn end(&mut self);
    /// What the stream of that playlist was made of, where that is known.
    fn looked(&self, shaped: Shaped) -> Option<Looks>;
    /// Keeps that, once there is a promise.
    fn looks(&mut self, looks: &Looks);
}
