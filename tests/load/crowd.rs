//! Many client machines on few sockets. Which of them a datagram is for is read from what it sent before: the nonce of
//! a Hello, or the handle of its Register.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use punchlan::crypto::{DeviceSecrets, Identity, NetworkSecrets, Suites, announcement};
use punchlan::id::{Epoch, NetworkKey, ServerId};
use punchlan::io::clock;
use punchlan::rendezvous::{Client, Event, State};
use punchlan::sans::{Instant, Seed};
use punchlan::wire::announcement::{Announcement, V4Claim};
use punchlan::wire::rendezvous::Message;
use socket2::{Domain, Protocol, Socket, Type};

/// Peers on one socket.
const PER_SOCKET: usize = 500;
/// Registrations that are begun at once: a real crowd does not come in one millisecond.
const AT_ONCE: usize = 64;

/// One peer.
pub(crate) struct Member {
    pub(crate) client: Client,
    pub(crate) identity: Identity,
    socket: usize,
    due: Option<Instant>,
    /// Members that it was told of.
    heard: usize,
    leaves: bool,
    was_registered: bool,
}

pub(crate) struct Crowd {
    server: SocketAddr,
    sockets: Vec<UdpSocket>,
    members: Vec<Member>,
    /// Not started yet.
    waiting: Vec<usize>,
    networks: usize,
    agenda: BTreeSet<(Instant, usize)>,
    nonces: HashMap<[u8; 16], usize>,
    handles: HashMap<(usize, u32), usize>,
    made: u64,
    number: u64,
    registered: usize,
    lost: usize,
    problems: BTreeMap<String, usize>,
    /// Sent and received.
    pub(crate) datagrams: u64,
}

impl Crowd {
    pub(crate) fn new(server: SocketAddr, peers: usize, networks: usize) -> Self {
        let sockets = (0..peers.div_ceil(PER_SOCKET)).map(|_| socket(server)).collect();
        let mut crowd = Self {
            server,
            sockets,
            members: Vec::new(),
            waiting: Vec::new(),
            networks,
            agenda: BTreeSet::new(),
            nonces: HashMap::new(),
            handles: HashMap::new(),
            made: 0,
            number: clock::wall_ms(),
            registered: 0,
            lost: 0,
            problems: BTreeMap::new(),
            datagrams: 0,
        };
        for index in 0..peers {
            let member = crowd.make(index);
            crowd.members.push(member);
        }
        crowd.waiting = (0..peers).rev().collect();
        crowd
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn registered(&self) -> usize {
        self.registered
    }

    /// Registrations that ended although nobody wanted that.
    pub(crate) fn lost(&self) -> usize {
        self.lost
    }

    /// What servers said no with, and how often.
    pub(crate) fn problems(&self) -> &BTreeMap<String, usize> {
        &self.problems
    }

    /// Peers that were not told yet of everybody in their network.
    pub(crate) fn unsettled(&self) -> usize {
        let size = |index: usize| (self.members.len() - 1 - index % self.networks) / self.networks + 1;
        self.members.iter().enumerate().filter(|(index, member)| member.heard + 1 < size(*index)).count()
    }

    /// A device that is new, in the network of the `index`-th.
    fn make(&mut self, index: usize) -> Member {
        self.made += 1;
        let mut key = [7; 32];
        key[..8].copy_from_slice(&((index % self.networks) as u64).to_be_bytes());
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&self.made.to_be_bytes());
        let network = NetworkSecrets::derive(&NetworkKey::new(key), Epoch::default());
        let device = DeviceSecrets::from_seed(&seed);
        let identity = Identity { network, device, suites: Suites::ALL, features: 0 };
        let mut client = Client::new(ServerId(0), None, &Seed::from_u64(self.made));
        let now = clock::now();
        client.set_announcement(now, announce(&identity, self.made));
        client.set_addresses(now, vec![self.server]);
        let socket = index / PER_SOCKET;
        Member { client, identity, socket, due: None, heard: 0, leaves: false, was_registered: false }
    }

    /// One peer says goodbye, and another takes its place.
    pub(crate) fn replace_one(&mut self) {
        let index = usize::try_from(self.made).expect("small") * 7_919 % self.members.len();
        if self.members[index].leaves || !self.members[index].was_registered {
            self.made += 1;
            return;
        }
        let now = clock::now();
        self.members[index].leaves = true;
        self.members[index].client.leave(now);
        self.drain(now, index);
    }

    /// Runs for so long.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = clock::now() + duration;
        while clock::now() < end {
            let under_way = self.members.len() - self.waiting.len() - self.registered;
            for _ in under_way..AT_ONCE {
                let Some(index) = self.waiting.pop() else { break };
                self.wake(clock::now(), index);
            }
            let came = (0..self.sockets.len()).map(|socket| self.receive(socket)).sum::<usize>();
            let now = clock::now();
            while let Some((at, index)) = self.agenda.first().copied().filter(|(at, _)| *at <= now) {
                self.agenda.remove(&(at, index));
                self.members[index].due.take_if(|due| *due == at);
                self.wake(now, index);
            }
            if came == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Runs until who left is gone and who came is here.
    pub(crate) fn settle(&mut self, limit: Duration) {
        let end = clock::now() + limit;
        while clock::now() < end && self.registered < self.members.len() {
            self.run(Duration::from_millis(20));
        }
    }

    fn receive(&mut self, socket: usize) -> usize {
        let mut buffer = [0; 2_048];
        for count in 0..256 {
            let len = match self.sockets[socket].recv(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
                Err(error) => panic!("{error}"),
            };
            self.datagrams += 1;
            let bytes = &buffer[..len];
            let index = match Message::parse(bytes) {
                Ok(Message::Cookie(cookie)) => self.nonces.get(&cookie.nonce),
                Ok(Message::Refused(refused)) => self.nonces.get(&refused.nonce),
                Ok(Message::Frame(header)) => self.handles.get(&(socket, header.handle)),
                _ => None,
            };
            if let Some(index) = index.copied() {
                let (now, member) = (clock::now(), &mut self.members[index]);
                member.client.handle_datagram(now, &member.identity, self.server, bytes);
                self.drain(now, index);
            }
        }
        256
    }

    fn wake(&mut self, now: Instant, index: usize) {
        let (member, number) = (&mut self.members[index], &mut self.number);
        member.client.handle_timeout(now, || {
            *number += 1;
            Some(*number)
        });
        self.drain(now, index);
    }

    fn drain(&mut self, now: Instant, index: usize) {
        while let Some(event) = self.members[index].client.poll_event() {
            self.event(index, event);
        }
        while let Some((_, _, bytes)) = self.members[index].client.poll_transmit() {
            self.send(index, &bytes);
        }
        let member = &mut self.members[index];
        let is_registered = member.client.state() == State::Registered;
        if is_registered != member.was_registered {
            member.was_registered = is_registered;
            self.registered = if is_registered { self.registered + 1 } else { self.registered - 1 };
        }
        if member.leaves && member.client.has_left() {
            self.members[index] = self.make(index);
            return self.wake(now, index);
        }
        let due = member.client.poll_timeout().map(|wakeup| wakeup.at);
        if due != member.due {
            if let Some(old) = member.due {
                self.agenda.remove(&(old, index));
            }
            self.agenda.extend(due.map(|at| (at, index)));
            member.due = due;
        }
    }

    fn event(&mut self, index: usize, event: Event) {
        let member = &mut self.members[index];
        match event {
            Event::Member { .. } => member.heard += 1,
            Event::Lost if !member.leaves => self.lost += 1,
            Event::Refused(why) => *self.problems.entry(why).or_default() += 1,
            _ => {}
        }
    }

    fn send(&mut self, index: usize, bytes: &[u8]) {
        let socket = self.members[index].socket;
        match Message::parse(bytes) {
            Ok(Message::Hello(hello)) => drop(self.nonces.insert(hello.nonce, index)),
            Ok(Message::Register(register)) => drop(self.handles.insert((socket, register.claim.handle), index)),
            _ => {}
        }
        self.datagrams += 1;
        match self.sockets[socket].send(bytes) {
            // What a full queue loses is sent again.
            Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
            _ => {}
        }
    }
}

pub(crate) fn announce(identity: &Identity, seq: u64) -> Vec<u8> {
    let text = Announcement {
        version: punchlan::wire::VERSION,
        epoch: Epoch::default(),
        seq,
        peer: identity.device.id(),
        x25519: identity.device.x25519(),
        features: 0,
        name: format!("peer{seq}"),
        v4: V4Claim::None,
        candidates: Vec::new(),
    };
    let signed = announcement::sign(&identity.device, &identity.network.id(), &text);
    announcement::seal(&identity.network, &signed, &mut Seed::from_u64(seq).rng())
}

/// A socket that holds what comes while another is read.
fn socket(server: SocketAddr) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.set_recv_buffer_size(8 << 20).expect("set");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    socket.connect(&server.into()).expect("loopback is there");
    socket.set_nonblocking(true).expect("set");
    socket.into()
}
