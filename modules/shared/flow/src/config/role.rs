//! What an endpoint is to its flow.

/// The seven kinds of endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Input: others push to this address.
    Listen,
    /// Input: the module connects and takes.
    Pull,
    /// Input: a file.
    Read,
    /// Output: others pull from this address.
    Serve,
    /// Output: the module connects and sends.
    Push,
    /// Output: files.
    Store,
    /// Output: screen and speaker.
    Render,
}

impl Role {
    /// Those of an input.
    pub const INPUTS: [Self; 3] = [Self::Listen, Self::Pull, Self::Read];
    /// Those of an output.
    pub const OUTPUTS: [Self; 4] = [Self::Serve, Self::Push, Self::Store, Self::Render];

    /// The property that names it.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Pull => "pull",
            Self::Read => "read",
            Self::Serve => "serve",
            Self::Push => "push",
            Self::Store => "store",
            Self::Render => "render",
        }
    }

    /// The word for one that works, as reported.
    pub const fn at_work(self) -> &'static str {
        match self {
            Self::Listen | Self::Pull | Self::Read => "receiving",
            Self::Serve => "serving",
            Self::Push => "pushing",
            Self::Store => "storing",
            Self::Render => "rendering",
        }
    }

    /// Whether clients come to it, so that their number is reported.
    pub const fn has_clients(self) -> bool {
        matches!(self, Self::Serve)
    }

    /// Whether it is one of an input.
    pub const fn is_input(self) -> bool {
        matches!(self, Self::Listen | Self::Pull | Self::Read)
    }
}
