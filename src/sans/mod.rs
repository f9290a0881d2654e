//! L0: the words of the loop contract (see the crate's documentation): time, randomness, datagrams and
//! effects as plain values.

mod action;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use rand::rngs::ChaCha12Rng;
use rand::{Rng as _, SeedableRng as _};

use crate::id::SocketId;

pub use action::{Action, Carrier, Done, MappingProtocol, PortMapping, Transport};

/// A moment of the shell's clock: nanoseconds since an arbitrary origin. The clock counts suspend
/// (`CLOCK_BOOTTIME`), so key lifetimes hold for a laptop that slept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The moment `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`, zero if that lies in the future.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t+{:.3}s", Duration::from_nanos(self.0).as_secs_f64())
    }
}

/// Saturates: no input can overflow a deadline.
impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

/// Saturates at the origin.
impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}

/// When a machine next wants `handle_timeout`, and why (for logs and for finding busy timers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wakeup {
    /// The moment.
    pub at: Instant,
    /// A word for a log line.
    pub why: &'static str,
}

impl Wakeup {
    /// A wake-up at `at`, because of `why`.
    pub const fn new(at: Instant, why: &'static str) -> Self {
        Self { at, why }
    }

    /// The earlier of two optional wake-ups.
    pub fn earliest(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// 256 bits from which a machine draws all its randomness. The shell takes them from the operating
/// system; a simulation counts them up.
#[derive(Clone)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed from fresh entropy, or from a test's number.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A seed for tests and simulations.
    pub fn from_u64(n: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        Self(bytes)
    }

    /// The generator that this seed determines.
    pub fn rng(&self) -> Rng {
        Rng(ChaCha12Rng::from_seed(self.0))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(…)")
    }
}

/// A cryptographically strong generator (ChaCha12), determined by its [`Seed`].
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    /// `N` random bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 32 random bits.
    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A duration drawn evenly from `[low, high)`; `low` if the range is empty.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_nanos()).unwrap_or(u64::MAX);
        low + Duration::from_nanos(if span == 0 { 0 } else { self.u64() % span })
    }

    /// An independent seed for a child machine.
    pub fn seed(&mut self) -> Seed {
        Seed(self.array())
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng(…)")
    }
}

/// A generic cell rate limiter: `rate` events a second, `burst` at once. One deadline of state.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    /// Time that one event costs.
    period: Duration,
    /// How far ahead of its schedule the limiter may run.
    tolerance: Duration,
    /// When the schedule is even again.
    due: Instant,
}

impl RateLimit {
    /// `rate` events a second (at least one) on average, `burst` at once.
    pub fn new(rate: u32, burst: u32) -> Self {
        let period = Duration::from_secs(1) / rate.max(1);
        Self { period, tolerance: period * burst.saturating_sub(1), due: Instant::ZERO }
    }

    /// One event in every `period`.
    pub const fn every(period: Duration) -> Self {
        Self { period, tolerance: Duration::ZERO, due: Instant::ZERO }
    }

    /// One event in every `period` on average, `burst` at once.
    pub fn slow(period: Duration, burst: u32) -> Self {
        Self { period, tolerance: period * burst.saturating_sub(1), due: Instant::ZERO }
    }

    /// Whether it may let its whole burst through again.
    pub fn is_rested(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// How many events it would take now, one by one.
    pub fn left(&self, now: Instant) -> u32 {
        let ahead = (now + self.tolerance + self.period) - self.due.max(now);
        u32::try_from(ahead.as_nanos() / self.period.as_nanos().max(1)).unwrap_or(u32::MAX)
    }

    /// Takes one event if it is within the rate.
    pub fn allow(&mut self, now: Instant) -> bool {
        self.allow_n(now, 1)
    }

    /// Whether [`RateLimit::allow`] would take one event.
    pub fn would_allow(&self, now: Instant) -> bool {
        self.due.max(now) <= now + self.tolerance
    }

    /// Takes `n` events (bytes, say) at once if all are within the rate.
    pub fn allow_n(&mut self, now: Instant, n: u32) -> bool {
        let due = self.due.max(now);
        let next = due + self.period * n;
        if next > now + self.tolerance + self.period {
            return false;
        }
        self.due = next;
        true
    }
}

/// A datagram as it came in.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// The socket it arrived on.
    pub socket: SocketId,
    /// The local address it was sent to, where the system tells.
    pub local: Option<IpAddr>,
    /// Who sent it; never v4-mapped.
    pub from: SocketAddr,
    /// Its bytes; opened in place.
    pub payload: &'a mut [u8],
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The socket to send from.
    pub socket: SocketId,
    /// The local address to send from (servers answer from the address they were asked on).
    pub src: Option<IpAddr>,
    /// The destination.
    pub to: SocketAddr,
    /// Hop limit of this datagram alone; `None`: the system's.
    pub ttl: Option<u8>,
    /// TOS or traffic class of this datagram: that of the packet in it, if it is one's.
    pub tos: u8,
    /// Its bytes.
    pub payload: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_lets_its_burst_through_and_then_its_rate() {
        let mut limit = RateLimit::new(10, 3);
        let t0 = Instant::from_nanos(5_000_000_000);
        assert_eq!((0..10).filter(|_| limit.allow(t0)).count(), 3);
        assert!(!limit.would_allow(t0 + Duration::from_millis(99)) && !limit.allow(t0 + Duration::from_millis(99)));
        assert!(limit.would_allow(t0 + Duration::from_millis(101)));
        assert!(limit.allow(t0 + Duration::from_millis(101)));
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        assert_eq!(Seed::from_u64(7).rng().u64(), Seed::from_u64(7).rng().u64());
        assert_ne!(Seed::from_u64(7).rng().u64(), Seed::from_u64(8).rng().u64());
    }

    #[test]
    fn time_saturates_instead_of_overflowing() {
        assert_eq!(Instant::ZERO - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::ZERO.since(Instant::from_nanos(1)), Duration::ZERO);
        let end = Instant::from_nanos(u64::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
    }
}
