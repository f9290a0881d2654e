//! Who holds a contested overlay address or name.
//!
//! Each machine binds an address and a name to the first peer that claims it in an authenticated session,
//! stores that, and keeps it while the holder is live or was seen within [`KEEP`]. In the first
//! [`SETTLE`] of a binding, a better claim replaces it: configured beats auto, then the lower id. So two
//! machines that appear together are ordered alike everywhere, and no clock and no order of arrival decides;
//! afterwards the holder is safe.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::PeerId;
use crate::sans::Instant;

/// How long a holder that is gone keeps what it held.
pub const KEEP: Duration = Duration::from_hours(7 * 24);
/// How long a new binding is open to a better claim; as long as an `auto` claimant may still move.
pub const SETTLE: Duration = Duration::from_secs(10);
/// Bindings that are kept at once: those of all peers that can be here, and as many again.
pub const MOST: usize = 2_048;

/// How strongly something is claimed; the smaller wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strength {
    /// Written in net.toml.
    Configured,
    /// Derived.
    Auto,
}

/// A claim to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// How strongly.
    pub strength: Strength,
    /// By whom.
    pub peer: PeerId,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    claim: Claim,
    live: bool,
    /// Last seen, milliseconds of wall time; meaningful while not live.
    seen_ms: u64,
    /// From when on a better claim no longer counts.
    settled: Instant,
}

/// One kind of thing (addresses, or names) and who holds each.
#[derive(Debug)]
pub struct Bindings<K> {
    holders: BTreeMap<K, Holder>,
    evicted: u64,
}

/// A binding as it is stored between runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored<K> {
    /// What is held.
    pub key: K,
    /// By whom.
    pub claim: Claim,
    /// When the holder was last seen, milliseconds of wall time.
    pub seen_ms: u64,
}

impl<K> Default for Bindings<K> {
    fn default() -> Self {
        Self { holders: BTreeMap::new(), evicted: 0 }
    }
}

impl<K: Ord + Clone> Bindings<K> {
    /// Bindings of an earlier run: settled, nobody live.
    pub fn restore(stored: impl IntoIterator<Item = Stored<K>>) -> Self {
        let holder = |s: &Stored<K>| Holder { claim: s.claim, live: false, seen_ms: s.seen_ms, settled: Instant::ZERO };
        Self { holders: stored.into_iter().map(|s| (s.key.clone(), holder(&s))).collect(), evicted: 0 }
    }

    /// What to store.
    pub fn store(&self, wall_ms: u64) -> Vec<Stored<K>> {
        let seen = |h: &Holder| if h.live { seen_now(h.seen_ms, wall_ms) } else { h.seen_ms };
        self.holders.iter().map(|(k, h)| Stored { key: k.clone(), claim: h.claim, seen_ms: seen(h) }).collect()
    }

    /// A live peer claims `key`. `Ok` says who lost it by that, if anybody; `Err` names the holder that keeps it.
    pub fn claim(&mut self, now: Instant, wall_ms: u64, key: K, claim: Claim) -> Result<Option<PeerId>, PeerId> {
        let fresh = Holder { claim, live: true, seen_ms: wall_ms, settled: now + SETTLE };
        match self.holders.get_mut(&key) {
            Some(holder) if holder.claim.peer == claim.peer && holder.is_kept(wall_ms) => {
                holder.claim = claim;
                holder.live = true;
                Ok(None)
            }
            Some(holder) if holder.is_kept(wall_ms) && (now >= holder.settled || holder.claim < claim) => {
                Err(holder.claim.peer)
            }
            Some(holder) => {
                let loser = holder.live.then_some(holder.claim.peer);
                *holder = fresh;
                Ok(loser)
            }
            None => {
                self.make_room();
                self.holders.insert(key, fresh);
                Ok(None)
            }
        }
    }

    /// Of those who are gone the one that came last is not kept, if there are too many: devices are invented easily.
    fn make_room(&mut self) {
        if self.holders.len() < MOST {
            return;
        }
        let gone = self.holders.iter().filter(|(_, holder)| !holder.live);
        let last = gone.max_by_key(|(_, holder)| holder.settled).map(|(key, _)| key.clone());
        if let Some(key) = last {
            self.holders.remove(&key);
            self.evicted += 1;
        }
    }

    /// Bindings of those who are gone that made room for others.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Who holds `key`.
    pub fn holder(&self, key: &K, wall_ms: u64) -> Option<PeerId> {
        self.holders.get(key).filter(|h| h.is_kept(wall_ms)).map(|h| h.claim.peer)
    }

    /// Whether `key` was bound in an earlier run, and kept since.
    pub fn is_of_an_earlier_run(&self, key: &K) -> bool {
        self.holders.get(key).is_some_and(|holder| holder.settled == Instant::ZERO)
    }

    /// Whether a live or remembered holder other than `peer` has `key`; expired ones count until they are swept.
    pub fn is_held_by_another(&self, key: &K, peer: &PeerId) -> bool {
        self.holders.get(key).is_some_and(|holder| holder.claim.peer != *peer)
    }

    /// A peer is gone: its bindings begin to age.
    pub fn gone(&mut self, peer: &PeerId, wall_ms: u64) {
        for holder in self.holders.values_mut().filter(|h| h.claim.peer == *peer && h.live) {
            holder.live = false;
            holder.seen_ms = seen_now(holder.seen_ms, wall_ms);
        }
    }

    /// Frees everything that `peer` holds but `keep`.
    pub fn release_all_but(&mut self, peer: &PeerId, keep: Option<&K>) {
        self.holders.retain(|k, h| h.claim.peer != *peer || Some(k) == keep);
    }

    /// Drops what is kept no longer.
    pub fn expire(&mut self, wall_ms: u64) {
        self.holders.retain(|_, h| h.is_kept(wall_ms));
    }
}

/// When somebody who is here now was last seen, where `before` is what was stored: a clock that nobody has set yet makes
/// nobody older.
pub fn seen_now(before: u64, wall_ms: u64) -> u64 {
    /// The beginning of 2026: earlier than that there was no punchlan.
    const SET_MS: u64 = 1_767_225_600_000;
    if wall_ms < SET_MS { wall_ms.max(before) } else { wall_ms }
}

impl Holder {
    fn is_kept(&self, wall_ms: u64) -> bool {
        self.live || u128::from(wall_ms.saturating_sub(self.seen_ms)) < KEEP.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Instant = Instant::from_nanos(1_000_000_000);
    const DAY_MS: u64 = 86_400_000;

    fn claim(strength: Strength, n: u8) -> Claim {
        Claim { strength, peer: PeerId([n; 32]) }
    }

    #[test]
    fn together_the_better_claim_wins_in_either_order() {
        let (auto1, auto2, configured3) =
            (claim(Strength::Auto, 1), claim(Strength::Auto, 2), claim(Strength::Configured, 3));
        for order in [[auto1, auto2, configured3], [configured3, auto2, auto1], [auto2, configured3, auto1]] {
            let mut b = Bindings::default();
            for c in order {
                let _ = b.claim(T0, 0, "bob", c);
            }
            assert_eq!(b.holder(&"bob", 0), Some(configured3.peer), "{order:?}");
        }
    }

    #[test]
    fn a_settled_holder_is_safe_from_better_claims() {
        let mut b = Bindings::default();
        assert_eq!(b.claim(T0, 0, "bob", claim(Strength::Auto, 2)), Ok(None));
        let late = T0 + SETTLE;
        assert_eq!(b.claim(late, 0, "bob", claim(Strength::Configured, 1)), Err(PeerId([2; 32])));
    }

    #[test]
    fn the_loser_of_a_takeover_is_named() {
        let mut b = Bindings::default();
        assert_eq!(b.claim(T0, 0, "bob", claim(Strength::Auto, 2)), Ok(None));
        assert_eq!(b.claim(T0, 0, "bob", claim(Strength::Auto, 1)), Ok(Some(PeerId([2; 32]))));
    }

    #[test]
    fn a_holder_that_is_gone_keeps_its_binding_for_seven_days() {
        let mut b = Bindings::default();
        assert_eq!(b.claim(T0, 0, "bob", claim(Strength::Auto, 2)), Ok(None));
        b.gone(&PeerId([2; 32]), 0);
        let mut b = Bindings::restore(b.store(0));
        let other = claim(Strength::Configured, 1);
        assert_eq!(b.claim(T0, 6 * DAY_MS, "bob", other), Err(PeerId([2; 32])));
        assert_eq!(b.claim(T0, 8 * DAY_MS, "bob", other), Ok(None));
        assert_eq!(b.holder(&"bob", 8 * DAY_MS), Some(other.peer));
    }

    #[test]
    fn an_expired_holder_loses_even_to_a_weaker_claim() {
        let mut b = Bindings::restore([Stored { key: "bob", claim: claim(Strength::Configured, 1), seen_ms: 0 }]);
        assert_eq!(b.claim(T0, 8 * DAY_MS, "bob", claim(Strength::Auto, 9)), Ok(None));
        assert_eq!(b.holder(&"bob", 8 * DAY_MS), Some(PeerId([9; 32])));
    }

    #[test]
    fn devices_that_come_and_go_without_end_crowd_nobody_out() {
        let mut b: Bindings<u32> = Bindings::default();
        let (friend, stranger) = (claim(Strength::Auto, 1), |n: u32| {
            let mut id = [2; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            Claim { strength: Strength::Configured, peer: PeerId(id) }
        });
        assert_eq!(b.claim(T0, 0, 0, friend), Ok(None));
        b.gone(&friend.peer, 0);
        for n in 1..5_000_u32 {
            assert_eq!(b.claim(T0 + Duration::from_millis(n.into()), 0, n, stranger(n)), Ok(None));
            b.gone(&stranger(n).peer, 0);
        }
        assert_eq!((b.holders.len(), b.evicted()), (MOST, 5_000 - MOST as u64));
        assert_eq!(b.holder(&0, 0), Some(friend.peer), "who was here before keeps what it had");
        assert_eq!(b.holder(&4_999, 0), Some(stranger(4_999).peer));
    }

    #[test]
    fn forgetting_frees_at_once() {
        let mut b = Bindings::default();
        assert_eq!(b.claim(T0, 0, "bob", claim(Strength::Auto, 2)), Ok(None));
        b.release_all_but(&PeerId([2; 32]), None);
        assert_eq!(b.holder(&"bob", 0), None);
    }

    #[test]
    fn a_wall_clock_set_back_frees_nothing() {
        let mut b = Bindings::restore([Stored { key: "bob", claim: claim(Strength::Auto, 1), seen_ms: 30 * DAY_MS }]);
        assert_eq!(b.claim(T0, 0, "bob", claim(Strength::Configured, 2)), Err(PeerId([1; 32])));
    }
}
