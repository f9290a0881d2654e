//! L4: the packet path. A [`Table`] is what the node has decided, frozen: who has which address, under which key and which
//! way packets go to each peer, and what comes in under each index of ours. It never changes, so any thread may seal and
//! open with it while the node makes the next one; and the node itself goes through it.
//!
//! It takes the common case alone: a session that stands and one way; and it drops what is nobody's. **Everything else is
//! the node's, whole**: packets for many (but a storm of them is cut here), peers without a session or with two ways at the
//! moment, whatever is not data, and data by another way than before. (What two others send each other through this machine
//! it passes on, unopened: [`Carriage`].) So what is right never depends on this path, and the node need not know who goes
//! through it.
//!
//! What belongs to both is atomic or locked, and there is little of it:
//!
//! | what | how |
//! |---|---|
//! | the counters of a sealing key | each is taken once (`SealingKey`) |
//! | the replay window of an opening key | whoever opens holds it: no counter is accepted twice ([`Openings`]) |
//! | bytes, and when the last packet went and came | [`Traffic`], which the node takes over |
//! | what was dropped, by reason | [`Drops`] |
//! | the channels of those who are carried for | whoever has a frame of theirs holds them ([`Carriage`]) |
//! | what is for many | whoever has such a packet holds its sender's [`Gate`] and what was sent lately ([`Repeats`]) |

mod carriage;
mod drops;
mod egress;
mod gate;
mod ingress;
mod joins;
mod leg;
mod overheard;
mod pieces;
mod repeats;
mod sharing;
mod traffic;
mod udp;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use carriage::{Carriage, Way};
pub use drops::Drops;
pub use egress::{Egress, SUPER_PACKET, Train};
pub use gate::{Gate, SHARED_RATE};
pub use ingress::{Guard, Inbound, Ingress, Openings, make_out, refusal_word};
pub use joins::{Delivery, Interface, Join, Joins};
pub use leg::{Leg, RelayChannel};
pub use overheard::{Overheard, RealLan};
pub use pieces::pieces;
pub use repeats::{Door, Repeats};
pub use sharing::{LanConfig, Sharing};
pub use traffic::{Bell, Traffic};

use crate::id::PeerId;
use crate::offload::Cut;
use crate::router::{Route, Router};
use crate::sans::{Datagram, Instant};
use crate::wire::ip;

/// Free bytes before an inner packet: relay header 12, data header 8, inner kind 1, and room to spare.
pub const HEADROOM: usize = 32;
/// Free bytes behind an inner packet: the tag.
pub const TAILROOM: usize = 16;
/// Largest inner packet, bytes: 1400 + 32 + relay 12 + IPv6/UDP 48 = 1492, which PPPoE carries.
pub const MTU: u16 = 1400;

/// Why a packet was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsealed {
    /// The node has to see to it.
    Node,
    /// It is for many, and may go to them: the node has to see to it ([`crate::node::Node::handle_shared`]).
    Shared,
    /// Nobody is to have it; it was counted.
    Dropped,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Table {
    router: Arc<Router>,
    egress: BTreeMap<PeerId, Egress>,
    ingress: BTreeMap<u32, Ingress>,
    sharing: Sharing,
    /// Under which indices each peer comes in; none twice, and no other way than all of them.
    indices: BTreeMap<PeerId, Vec<u32>>,
    drops: Arc<Drops>,
    bell: Arc<Bell>,
    carriage: Arc<Carriage>,
}

impl Table {
    /// Knows no peer.
    pub fn new(router: Arc<Router>) -> Self {
        Self {
            router,
            egress: BTreeMap::new(),
            ingress: BTreeMap::new(),
            indices: BTreeMap::new(),
            sharing: Sharing::default(),
            drops: Arc::default(),
            bell: Arc::default(),
            carriage: Arc::default(),
        }
    }

    // ---- what it is made of ----

    /// Who has which address.
    pub const fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// From now on.
    pub fn set_router(&mut self, router: Arc<Router>) {
        self.router = router;
    }

    /// What is for many.
    pub const fn sharing(&self) -> &Sharing {
        &self.sharing
    }

    /// Such things are, from now on.
    pub fn set_sharing(&mut self, sharing: Sharing) {
        self.sharing = sharing;
    }

    /// How packets go to a peer.
    pub fn egress(&self, peer: &PeerId) -> Option<&Egress> {
        self.egress.get(peer)
    }

    /// How packets come from a peer.
    pub fn ingress(&self, peer: &PeerId) -> Option<&Ingress> {
        self.indices.get(peer).and_then(|indices| self.ingress.get(indices.first()?))
    }

    /// Whether this is how packets go to a peer and come from it.
    pub fn says(&self, peer: &PeerId, egress: Option<&Egress>, ingress: &[Option<(u32, Ingress)>]) -> bool {
        let same_out = match (self.egress(peer), egress) {
            (Some(a), Some(b)) => a.is_same(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let known = self.indices.get(peer).map_or(&[][..], Vec::as_slice);
        let wanted = || ingress.iter().flatten();
        let same_in = known.iter().eq(wanted().map(|(index, _)| index))
            && wanted().all(|(index, ingress)| self.ingress.get(index).is_some_and(|known| known.is_same(ingress)));
        same_out && same_in
    }

    /// This is how, from now on; the indices are those of our keys.
    pub fn set(
        &mut self,
        peer: PeerId,
        egress: Option<Egress>,
        ingress: impl IntoIterator<Item = Option<(u32, Ingress)>>,
    ) {
        match egress {
            Some(egress) => drop(self.egress.insert(peer, egress)),
            None => drop(self.egress.remove(&peer)),
        }
        for index in self.indices.remove(&peer).into_iter().flatten() {
            self.ingress.remove(&index);
        }
        let ingress: Vec<(u32, Ingress)> = ingress.into_iter().flatten().collect();
        if !ingress.is_empty() {
            self.indices.insert(peer, ingress.iter().map(|(index, _)| *index).collect());
            self.ingress.extend(ingress);
        }
    }

    /// Rung by the first packet of a peer after quiet.
    pub const fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// What was dropped on the packet path.
    pub const fn drops(&self) -> &Arc<Drops> {
        &self.drops
    }

    /// What is carried for others.
    pub const fn carriage(&self) -> &Arc<Carriage> {
        &self.carriage
    }

    /// How many peers it has anything to say of.
    pub fn peers(&self) -> usize {
        self.egress.len().max(self.ingress.len())
    }

    /// Knows no peer from now on.
    pub fn clear(&mut self) {
        self.egress.clear();
        self.ingress.clear();
        self.indices.clear();
    }

    // ---- what it does ----

    /// Seals a packet in place: `buf` is [`HEADROOM`] free bytes, the packet, [`TAILROOM`] free bytes.
    ///
    /// # Errors
    /// It is as it was: the node's, or nobody's.
    pub fn seal(&self, now: Instant, buf: &mut [u8]) -> Result<Train, Unsealed> {
        let Some(packet) = buf.len().checked_sub(TAILROOM).and_then(|end| buf.get(HEADROOM..end)) else {
            return Err(self.dropped_as("malformed"));
        };
        if packet.len() > usize::from(MTU) {
            return Err(self.dropped_as("too-big"));
        }
        match self.router.route(packet) {
            Route::Peer(id) => self.egress.get(&id).and_then(|egress| egress.seal(now, buf).ok()).ok_or(Unsealed::Node),
            Route::Everyone(destination) => Err(self.let_out(now, destination)),
            Route::Drop(reason) => Err(self.dropped_as(reason.word())),
        }
    }

    /// Seals segments of a super-packet, see [`Egress::seal_train`]. `None`: the next one has to go alone.
    pub fn seal_train(&self, now: Instant, cut: &Cut<'_>, next: &mut usize, arena: &mut [u8]) -> Option<Train> {
        match self.router.route(cut.packet()) {
            Route::Peer(id) => self.egress.get(&id)?.seal_train(now, cut, next, arena),
            Route::Everyone(_) | Route::Drop(_) => None,
        }
    }

    /// Whether a packet for many may go there: [`Unsealed::Shared`], or it was counted.
    pub fn let_out(&self, now: Instant, destination: IpAddr) -> Unsealed {
        match self.sharing.lets_out(now, destination) {
            Ok(()) => Unsealed::Shared,
            Err(word) => self.dropped_as(word),
        }
    }

    /// Where the packet of an [`Inbound::Shared`] is delivered.
    pub fn delivery(&self, packet: &[u8]) -> Option<&Delivery> {
        let destination = ip::addresses(packet).ok()?.destination;
        self.sharing.joins.delivery(destination)
    }

    /// The next segment as a packet of its own, with the room around it that [`Table::seal`] wants, and `next` moves on.
    /// `None`: it is too long, dropped and counted.
    pub fn cut_alone<'a>(&self, cut: &Cut<'_>, next: &mut usize, arena: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let (segment, len) = (*next, cut.segment_len(*next));
        *next += 1;
        if len > usize::from(MTU) {
            self.dropped_as("too-big");
            return None;
        }
        let framed = arena.get_mut(..HEADROOM + len + TAILROOM)?;
        cut.write_whole(segment, &mut framed[HEADROOM..HEADROOM + len]);
        Some(framed)
    }

    /// Passes on a frame of two others; `None`: it is none, and as it was.
    fn carry(&self, now: Instant, datagram: &mut Datagram<'_>) -> Option<Inbound> {
        Some(match self.carriage.carry(now, datagram.from, datagram.payload)? {
            carriage::Carried::To((socket, to)) => Inbound::Forward { socket, to },
            carriage::Carried::Throttled { is_news } => {
                self.drops.count("carry-over-rate");
                if is_news {
                    self.bell.ring();
                }
                Inbound::Dropped
            }
        })
    }

    fn dropped_as(&self, word: &'static str) -> Unsealed {
        self.drops.count(word);
        Unsealed::Dropped
    }

    /// Begins to open the datagrams of a batch.
    pub const fn openings(&self) -> Openings<'_> {
        Openings::new(self)
    }
}
