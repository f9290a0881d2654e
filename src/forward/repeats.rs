//! Packets for many that are sent twice, and such as go in circles. Only packets for many pass here.
//!
//! * **Twice**: a program that knows of several interfaces sends the same on each, on the overlay's and on a real LAN's,
//!   which is overheard: the first goes to the peers, another by another door a moment later does not. What a program
//!   sends twice by one door it means.
//! * **In circles**: something on this machine (a reflector of broadcasts, say) sends on a real LAN what came from a peer;
//!   that is overheard, and would go back to the peers, where the same may be. But two who look for the same game send the
//!   same too, word for word, and each must be heard. So what came from a peer within the last second may be sent by us
//!   once a second, twice at once: a circle comes to its end, and a question that others ask too is asked.
//!
//! Memory is of a fixed size: what falls on the place of something else takes it, and then a repetition may be missed. Where
//! they fall is no secret: who wants something taken for a repetition need only repeat it.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::udp::{Part, UDP_HEADER, Udp};
use crate::sans::Instant;

/// A program is done with all its interfaces within this.
const TWICE: Duration = Duration::from_millis(50);
/// What came from a peer is remembered for this long.
const CIRCLE: Duration = Duration::from_secs(1);
/// So many times at once it may be sent by us.
const AT_ONCE: u32 = 2;
/// Packets remembered of each kind: two senders' at their limit, for a second.
const CELLS: usize = 1_024;

/// Where a packet of ours came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The overlay's interface.
    Overlay,
    /// A real LAN, by its interface's index.
    RealLan(u32),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Repeats(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    sent: Box<[Option<Sent>]>,
    came: Box<[Option<Came>]>,
}

/// A packet of ours went.
#[derive(Clone, Copy, Debug)]
struct Sent {
    what: u64,
    door: Door,
    at: Instant,
}

/// A peer's packet came.
#[derive(Clone, Copy, Debug)]
struct Came {
    what: u64,
    at: Instant,
    /// When it may be sent at the earliest had it been sent at an even pace.
    due: Instant,
}

impl Repeats {
    /// A peer sent it.
    pub(super) fn came(&self, now: Instant, packet: &[u8]) {
        let Some(Names { said, .. }) = Names::of(packet) else { return };
        let place = &mut self.lock().came[cell(said)];
        match place {
            Some(known) if known.what == said => known.at = now,
            _ => *place = Some(Came { what: said, at: now, due: now }),
        }
    }

    /// Whether a packet of ours is none of those that are sent twice or go in circles.
    ///
    /// # Errors
    /// A word of `counters.drop`.
    pub fn lets_out(&self, now: Instant, door: Door, packet: &[u8]) -> Result<(), &'static str> {
        let Some(Names { said, sent }) = Names::of(packet) else { return Ok(()) };
        let mut inner = self.lock();
        let place = &mut inner.sent[cell(sent)];
        if place.is_some_and(|known| known.what == sent && known.door != door && now - known.at < TWICE) {
            return Err("repeated");
        }
        *place = Some(Sent { what: sent, door, at: now });
        match &mut inner.came[cell(said)] {
            Some(known) if known.what == said && now - known.at < CIRCLE => known.lets_out(now),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // It is whole between any two of its operations.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Came {
    fn lets_out(&mut self, now: Instant) -> Result<(), &'static str> {
        let due = self.due.max(now);
        if due > now + CIRCLE * (AT_ONCE - 1) {
            return Err("echo");
        }
        self.due = due + CIRCLE;
        Ok(())
    }
}

impl Default for Repeats {
    fn default() -> Self {
        Self(Mutex::new(Inner { sent: vec![None; CELLS].into(), came: vec![None; CELLS].into() }))
    }
}

/// What a packet is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Names {
    /// Whoever says it: to which group and port, and what.
    said: u64,
    /// And from which port.
    sent: u64,
}

impl Names {
    /// `None`: it is not UDP, and passes.
    fn of(packet: &[u8]) -> Option<Self> {
        let udp = Udp::read(packet)?;
        let mut hasher = SipHasher13::new();
        match udp.destination {
            IpAddr::V4(group) if group.is_multicast() => hasher.write(&group.octets()),
            // Each interface has a broadcast address of its own.
            IpAddr::V4(_) => hasher.write(&[0; 4]),
            IpAddr::V6(group) => hasher.write(&group.octets()),
        }
        let datagram = udp.datagram(packet);
        let source = match udp.part {
            Part::Later(offset) => {
                hasher.write_u16(offset);
                hasher.write(datagram);
                0
            }
            Part::Whole | Part::First => {
                let (source, destination, _) = udp.header(packet)?;
                hasher.write_u16(destination);
                // Without the checksum, which is another on each interface.
                hasher.write(&datagram[UDP_HEADER..]);
                source
            }
        };
        let said = hasher.finish();
        hasher.write_u16(source);
        Some(Self { said, sent: hasher.finish() })
    }
}

fn cell(what: u64) -> usize {
    usize::try_from(what % CELLS as u64).expect("there are few cells")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::tests::udp;

    const T0: Instant = Instant::from_nanos(1_000_000_000_000);
    const LAN: Door = Door::RealLan(2);

    fn at(ms: u64) -> Instant {
        T0 + Duration::from_millis(ms)
    }

    /// From another port.
    fn from_port(mut packet: Vec<u8>, port: u16) -> Vec<u8> {
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        packet
    }

    fn said_on_all() -> [Vec<u8>; 2] {
        [udp("10.77.0.1", "10.77.0.255"), udp("192.0.2.10", "192.0.2.255")]
    }

    #[test]
    fn of_what_is_sent_on_several_interfaces_the_first_goes() {
        let [ours, theirs] = said_on_all();
        for (first, second) in [((Door::Overlay, &ours), (LAN, &theirs)), ((LAN, &theirs), (Door::Overlay, &ours))] {
            let repeats = Repeats::default();
            assert_eq!(repeats.lets_out(at(0), first.0, first.1), Ok(()));
            assert_eq!(repeats.lets_out(at(49), second.0, second.1), Err("repeated"));
            assert_eq!(repeats.lets_out(at(50), second.0, second.1), Ok(()));
        }
    }

    #[test]
    fn what_a_program_says_twice_by_one_door_or_otherwise_is_meant() {
        let (repeats, [ours, theirs]) = (Repeats::default(), said_on_all());
        for packet in [ours.clone(), ours.clone(), from_port(ours, 7)] {
            assert_eq!(repeats.lets_out(at(0), Door::Overlay, &packet), Ok(()));
        }
        for packet in [from_port(theirs.clone(), 8), udp("192.0.2.10", "239.1.2.3"), udp("fe80::1", "ff02::c")] {
            assert_eq!(repeats.lets_out(at(0), LAN, &packet), Ok(()));
        }
        let mut other = theirs;
        *other.last_mut().expect("a payload") += 1;
        assert_eq!(repeats.lets_out(at(0), LAN, &other), Ok(()));
    }

    #[test]
    fn a_circle_comes_to_its_end() {
        let repeats = [Repeats::default(), Repeats::default()];
        let question = udp("10.77.0.9", "10.77.0.255");
        // Both have something that sends again what came, from a port of its own: it goes to and fro until one is silent.
        let (mut rounds, mut ms) = (0, 0);
        repeats[0].came(at(ms), &question);
        loop {
            let (here, there) = (&repeats[rounds % 2], &repeats[(rounds + 1) % 2]);
            ms += 5;
            if here.lets_out(at(ms), LAN, &from_port(question.clone(), 7)).is_err() {
                break;
            }
            rounds += 1;
            there.came(at(ms + 15), &question);
            ms += 15;
        }
        assert!(rounds <= 4, "{rounds}");
    }

    #[test]
    fn who_asks_what_others_ask_too_is_heard() {
        let (repeats, question) = (Repeats::default(), udp("10.77.0.1", "10.77.0.255"));
        // Three others ask once a second each, and so do we.
        for n in 0..60 {
            (0..3).for_each(|other| repeats.came(at(n * 1_000 + other * 250), &udp("10.77.0.9", "10.77.0.255")));
            assert_eq!(repeats.lets_out(at(n * 1_000 + 760), LAN, &question), Ok(()), "{n}");
        }
    }
}
