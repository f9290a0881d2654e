//! The keys of one handshake, and the three places where they stand.
//!
//! ```text
//!             response sent                first packet opened             next keys
//! responder   ────────────────▶  next  ─────────────────────▶  current  ──────────────▶  previous
//! initiator   response received ──────────────────────────▶    current  ──────────────▶  previous
//! ```
//!
//! Packets are opened under all three, sealed under `current` alone. So the responder seals nothing under
//! keys that its peer may not have, and packets on their way during a change are not lost.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::crypto::noise::Split;
use crate::crypto::seal::{LIFETIME, OpenError, OpeningKey, SealError, SealingKey};
use crate::crypto::{ReplayWindow, Suite};
use crate::sans::Instant;
use crate::wire::session::{Channel, Header};

/// The initiator of keys replaces them at this age.
pub const REKEY_INITIATOR: Duration = Duration::from_secs(120);
/// The responder, if the initiator did not.
pub const REKEY_RESPONDER: Duration = Duration::from_secs(150);
/// Keys are replaced after this many packets, too.
pub const REKEY_PACKETS: u64 = 1 << 30;
/// How far behind the newest data packet one may arrive.
pub const DATA_WINDOW: usize = 32_768;
/// How far behind the newest control message one may arrive.
const CONTROL_WINDOW: usize = 1_024;

/// Opens the datagrams of one channel, each counter once. Shared by those who may open: whoever does so holds the
/// window meanwhile, so that no counter is taken by two.
pub struct Opener<const WINDOW: usize> {
    key: OpeningKey,
    window: Mutex<ReplayWindow<WINDOW>>,
    has_opened: AtomicBool,
}

/// Opens the datagrams of the data channel.
pub type DataOpener = Opener<DATA_WINDOW>;

/// Somebody opens, and nobody else meanwhile.
pub struct Opening<'a, const WINDOW: usize> {
    opener: &'a Opener<WINDOW>,
    window: MutexGuard<'a, ReplayWindow<WINDOW>>,
}

impl<const WINDOW: usize> Opener<WINDOW> {
    fn new(key: OpeningKey) -> Self {
        Self { key, window: Mutex::new(ReplayWindow::new()), has_opened: AtomicBool::new(false) }
    }

    /// Whether anything was opened under this key.
    pub fn has_opened(&self) -> bool {
        self.has_opened.load(Ordering::Relaxed)
    }

    /// For a run of datagrams: waits until nobody else opens.
    pub fn begin(&self) -> Opening<'_, WINDOW> {
        // A window is whole between any two of its operations.
        Opening { opener: self, window: self.window.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl<const WINDOW: usize> Opening<'_, WINDOW> {
    /// Opens in place; where inner kind and body are. What fails leaves no trace but a changed buffer.
    ///
    /// # Errors
    /// Seen before, forged, or the key is too old.
    pub fn open(&mut self, now: Instant, header: &Header, datagram: &mut [u8]) -> Result<Range<usize>, OpenError> {
        if !self.window.check(header.counter.into()) {
            return Err(OpenError::Replayed);
        }
        let body = self.opener.key.open(now, header, datagram)?;
        if !self.window.accept(header.counter.into()) {
            return Err(OpenError::Replayed);
        }
        self.opener.has_opened.store(true, Ordering::Relaxed);
        Ok(body)
    }
}

impl<const WINDOW: usize> fmt::Debug for Opening<'_, WINDOW> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opening(…)")
    }
}

impl<const WINDOW: usize> fmt::Debug for Opener<WINDOW> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener(…)")
    }
}

/// One channel in both directions.
struct Stream<const WINDOW: usize> {
    tx: Arc<SealingKey>,
    rx: Arc<Opener<WINDOW>>,
}

impl<const WINDOW: usize> Stream<WINDOW> {
    fn new((tx, rx): (SealingKey, OpeningKey)) -> Self {
        Self { tx: Arc::new(tx), rx: Arc::new(Opener::new(rx)) }
    }

    fn open(&self, now: Instant, header: &Header, datagram: &mut [u8]) -> Result<Range<usize>, OpenError> {
        self.rx.begin().open(now, header, datagram)
    }
}

/// What a handshake agreed on, as one side sees it.
pub(super) struct Agreement {
    /// The index that the peer addresses these keys by.
    pub(super) local: u32,
    /// The index that we address the peer's by.
    pub(super) remote: u32,
    /// Whether this side began.
    pub(super) initiator: bool,
    /// The suite.
    pub(super) suite: Suite,
    /// What the peer can do.
    pub(super) features: u32,
    /// Since when the keys count as existing.
    pub(super) born: Instant,
}

/// The keys of one handshake.
pub(super) struct Keys {
    pub(super) agreed: Agreement,
    data: Stream<DATA_WINDOW>,
    control: Stream<CONTROL_WINDOW>,
    /// The response that these keys came with, for duplicates of its initiation. Only while `next`.
    pub(super) response: Option<Vec<u8>>,
}

impl Keys {
    pub(super) fn new(agreed: Agreement, split: &Split) -> Self {
        let Agreement { suite, initiator, remote, born, .. } = agreed;
        let data = Stream::new(split.keys(suite, Channel::Data, initiator, remote, born));
        let control = Stream::new(split.keys(suite, Channel::Control, initiator, remote, born));
        Self { agreed, data, control, response: None }
    }

    pub(super) fn seal(&self, now: Instant, channel: Channel, datagram: &mut [u8]) -> Result<(), SealError> {
        self.sealing(channel).seal(now, datagram)
    }

    pub(super) fn sealing(&self, channel: Channel) -> &Arc<SealingKey> {
        match channel {
            Channel::Data => &self.data.tx,
            Channel::Control => &self.control.tx,
        }
    }

    pub(super) const fn data_opener(&self) -> &Arc<DataOpener> {
        &self.data.rx
    }

    fn open(&self, now: Instant, header: &Header, datagram: &mut [u8]) -> Result<Range<usize>, OpenError> {
        match header.channel {
            Channel::Data => self.data.open(now, header, datagram),
            Channel::Control => self.control.open(now, header, datagram),
        }
    }

    /// When to replace them: a past moment if they have sealed enough.
    pub(super) fn rekey_at(&self) -> Instant {
        if self.data.tx.used().max(self.control.tx.used()) >= REKEY_PACKETS {
            return self.agreed.born;
        }
        self.agreed.born + if self.agreed.initiator { REKEY_INITIATOR } else { REKEY_RESPONDER }
    }

    pub(super) fn expires_at(&self) -> Instant {
        self.agreed.born + LIFETIME
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:06x}, {}, …)", self.agreed.local, self.agreed.suite)
    }
}

/// Where keys stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Previous,
    Current,
    Next,
}

/// The three places.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) previous: Option<Keys>,
    pub(super) current: Option<Keys>,
    pub(super) next: Option<Keys>,
}

impl Slots {
    /// Opens a datagram under the keys that it addresses.
    pub(super) fn open(
        &mut self,
        now: Instant,
        header: &Header,
        datagram: &mut [u8],
    ) -> Result<(Place, Range<usize>), OpenError> {
        let places =
            [(Place::Current, &mut self.current), (Place::Next, &mut self.next), (Place::Previous, &mut self.previous)];
        for (place, slot) in places {
            if let Some(keys) = slot.as_mut().filter(|keys| keys.agreed.local == header.index) {
                return Ok((place, keys.open(now, header, datagram)?));
            }
        }
        Err(OpenError::UnknownIndex)
    }

    /// Keys of our initiation become current; the index that is free now.
    #[must_use]
    pub(super) fn install(&mut self, keys: Keys) -> Option<u32> {
        let former = self.current.replace(keys);
        let gone = std::mem::replace(&mut self.previous, former);
        gone.map(|keys| keys.agreed.local)
    }

    /// `next` was proven: it becomes current; the index that is free now.
    #[must_use]
    pub(super) fn promote(&mut self) -> Option<u32> {
        let mut keys = self.next.take()?;
        keys.response = None;
        self.install(keys)
    }

    /// Removes keys past their lifetime; the indices that are free now.
    pub(super) fn expire(&mut self, now: Instant) -> impl Iterator<Item = u32> {
        [&mut self.previous, &mut self.current, &mut self.next]
            .map(|slot| slot.take_if(|keys| keys.expires_at() <= now).map(|keys| keys.agreed.local))
            .into_iter()
            .flatten()
    }

    /// Removes all keys; the indices that are free now.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = u32> {
        let Self { previous, current, next } = std::mem::take(self);
        [previous, current, next].into_iter().flatten().map(|keys| keys.agreed.local)
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        [&self.previous, &self.current, &self.next].into_iter().flatten().map(Keys::expires_at).min()
    }
}
