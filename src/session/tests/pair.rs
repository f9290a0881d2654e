//! The harness: two ends, a link that delays, drops and doubles, and a clock that jumps to what comes next.

use std::time::Duration;

use super::super::*;
use crate::crypto::announcement::sign;
use crate::crypto::{DeviceSecrets, NetworkSecrets, Suites};
use crate::id::{Epoch, NetworkKey};
use crate::sans::{Action, Seed};
use crate::wire::announcement::tests::example;
use crate::wire::{Class, classify};

/// The lower peer id.
pub(super) const LOW: usize = 0;
/// The higher one.
pub(super) const HIGH: usize = 1;
pub(super) const START: Instant = Instant::from_nanos(1_000_000_000_000);

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// One machine with one session.
pub(super) struct End {
    pub(super) identity: Identity,
    pub(super) indices: Indices,
    pub(super) numbers: Numbers,
    pub(super) rng: Rng,
    pub(super) announcement: Signed,
    pub(super) session: Session,
    pub(super) events: Vec<Event>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) failures: Vec<OpenError>,
    /// Bodies of data packets that were opened.
    pub(super) opened: Vec<Vec<u8>>,
    /// `Nothing`s that were opened.
    pub(super) nothings: usize,
    pub(super) jar: Option<crate::crypto::CookieJar>,
}

/// Who a machine is.
pub(super) fn identity(network: u8, device: u8) -> Identity {
    Identity {
        network: NetworkSecrets::derive(&NetworkKey::new([network; 32]), Epoch(0)),
        device: DeviceSecrets::from_seed(&[device; 32]),
        suites: Suites::ALL,
        features: 0,
    }
}

/// Two devices of a network, the lower id first.
pub(super) fn identities() -> [Identity; 2] {
    let mut both = [identity(1, 1), identity(1, 2)];
    both.sort_by_key(|identity| identity.device.id());
    both
}

impl End {
    pub(super) fn new(identity: Identity, peer: &Identity, first_number: u64, seed: u64) -> Self {
        let announcement = sign(&identity.device, &identity.network.id(), &example());
        let session = Session::new(identity.device.id(), peer.device.id(), peer.device.x25519());
        Self {
            indices: Indices::new(),
            numbers: Numbers::new(first_number, 0),
            rng: Seed::from_u64(seed).rng(),
            announcement,
            session,
            events: Vec::new(),
            refusals: Vec::new(),
            failures: Vec::new(),
            opened: Vec::new(),
            nothings: 0,
            jar: None,
            identity,
        }
    }

    pub(super) fn with_env<T>(&mut self, f: impl FnOnce(&mut Session, &mut Env<'_>) -> T) -> T {
        while let Some(Action::Reserve { ceiling }) = self.numbers.poll_action() {
            self.numbers.handle_reserved(ceiling);
        }
        let mut env = Env {
            identity: &self.identity,
            indices: &mut self.indices,
            numbers: &mut self.numbers,
            rng: &mut self.rng,
            announcement: &self.announcement,
        };
        f(&mut self.session, &mut env)
    }

    /// What a node does with a datagram; the answer that goes back.
    pub(super) fn receive(&mut self, now: Instant, mut datagram: Vec<u8>) -> Option<Vec<u8>> {
        match classify(&datagram) {
            Class::Initiation => {
                if let Some(jar) = &self.jar {
                    match prove_source(&self.identity, jar, now, b"there", &datagram, &mut self.rng) {
                        Proof::Given => {}
                        Proof::Demand(reply) => return Some(reply),
                        Proof::Refused(refusal) => self.refusals.push(refusal),
                    }
                }
                let taken = read_initiation(&self.identity, &datagram, &mut self.rng)
                    .and_then(|init| self.with_env(|session, env| session.handle_initiation(now, env, init)));
                taken.map_err(|refusal| self.refusals.push(refusal)).ok().flatten()
            }
            Class::Response => {
                let taken = self.with_env(|session, env| session.handle_response(now, env, &datagram));
                self.refusals.extend(taken.err());
                None
            }
            Class::CookieReply => {
                self.session.handle_cookie_reply(now, &datagram);
                None
            }
            _ => {
                match self.session.open(now, &mut datagram) {
                    Ok(Opened { channel: Channel::Data, body }) => self.opened.push(datagram[body].to_vec()),
                    Ok(Opened { channel: Channel::Control, body }) => {
                        self.nothings += usize::from(datagram[body] == [0]);
                    }
                    Err(error) => self.failures.push(error),
                }
                None
            }
        }
    }

    pub(super) fn seal(&mut self, now: Instant, body: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut datagram = [&[0; HEADER], body, &[0; 16]].concat();
        self.session.seal(now, Channel::Data, &mut datagram).map(|()| datagram)
    }
}

/// What becomes of a datagram from an end, given when and by whom it was sent.
pub(super) type Link = Box<dyn FnMut(Instant, usize, &[u8]) -> Vec<Duration>>;

/// Two ends and a link.
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) ends: [End; 2],
    /// Delays of the copies that arrive; none: lost.
    pub(super) link: Link,
    flying: Vec<(Instant, usize, Vec<u8>)>,
    /// How often something happened or a timer was due.
    pub(super) steps: usize,
    /// Everything that was sent, by whom.
    pub(super) sent: Vec<(Instant, usize, Vec<u8>)>,
}

impl Pair {
    /// A link with 50 ms each way.
    pub(super) fn new() -> Self {
        let [low, high] = identities();
        let [first, second] = identities();
        let ends = [End::new(low, &second, 1_000, 1), End::new(high, &first, 2_000, 2)];
        Self {
            now: START,
            ends,
            link: Box::new(|_, _, _| vec![ms(50)]),
            flying: Vec::new(),
            steps: 0,
            sent: Vec::new(),
        }
    }

    /// One that has had its handshake, begun by the lower id.
    pub(super) fn established() -> Self {
        let mut pair = Self::new();
        pair.connect(LOW);
        pair.run(ms(200));
        assert!(pair.both_established());
        pair
    }

    pub(super) fn connect(&mut self, end: usize) {
        self.ends[end].session.connect(self.now);
    }

    pub(super) fn both_established(&self) -> bool {
        self.ends.iter().all(|end| end.session.is_established(self.now))
    }

    pub(super) fn send(&mut self, from: usize, datagram: Vec<u8>) {
        for delay in (self.link)(self.now, from, &datagram) {
            self.flying.push((self.now + delay, 1 - from, datagram.clone()));
        }
        self.sent.push((self.now, from, datagram));
    }

    /// Seals a data packet and sends it.
    pub(super) fn send_data(&mut self, from: usize, body: &[u8]) -> Result<(), SealError> {
        let datagram = self.ends[from].seal(self.now, body)?;
        self.send(from, datagram);
        Ok(())
    }

    /// Delivers a datagram as if it had come from the other end.
    pub(super) fn inject(&mut self, to: usize, datagram: &[u8]) {
        if let Some(answer) = self.ends[to].receive(self.now, datagram.to_vec()) {
            self.send(to, answer);
        }
        self.drain();
    }

    /// How many datagrams of a class an end has sent.
    pub(super) fn count(&self, from: usize, class: Class) -> usize {
        self.all(from, class).len()
    }

    pub(super) fn all(&self, from: usize, class: Class) -> Vec<Vec<u8>> {
        let of = |(_, by, bytes): &&(Instant, usize, Vec<u8>)| *by == from && classify(bytes) == class;
        self.sent.iter().filter(of).map(|(_, _, bytes)| bytes.clone()).collect()
    }

    /// Lets time pass, jumping from one thing that happens to the next.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        self.drain();
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            steps += 1;
            assert!(steps < 200_000, "busy loop at {at:?}");
            self.steps += 1;
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
    }

    fn next_at(&self) -> Option<Instant> {
        let wakeups = self.ends.iter().filter_map(|end| end.session.poll_timeout()).map(|wakeup| wakeup.at);
        self.flying.iter().map(|(at, _, _)| *at).chain(wakeups).min()
    }

    fn step(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.flying.extract_if(.., |(at, _, _)| *at <= now).collect();
        for (_, to, datagram) in due {
            if let Some(answer) = self.ends[to].receive(now, datagram) {
                self.send(to, answer);
            }
            self.drain();
        }
        for end in &mut self.ends {
            if end.session.poll_timeout().is_some_and(|wakeup| wakeup.at <= now) {
                end.with_env(|session, env| session.handle_timeout(now, env));
            }
        }
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        for from in [LOW, HIGH] {
            while let Some(event) = self.ends[from].session.poll_event() {
                self.ends[from].events.push(event);
            }
            while let Some(datagram) = self.ends[from].session.poll_transmit() {
                self.send(from, datagram);
            }
        }
    }

    /// A new process on the same machine: same device, later numbers, no memory.
    pub(super) fn restart(&mut self, end: usize) {
        let [low, high] = identities();
        let (me, peer) = if end == LOW { (low, high) } else { (high, low) };
        let seed = self.ends[end].rng.u64();
        self.ends[end] = End::new(me, &peer, 1 << 40, seed);
    }
}

/// Both ends can send to each other.
pub(super) fn assert_exchange(pair: &mut Pair) {
    let before = [pair.ends[LOW].opened.len(), pair.ends[HIGH].opened.len()];
    for end in [LOW, HIGH] {
        pair.send_data(end, b"\x01packet").expect("seals");
    }
    pair.run(s(1));
    assert_eq!(pair.ends[LOW].opened.len(), before[LOW] + 1);
    assert_eq!(pair.ends[HIGH].opened.len(), before[HIGH] + 1);
}
