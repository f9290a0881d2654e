//! L4: the packet path. A [`Table`] is what the node has decided, frozen: who has which address, under which key and which
//! way packets go to each peer, and what comes in under each index of ours. It never changes, so any thread may seal and
//! open with it while the node makes the next one; and the node itself goes through it.
//!
//! It takes the common case alone: a session that stands and one way. **Everything else is the node's, whole**: packets
//! for many or for nobody, peers without a session or with two ways at the moment, whatever is not data, and data by another
//! way than before. So what is right never depends on this path, and the node
//! need not know who goes through it.
//!
//! What belongs to both is atomic or locked, and there is little of it:
//!
//! | what | how |
//! |---|---|
//! | the counters of a sealing key | each is taken once (`SealingKey`) |
//! | the replay window of an opening key | whoever opens holds it: no counter is accepted twice ([`Openings`]) |
//! | bytes, and when the last packet went and came | [`Traffic`], which the node takes over |
//! | what was dropped, by reason | [`Drops`] |

mod drops;
mod inward;
mod outward;
mod traffic;
mod way;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use drops::Drops;
pub use inward::{Inbound, Inward, Openings, make_out, refusal_word};
pub use outward::{Outward, SUPER_PACKET, Train};
pub use traffic::{Bell, Traffic};
pub use way::{Channel, Way};

use crate::id::PeerId;
use crate::offload::Cut;
use crate::router::{Route, Router};
use crate::sans::Instant;

/// Free bytes before an inner packet: relay header 12, data header 8, inner kind 1, and room to spare.
pub const HEADROOM: usize = 32;
/// Free bytes behind an inner packet: the tag.
pub const TAILROOM: usize = 16;
/// Largest inner packet, bytes: 1400 + 32 + relay 12 + IPv6/UDP 48 = 1492, which PPPoE carries.
pub const MTU: u16 = 1400;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Table {
    router: Arc<Router>,
    outward: BTreeMap<PeerId, Outward>,
    inward: BTreeMap<u32, Inward>,
    /// Under which indices each peer comes in; none twice, and no other way than all of them.
    indices: BTreeMap<PeerId, Vec<u32>>,
    drops: Arc<Drops>,
    bell: Arc<Bell>,
}

impl Table {
    /// Knows no peer.
    pub fn new(router: Arc<Router>) -> Self {
        Self {
            router,
            outward: BTreeMap::new(),
            inward: BTreeMap::new(),
            indices: BTreeMap::new(),
            drops: Arc::default(),
            bell: Arc::default(),
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

    /// How packets go to a peer.
    pub fn outward(&self, peer: &PeerId) -> Option<&Outward> {
        self.outward.get(peer)
    }

    /// How packets come from a peer.
    pub fn inward(&self, peer: &PeerId) -> Option<&Inward> {
        self.indices.get(peer).and_then(|indices| self.inward.get(indices.first()?))
    }

    /// Whether this is how packets go to a peer and come from it.
    pub fn says(&self, peer: &PeerId, outward: Option<&Outward>, inward: &[Option<(u32, Inward)>]) -> bool {
        let same_out = match (self.outward(peer), outward) {
            (Some(a), Some(b)) => a.is_same(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let known = self.indices.get(peer).map_or(&[][..], Vec::as_slice);
        let wanted = || inward.iter().flatten();
        let same_in = known.iter().eq(wanted().map(|(index, _)| index))
            && wanted().all(|(index, inward)| self.inward.get(index).is_some_and(|known| known.is_same(inward)));
        same_out && same_in
    }

    /// This is how, from now on; the indices are those of our keys.
    pub fn set(
        &mut self,
        peer: PeerId,
        outward: Option<Outward>,
        inward: impl IntoIterator<Item = Option<(u32, Inward)>>,
    ) {
        match outward {
            Some(outward) => drop(self.outward.insert(peer, outward)),
            None => drop(self.outward.remove(&peer)),
        }
        for index in self.indices.remove(&peer).into_iter().flatten() {
            self.inward.remove(&index);
        }
        let inward: Vec<(u32, Inward)> = inward.into_iter().flatten().collect();
        if !inward.is_empty() {
            self.indices.insert(peer, inward.iter().map(|(index, _)| *index).collect());
            self.inward.extend(inward);
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

    /// How many peers it has anything to say of.
    pub fn peers(&self) -> usize {
        self.outward.len().max(self.inward.len())
    }

    /// Knows no peer from now on.
    pub fn clear(&mut self) {
        self.outward.clear();
        self.inward.clear();
        self.indices.clear();
    }

    // ---- what it does ----

    /// Seals a packet in place: `buf` is [`HEADROOM`] free bytes, the packet, [`TAILROOM`] free bytes. `None`: it is as
    /// it was, and the node's.
    pub fn seal(&self, now: Instant, buf: &mut [u8]) -> Option<Train> {
        let packet = buf.len().checked_sub(TAILROOM).and_then(|end| buf.get(HEADROOM..end))?;
        if packet.len() > usize::from(MTU) {
            return None;
        }
        self.outward_of(packet)?.seal(now, buf).ok()
    }

    /// Seals segments of a super-packet, see [`Outward::seal_train`]. `None`: the next one goes alone.
    pub fn seal_train(&self, now: Instant, cut: &Cut<'_>, next: &mut usize, arena: &mut [u8]) -> Option<Train> {
        self.outward_of(cut.packet())?.seal_train(now, cut, next, arena)
    }

    fn outward_of(&self, packet: &[u8]) -> Option<&Outward> {
        match self.router.route(packet) {
            Route::Peer(id) => self.outward.get(&id),
            Route::Everyone | Route::Drop(_) => None,
        }
    }

    /// Begins to open the datagrams of a batch.
    pub const fn openings(&self) -> Openings<'_> {
        Openings::new(self)
    }
}
