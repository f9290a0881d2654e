//! L7: the control socket, by which the command line speaks with a running daemon.
//!
//! One line of JSON asks, one line answers; several questions may follow each other on one connection:
//!
//! ```text
//! -> {"request":"status"}
//! <- {"response":"status","status":{"schema":1,…}}
//! -> {"request":"ping","peer":"bob","id":7}
//! <- {"response":"pong","path":{…},"rtt_ms":1.2}
//! -> {"request":"down"}
//! <- {"response":"done"}
//! ```
//!
//! Anybody local may ask for the status and ping. What changes something is for root and for the user who
//! started the daemon; the system says who asks (`SO_PEERCRED`). The daemon's loop sees only questions that
//! are well-formed and permitted: everything else is answered here, so many, slow or garbage clients cost
//! it nothing.

mod client;
mod line;
mod server;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use serde::{Deserialize, Serialize};

use crate::node::status::{Path, Status};
use crate::node::why::Why;

pub use client::{Client, ClientError};
pub use server::{BindError, Incoming, Server};
#[cfg(unix)]
use unix as os;
#[cfg(windows)]
use windows as os;

/// Longest question, bytes.
const MAX_REQUEST: usize = 4096;
/// Longest answer, bytes: a status with thousands of peers.
const MAX_RESPONSE: usize = 16 << 20;

/// A question to a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// How is it?
    Status,
    /// Leave and end.
    Down,
    /// Ping a peer over the overlay.
    Ping {
        /// Its name or overlay address.
        peer: String,
        /// To tell pings apart; different in each.
        id: u64,
    },
    /// Why is a peer reached as it is?
    Why {
        /// Its name or overlay address.
        peer: String,
    },
    /// Read net.toml again.
    Reload,
    /// Free the address and name of a member who is gone.
    Forget {
        /// Its name.
        name: String,
    },
}

impl Request {
    /// Whether it changes something.
    pub const fn is_change(&self) -> bool {
        matches!(self, Self::Down | Self::Reload | Self::Forget { .. })
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Status`].
    Status {
        /// All of it.
        status: Box<Status>,
    },
    /// To [`Request::Why`].
    Why {
        /// All of it.
        why: Box<Why>,
    },
    /// It is done, or begun ([`Request::Down`]).
    Done,
    /// To [`Request::Reload`].
    Reloaded {
        /// What is otherwise from now on, or will be at the next start; a sentence each.
        changes: Vec<String>,
    },
    /// To [`Request::Ping`]: the peer answered. If it does not, nothing comes.
    Pong {
        /// The way the answer took.
        path: Path,
        /// Round trip, milliseconds.
        rtt_ms: f64,
    },
    /// No.
    Refused {
        /// Why, for programs.
        code: Refusal,
        /// Why, for people, with what to do.
        text: String,
    },
}

impl Response {
    /// No, because of `code`.
    pub fn refused(code: Refusal, text: impl Into<String>) -> Self {
        Self::Refused { code, text: text.into() }
    }
}

/// Why a question is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Only root and the user who started the daemon may do this.
    NotPermitted,
    /// Nobody has this name or address.
    NoSuchPeer,
    /// Not a question of this version.
    Malformed,
    /// net.toml cannot be used.
    Config,
    /// It could not be done.
    Failed,
}

#[cfg(all(test, unix))]
mod tests;
