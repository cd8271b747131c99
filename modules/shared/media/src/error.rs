//! What is wrong with a codec's bytes.

/// A configuration record, parameter set or frame that does not follow its specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// A length field, or a fixed field, reaches past the end.
    #[error("{what}: {need} more bytes announced, {have} left")]
    Truncated {
        /// The record or parameter set.
        what: &'static str,
        /// Bytes the next field takes.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// The record's version is not one that is known.
    #[error("{what}: version {found} is unknown")]
    Version {
        /// The record.
        what: &'static str,
        /// Its version field.
        found: u8,
    },
    /// A field has a value that its specification forbids.
    #[error("{what}: {field} is {value}, which its specification forbids")]
    Value {
        /// The record or parameter set.
        what: &'static str,
        /// The field, by the specification's name.
        field: &'static str,
        /// What it says.
        value: u64,
    },
    /// Something does not fit the field that must hold its length or number.
    #[error("{what}: {value} does not fit, at most {most} does")]
    TooLarge {
        /// The thing to be written.
        what: &'static str,
        /// Its length or number.
        value: usize,
        /// The field's limit.
        most: usize,
    },
}
