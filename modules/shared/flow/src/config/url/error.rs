//! What can be wrong with a URL.

use super::MAX_URL_BYTES;

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// No `scheme://`.
    #[error("expected a URL that starts with a scheme and `://`")]
    NoScheme,
    /// Not one of ours.
    #[error("unknown scheme; there are {known}")]
    UnknownScheme {
        /// Those that there are, for people.
        known: String,
    },
    /// Longer than [`MAX_URL_BYTES`].
    #[error("a URL of {0} bytes; at most {MAX_URL_BYTES} are allowed")]
    TooLong(usize),
    /// A space or a control character.
    #[error("a URL can't hold spaces or control characters; a space in a path is written %20")]
    Blank,
    /// `#` in front of an `@`.
    #[error("an unescaped `#` in the user name or password; write %23")]
    HashInUserInfo,
    /// Two `@`, or one behind the authority of a URL whose port makes no sense.
    #[error("an unescaped `@`, `/` or `?` in the user name or password; write %40, %2F or %3F")]
    AtInUserInfo,
    /// An `@` right behind the port, where it may be the end of a password that looks like a port.
    #[error(
        "an unescaped `@` behind the port; write %40, or, if this is a password, %2F for its `/` and %3F for its `?`"
    )]
    AtBehindPort,
    /// `#`.
    #[error("a URL here has no fragment; `#` is written %23")]
    Fragment,
    /// User info where nobody logs in.
    #[error("user and password belong to pull and push only; use `auth` here")]
    UserInfoNotHere,
    /// `user@` or `:password@`.
    #[error("user info needs a user name and a password: user:password@")]
    HalfUserInfo,
    /// Percent-decoding of the user info gave no usable text.
    #[error("user info must be percent-encoded UTF-8 without line breaks")]
    BadUserInfo,
    /// `scheme:///`.
    #[error("a host is missing")]
    NoHost,
    /// Neither a name nor an address.
    #[error("`{0}` is neither a host name nor an IP address (IPv6 in brackets)")]
    BadHost(String),
    /// A name where an address is needed.
    #[error("listening needs an IP address such as 0.0.0.0 or [::], got `{0}`")]
    NotAnAddress(String),
    /// Port 0, above 65535, or no number.
    #[error("a port is a number from 1 to 65535")]
    BadPort,
    /// `//` in the path.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..`.
    #[error("the path has a `.` or `..` segment")]
    DotSegment,
    /// `%` without two hex digits, or bytes that are not text.
    #[error("the path is not percent-encoded UTF-8; a `%` itself is written %25")]
    BadPercent,
    /// Something that must not be hidden behind percent-encoding.
    #[error("the path holds an encoded control character, `/`, `?` or `*`")]
    BadEncoded,
    /// Streams are told apart by path.
    #[error("a path is missing, such as /live/stream")]
    NoPath,
    /// A query where only an address is meant.
    #[error("an address to listen on has no query; keys belong to `auth`")]
    QueryNotHere,
    /// A file URL with host or query, or without a path.
    #[error("a file is written file:///directory/name")]
    BadFile,
    /// `*` in the wrong place of a `listen`.
    #[error("`*` can only be the whole last segment of a `listen` path")]
    StarPlace,
    /// `*` or `{match}` in a flow whose input has no pattern.
    #[error("`*` and {{match}} need an input that listens on a pattern, such as /live/*")]
    NoPattern,
    /// An output of a pattern that would be the same for all instances.
    #[error("the input listens on a pattern, so `*` or {{match}} must occur in the path or query")]
    MatchMissing,
    /// `{` or `}` of no field.
    #[error(
        "unknown field; there are {{flow}} and, in outputs of a pattern, {{match}} (a brace itself is written %7B or %7D)"
    )]
    UnknownField,
}
