//! Who may connect while peers are listened for: some at once from everywhere, few from one source, and not too often. They
//! are nobody until they prove to be peers, so they take no more than this from those who are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::addr::site;
use crate::sans::{Instant, RateLimit};

/// Streams at once that others have begun: some for each peer, and some for strangers who find the port.
const MOST: usize = 64;
/// Of them, from one source: friends of one house, or behind one carrier's address.
const OF_ONE: usize = 16;
/// A second, and at once.
const RATE: u32 = 20;

/// The gate. Share it by cloning.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Mutex<Inside>>);

#[derive(Debug)]
struct Inside {
    rate: RateLimit,
    by_site: BTreeMap<IpNet, usize>,
}

/// One who is inside, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Gate,
    site: IpNet,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inside { rate: RateLimit::new(RATE, RATE), by_site: BTreeMap::new() })))
    }

    /// Lets somebody in, if there is room.
    pub(super) fn enter(&self, now: Instant, ip: IpAddr) -> Option<Place> {
        let (site, mut inside) = (site(ip), self.inside());
        let has_room = inside.by_site.values().sum::<usize>() < MOST;
        let from_there = inside.by_site.get(&site).copied().unwrap_or(0);
        if !has_room || from_there >= OF_ONE || !inside.rate.allow(now) {
            return None;
        }
        inside.by_site.insert(site, from_there + 1);
        Some(Place { gate: self.clone(), site })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.gate.inside();
        if let Some(count) = inside.by_site.get_mut(&self.site) {
            *count -= 1;
            if *count == 0 {
                inside.by_site.remove(&self.site);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_source_and_all_together_have_so_many_places_which_come_free() {
        let (gate, mut now, mut inside) = (Gate::new(), Instant::from_nanos(1), Vec::new());
        let mut enter = |gate: &Gate, site: u8| {
            now += Duration::from_secs(1);
            gate.enter(now, [203, 0, 113, site].into())
        };
        inside.extend((0..100).filter_map(|_| enter(&gate, 1)));
        assert_eq!(inside.len(), OF_ONE);
        inside.extend((0..100).filter_map(|n| enter(&gate, 2 + n)));
        assert_eq!(inside.len(), MOST);
        inside.truncate(OF_ONE - 1);
        assert!(enter(&gate, 1).is_some() && gate.inside().by_site.len() == 1);
    }

    #[test]
    fn whoever_comes_and_goes_does_so_at_a_pace() {
        let (gate, now) = (Gate::new(), Instant::from_nanos(1));
        let let_in = (0..1_000).filter(|_| gate.enter(now, [203, 0, 113, 1].into()).is_some()).count();
        assert_eq!(let_in, usize::try_from(RATE).expect("few"));
    }
}
