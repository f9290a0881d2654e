//! What this machine carries for others: relay frames between two members, each of whom has a direct way here. Channels
//! are those of a rendezvous' relay ([`crate::relay`]), and a frame passes as it passes there: one look-up, two tags, no
//! allocation, and nothing in it is opened. Whoever has a frame at hand holds the lock meanwhile.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::SocketId;
use crate::relay::{Counters, Limits, Table, Verdict};
use crate::sans::Instant;

/// The direct way to an end.
pub type Way = (SocketId, SocketAddr);

/// See the module's documentation.
pub struct Carriage {
    /// Nobody has a channel: no frame need be looked at.
    is_idle: AtomicBool,
    inner: Mutex<Inner>,
}

struct Inner {
    table: Table,
    /// By the ends' slots.
    ways: Vec<Option<Way>>,
    /// Who sent more than is carried: slot, and number of the channel. Not many, for the table names each seldom.
    throttled: Vec<(u32, u32)>,
}

/// What becomes of a frame on one of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// Rewritten in place: send it there.
    To(Way),
    /// More than is carried. `is_news`: its sender is to be told, see [`Carriage::take_throttled`].
    Throttled { is_news: bool },
}

impl Carriage {
    /// Changes the channels.
    pub fn change<R>(&self, change: impl FnOnce(&mut Table) -> R) -> R {
        let mut inner = self.lock();
        let result = change(&mut inner.table);
        self.is_idle.store(inner.table.is_empty(), Ordering::Relaxed);
        result
    }

    /// An end is reached this way; `None`: not at all.
    pub fn set_way(&self, slot: u32, way: Option<Way>) {
        let (mut inner, index) = (self.lock(), slot as usize);
        if inner.ways.len() <= index {
            inner.ways.resize(index + 1, None);
        }
        inner.ways[index] = way;
    }

    /// Those who sent more than is carried and were not told yet: slot, and number of the channel.
    pub fn take_throttled(&self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.lock().throttled)
    }

    /// How much was carried, and what was not.
    pub fn counters(&self) -> Counters {
        self.lock().table.counters()
    }

    /// Rewrites a frame for the other end of its channel; `None`: it is on none, and as it was.
    pub(super) fn carry(&self, now: Instant, from: SocketAddr, frame: &mut [u8]) -> Option<Carried> {
        if self.is_idle.load(Ordering::Relaxed) {
            return None;
        }
        let inner = &mut *self.lock();
        match inner.table.forward(now, from.into(), frame) {
            Verdict::Forward { to } => Some(Carried::To((*inner.ways.get(to as usize)?)?)),
            Verdict::Unknown | Verdict::Dropped => None,
            Verdict::Throttled { tell } => {
                let told = tell.zip(crate::wire::relay::Header::parse(frame).ok());
                inner.throttled.extend(told.map(|(slot, (header, _))| (slot, header.channel)));
                Some(Carried::Throttled { is_news: tell.is_some() })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The table is whole between any two of its operations.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Carriage {
    fn default() -> Self {
        let inner = Inner { table: Table::new(Limits::default()), ways: Vec::new(), throttled: Vec::new() };
        Self { is_idle: AtomicBool::new(true), inner: Mutex::new(inner) }
    }
}

impl fmt::Debug for Carriage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carriage").field("ends", &self.lock().table.len()).finish_non_exhaustive()
    }
}
