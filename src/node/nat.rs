//! What the NAT in front of this machine does, for `status`: looked at by [`Action::CheckNat`], on sockets that are not
//! ours and disturb no packet.
//!
//! It is looked at a few seconds after the first registration, and again when this machine or its router is elsewhere:
//! from then on nothing is known of it until it has been looked at again. Never more than once a minute; where all was
//! found out never again; else, for a rendezvous may be busy or get a second port, with ever longer pauses.

use std::net::SocketAddr;
use std::time::Duration;

use super::Node;
use super::servers::Server;
use super::status::Nat;
use crate::id::PeerId;
use crate::nat::Traits;
use crate::rendezvous::client::State;
use crate::sans::{Action, Instant, Rng, Wakeup};
use crate::wire::session::Control;

/// Friends who start together do not ask together, and what has just changed may change again.
const SETTLE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];
/// Between two looks.
const PAUSE: Duration = Duration::from_mins(1);
/// Until the next look, when not all was found out; each doubles it…
const AGAIN: Duration = Duration::from_mins(10);
/// …up to this.
const SELDOM: Duration = Duration::from_hours(6);

/// What is known, and when it is looked at next.
#[derive(Debug, Default)]
pub(super) struct NatWatch {
    found: Traits,
    due: Option<Instant>,
    last: Option<Instant>,
    /// The newest look's number; the answer to an older one is of the past.
    attempt: u64,
    asking: bool,
    /// Looks in a row that did not find out all.
    incomplete: u32,
}

impl NatWatch {
    /// There is a rendezvous to ask.
    pub(super) fn registered(&mut self, now: Instant, rng: &mut Rng) {
        if !is_complete(self.found) && self.due.is_none() && !self.asking {
            self.look(now, rng);
        }
    }

    /// What is known is of another place.
    pub(super) fn moved(&mut self, now: Instant, rng: &mut Rng) {
        self.found = Traits::default();
        self.attempt += 1;
        (self.asking, self.incomplete) = (false, 0);
        self.look(now, rng);
    }

    fn look(&mut self, now: Instant, rng: &mut Rng) {
        let [least, most] = SETTLE;
        let settled = now + rng.between(least, most);
        self.due = Some(self.last.map_or(settled, |last| settled.max(last + PAUSE)));
    }

    /// Whether it is to be looked at now. If that cannot be, the next registration says when.
    fn take_due(&mut self, now: Instant) -> bool {
        let due = self.due.take_if(|due| *due <= now).is_some();
        self.asking &= !due;
        due
    }

    /// It is looked at; the look's number. Should its answer never come, that is no reason to wait for ever.
    fn begin(&mut self, now: Instant) -> u64 {
        (self.last, self.due) = (Some(now), Some(now + AGAIN));
        self.attempt += 1;
        self.asking = true;
        self.attempt
    }

    pub(super) fn checked(&mut self, now: Instant, attempt: u64, found: Traits) {
        if attempt != self.attempt || !self.asking {
            return;
        }
        self.asking = false;
        self.found = newer(found, self.found);
        self.due = None;
        if !is_complete(self.found) {
            self.due = Some(now + (AGAIN * 2_u32.saturating_pow(self.incomplete.min(16))).min(SELDOM));
            self.incomplete += 1;
        }
        tracing::debug!(?found, "the NAT");
    }

    pub(super) fn poll_timeout(&self) -> Option<Wakeup> {
        self.due.map(|at| Wakeup::new(at, "NAT"))
    }

    /// As if it had been looked at.
    #[cfg(test)]
    pub(super) fn that_found(found: Traits) -> Self {
        Self { found, ..Self::default() }
    }

    /// What is known.
    pub(super) const fn found(&self) -> Traits {
        self.found
    }

    /// For `status`; the port mapping is told elsewhere.
    pub(super) fn report(&self) -> Nat {
        self.found.into()
    }
}

/// The port mapping is told elsewhere.
impl From<Traits> for Nat {
    fn from(Traits { translates, mapping, filtering, hairpin, allocation }: Traits) -> Self {
        let none = || (translates == Some(false)).then(|| "none".to_owned());
        Self {
            mapping: mapping.map(|mapping| mapping.to_string()).or_else(none),
            filtering: filtering.map(|filtering| filtering.to_string()),
            hairpin,
            allocation: allocation.map(|allocation| allocation.to_string()),
            port_mapping: None,
        }
    }
}

/// What was found now, and before of what is the same place.
fn newer(now: Traits, before: Traits) -> Traits {
    Traits {
        translates: now.translates.or(before.translates),
        mapping: now.mapping.or(before.mapping),
        filtering: now.filtering.or(before.filtering),
        hairpin: now.hairpin.or(before.hairpin),
        allocation: now.allocation.or(before.allocation),
    }
}

/// Whether no further look can tell more that matters.
fn is_complete(found: Traits) -> bool {
    found.filtering.is_some() && (found.translates == Some(false) || found.mapping.is_some())
}

impl Node {
    /// It was looked at.
    pub(super) fn nat_checked(&mut self, now: Instant, attempt: u64, found: Traits) {
        let before = self.nat.found();
        self.nat.checked(now, attempt, found);
        if self.nat.found() != before {
            self.tell_all_nat(now);
        }
    }

    /// Tells a peer what is known, for its user.
    pub(super) fn tell_nat(&mut self, now: Instant, id: &PeerId) {
        self.send_control(now, id, &Control::Nat(self.nat.found()));
    }

    fn tell_all_nat(&mut self, now: Instant) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        ids.iter().for_each(|id| self.tell_nat(now, id));
    }

    /// A peer says what it knows of its own.
    pub(super) fn told_nat(&mut self, id: &PeerId, traits: Traits) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.nat = Some(traits);
        }
    }

    /// This machine, or its router, is elsewhere.
    pub(super) fn nat_moved(&mut self, now: Instant) {
        self.peers.values_mut().for_each(|peer| peer.punch.moved(now));
        let before = self.nat.found();
        self.nat.moved(now, &mut self.shared.rng);
        if self.nat.found() != before {
            self.tell_all_nat(now);
        }
        self.ports_moved(now);
        self.tcp_moved(now);
    }

    /// Has the NAT looked at, if that is due and somebody is there to ask.
    pub(super) fn look_at_nat(&mut self, now: Instant) {
        if !self.nat.take_due(now) {
            return;
        }
        let registered = self.servers.iter().filter(|server| server.client.state() == State::Registered);
        let both = |server: &Server| server.client.udp_addrs();
        let servers: Vec<_> = registered.flat_map(both).flatten().collect();
        // It is IPv4's NAT that is looked at.
        if servers.iter().any(SocketAddr::is_ipv4) {
            let attempt = self.nat.begin(now);
            self.actions.push_back(Action::CheckNat { attempt, servers });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::Behaviour;
    use crate::sans::Seed;

    const T0: Instant = Instant::from_nanos(1_000_000_000_000);

    fn cone() -> Traits {
        let (mapping, filtering) = (Some(Behaviour::EndpointIndependent), Some(Behaviour::AddressDependent));
        Traits { translates: Some(true), mapping, filtering, ..Traits::default() }
    }

    /// The look that is due.
    fn begin(watch: &mut NatWatch, now: Instant) -> Option<u64> {
        watch.take_due(now).then(|| watch.begin(now))
    }

    fn due(watch: &NatWatch) -> Option<Duration> {
        watch.poll_timeout().map(|wakeup| wakeup.at - T0)
    }

    #[test]
    fn what_stays_where_it_is_is_looked_at_once() {
        let (mut watch, mut rng) = (NatWatch::default(), Seed::from_u64(1).rng());
        assert_eq!((due(&watch), watch.report()), (None, Nat::default()));
        watch.registered(T0, &mut rng);
        let first = due(&watch).expect("soon");
        assert!((SETTLE[0]..SETTLE[1]).contains(&first));
        watch.registered(T0 + PAUSE, &mut rng);
        assert_eq!((due(&watch), begin(&mut watch, T0)), (Some(first), None));
        let attempt = begin(&mut watch, T0 + first).expect("due");
        watch.registered(T0 + first, &mut rng);
        watch.checked(T0 + first, attempt, cone());
        watch.registered(T0 + first + PAUSE, &mut rng);
        assert_eq!(due(&watch), None);
        assert_eq!(watch.report().mapping.as_deref(), Some("endpoint-independent"));
    }

    #[test]
    fn elsewhere_nothing_is_known_until_it_was_looked_at_and_late_answers_are_of_the_past() {
        let (mut watch, mut rng) = (NatWatch::default(), Seed::from_u64(1).rng());
        watch.registered(T0, &mut rng);
        let old = begin(&mut watch, T0 + SETTLE[1]).expect("due");
        watch.moved(T0 + SETTLE[1], &mut rng);
        watch.checked(T0 + SETTLE[1], old, cone());
        assert_eq!(watch.report(), Nat::default());
        assert!(due(&watch).is_some_and(|due| due >= PAUSE), "not more than once a minute");
        let new = begin(&mut watch, T0 + PAUSE * 2).expect("due");
        watch.checked(T0 + PAUSE * 2, new, Traits { translates: Some(false), ..Traits::default() });
        assert_eq!(watch.report().mapping.as_deref(), Some("none"));
    }

    #[test]
    fn where_not_all_was_found_out_it_is_looked_again_ever_more_seldom_and_what_is_known_stays() {
        let (mut watch, mut rng) = (NatWatch::default(), Seed::from_u64(1).rng());
        watch.registered(T0, &mut rng);
        let (mut now, mut pauses) = (T0 + SETTLE[1], Vec::new());
        let some = Traits { filtering: None, ..cone() };
        for found in [Traits::default(), some].into_iter().chain([Traits::default(); 20]) {
            let attempt = begin(&mut watch, now).expect("due");
            watch.checked(now, attempt, found);
            let next = watch.poll_timeout().expect("again").at;
            pauses.push(next - now);
            now = next;
        }
        assert_eq!((pauses[0], pauses[1], pauses[21]), (AGAIN, AGAIN * 2, SELDOM));
        assert_eq!(watch.report().mapping.as_deref(), Some("endpoint-independent"));
        let attempt = begin(&mut watch, now).expect("due");
        watch.checked(now, attempt, cone());
        assert_eq!(watch.poll_timeout(), None);
    }

    #[test]
    fn while_nobody_is_there_to_ask_it_waits_for_a_rendezvous_whatever_is_known_already() {
        for known in [Traits::default(), Traits { filtering: None, ..cone() }] {
            let (mut watch, mut rng) = (NatWatch { found: known, ..NatWatch::default() }, Seed::from_u64(1).rng());
            watch.look(T0, &mut rng);
            assert!(watch.take_due(T0 + SETTLE[1]), "and nobody is asked");
            assert_eq!(due(&watch), None);
            watch.registered(T0 + SETTLE[1], &mut rng);
            assert!(due(&watch).is_some_and(|due| due < PAUSE), "nobody was asked a minute ago");
        }
    }

    #[test]
    fn an_answer_that_never_comes_is_not_waited_for_for_ever() {
        let (mut watch, mut rng) = (NatWatch::default(), Seed::from_u64(1).rng());
        watch.registered(T0, &mut rng);
        begin(&mut watch, T0 + SETTLE[1]).expect("due");
        assert_eq!(due(&watch), Some(SETTLE[1] + AGAIN));
        let again = begin(&mut watch, T0 + SETTLE[1] + AGAIN).expect("due");
        watch.checked(T0 + SETTLE[1] + AGAIN, again, cone());
        assert_eq!(due(&watch), None, "what answered is not looked at again");
    }
}
