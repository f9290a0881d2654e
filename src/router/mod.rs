//! L4: which peer owns an overlay address, in both directions.
//!
//! Outwards, [`Router::route`] looks up who gets a packet from the TUN; what the kernel says to the link itself stays here.
//! Inwards, [`Router::guard`] drops what a peer may not send: a source that is not one of its addresses, a destination that
//! is not one of ours, what would change our routes, neighbours or groups; and what the user does not let in ([`filter`]).
//! Which peer holds a contested address or name is decided by [`bindings`], once, for both directions.

pub mod bindings;
pub mod filter;
pub mod games;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use self::filter::Filter;
use crate::addr::OverlayNet;
use crate::id::PeerId;
use crate::wire::ip::{self, Addresses};

/// The addresses of one machine. The IPv6 ones derive from its id; IPv4 may be lost to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Overlay IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Overlay ULA address.
    pub ula: Ipv6Addr,
    /// Derived link-local address.
    pub link_local: Ipv6Addr,
}

impl Owned {
    /// All of them, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain([IpAddr::V6(self.ula), IpAddr::V6(self.link_local)])
    }
}

/// Who gets a packet from the TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// One peer.
    Peer(PeerId),
    /// All of them who want it: broadcast or multicast, to this address.
    Everyone(IpAddr),
    /// Nobody, and why.
    Drop(Reason),
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is not an IP packet.
    NotIp,
    /// Nobody has the destination address.
    NoSuchAddress,
    /// A program here sent from an address that is not this machine's on the overlay.
    SourceNotOurs,
    /// A peer sent from an address that is not its own.
    SourceNotOwned,
    /// A peer sent to an address that is not ours.
    DestinationNotOurs,
    /// The kernel here said something to its link, which ends here.
    LinkMessage,
    /// A peer tried to change how this machine routes, or spoke as its link.
    RouterMessage,
    /// The user does not let members speak to that port first.
    NotAllowed,
}

impl Reason {
    /// Its word under `counters.drop` in `status`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotIp => "not-ip",
            Self::NoSuchAddress => "no-such-address",
            Self::SourceNotOurs => "source-not-ours",
            Self::SourceNotOwned => "source-not-owned",
            Self::DestinationNotOurs => "destination-not-ours",
            Self::LinkMessage => "link-message",
            Self::RouterMessage => "router-message",
            Self::NotAllowed => "not-allowed",
        }
    }
}

/// The overlay's routing table: one entry per machine.
#[derive(Clone, Debug)]
pub struct Router {
    overlay: OverlayNet,
    me: Owned,
    peers: BTreeMap<PeerId, Owned>,
    by_address: BTreeMap<IpAddr, PeerId>,
    filter: Filter,
}

impl Router {
    /// A router that knows this machine alone.
    pub const fn new(overlay: OverlayNet, me: Owned) -> Self {
        Self { overlay, me, peers: BTreeMap::new(), by_address: BTreeMap::new(), filter: Filter::EVERYTHING }
    }

    /// The subnet's broadcast address.
    pub fn broadcast(&self) -> Ipv4Addr {
        self.overlay.v4.broadcast()
    }

    /// This machine's addresses.
    pub const fn me(&self) -> &Owned {
        &self.me
    }

    /// Changes this machine's IPv4 address.
    pub fn set_my_v4(&mut self, v4: Option<Ipv4Addr>) {
        self.me.v4 = v4;
    }

    /// What members may send to this machine's programs.
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Changes that.
    pub fn set_filter(&mut self, filter: Filter) {
        self.filter = filter;
    }

    /// Whether a peer has these addresses, and each of them leads to it.
    pub fn says(&self, peer: &PeerId, owned: &Owned) -> bool {
        self.peers.get(peer) == Some(owned) && owned.iter().all(|address| self.owner(address) == Some(*peer))
    }

    /// Sets the addresses of a peer. The caller has settled who holds them (see [`bindings`]).
    pub fn insert(&mut self, peer: PeerId, owned: Owned) {
        self.remove(&peer);
        for address in owned.iter() {
            self.by_address.insert(address, peer);
        }
        self.peers.insert(peer, owned);
    }

    /// Forgets a peer's addresses.
    pub fn remove(&mut self, peer: &PeerId) {
        if let Some(old) = self.peers.remove(peer) {
            for address in old.iter().filter(|a| self.by_address.get(a) == Some(peer)).collect::<Vec<_>>() {
                self.by_address.remove(&address);
            }
        }
    }

    /// The addresses of a peer.
    pub fn owned(&self, peer: &PeerId) -> Option<&Owned> {
        self.peers.get(peer)
    }

    /// Who has an overlay address.
    pub fn owner(&self, address: IpAddr) -> Option<PeerId> {
        self.by_address.get(&address).copied()
    }

    /// Who gets a packet that a program on this machine sent into the overlay.
    pub fn route(&self, packet: &[u8]) -> Route {
        let Ok(Addresses { source, destination }) = ip::addresses(packet) else { return Route::Drop(Reason::NotIp) };
        if ip::is_link_message(packet) {
            return Route::Drop(Reason::LinkMessage);
        }
        if !self.me.iter().any(|a| a == source) {
            return Route::Drop(Reason::SourceNotOurs);
        }
        self.filter.sent(packet);
        match self.owner(destination) {
            Some(peer) => Route::Peer(peer),
            None if ip::is_fan_out(destination, self.broadcast()) => Route::Everyone(destination),
            None => Route::Drop(Reason::NoSuchAddress),
        }
    }

    /// Whether `peer` may send us this packet, and then where it goes if that is not to us alone.
    pub fn guard(&self, peer: &PeerId, packet: &[u8]) -> Result<Option<IpAddr>, Reason> {
        let Addresses { source, destination } = ip::addresses(packet).map_err(|_| Reason::NotIp)?;
        let owns_source = self.peers.get(peer).is_some_and(|owned| owned.iter().any(|a| a == source));
        if !owns_source {
            return Err(Reason::SourceNotOwned);
        }
        let ours = self.me.iter().any(|a| a == destination);
        if !ours && !ip::is_fan_out(destination, self.broadcast()) {
            return Err(Reason::DestinationNotOurs);
        }
        if ip::is_link_message(packet) {
            return Err(Reason::RouterMessage);
        }
        self.filter.admits(packet).then_some(()).ok_or(Reason::NotAllowed)?;
        Ok((!ours).then_some(destination))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::tests::{icmpv6, udp};

    const ALICE: PeerId = PeerId([1; 32]);
    const BOB: PeerId = PeerId([2; 32]);

    fn owned(n: u8) -> Owned {
        Owned {
            v4: Some(Ipv4Addr::new(10, 77, 0, n)),
            ula: format!("fd00::{n}").parse().expect("ula"),
            link_local: format!("fe80::{n}").parse().expect("link-local"),
        }
    }

    fn router() -> Router {
        let overlay = OverlayNet { v4: "10.77.0.0/24".parse().expect("v4"), v6: "fd00::/64".parse().expect("v6") };
        let mut router = Router::new(overlay, owned(9));
        router.insert(ALICE, owned(1));
        router.insert(BOB, owned(2));
        router
    }

    #[test]
    fn packets_go_to_the_owner_of_their_destination() {
        let r = router();
        assert_eq!(r.route(&udp("10.77.0.9", "10.77.0.1")), Route::Peer(ALICE));
        assert_eq!(r.route(&udp("fd00::9", "fd00::2")), Route::Peer(BOB));
        assert_eq!(r.route(&udp("fe80::9", "fe80::2")), Route::Peer(BOB));
        assert_eq!(r.route(&udp("10.77.0.9", "10.77.0.77")), Route::Drop(Reason::NoSuchAddress));
        assert_eq!(r.route(&udp("192.168.1.1", "10.77.0.1")), Route::Drop(Reason::SourceNotOurs));
        assert_eq!(r.route(&[]), Route::Drop(Reason::NotIp));
        for everyone in ["10.77.0.255", "255.255.255.255", "224.0.0.251"] {
            let to = everyone.parse().expect("an address");
            assert_eq!(r.route(&udp("10.77.0.9", everyone)), Route::Everyone(to));
        }
        let group = "ff02::fb".parse().expect("an address");
        assert_eq!(r.route(&udp("fe80::9", "ff02::fb")), Route::Everyone(group));
    }

    #[test]
    fn a_peer_sends_only_from_its_own_addresses() {
        let r = router();
        assert_eq!(r.guard(&ALICE, &udp("10.77.0.1", "10.77.0.9")), Ok(None));
        assert_eq!(r.guard(&ALICE, &udp("10.77.0.2", "10.77.0.9")), Err(Reason::SourceNotOwned));
        assert_eq!(r.guard(&ALICE, &udp("10.77.0.9", "10.77.0.9")), Err(Reason::SourceNotOwned));
        assert_eq!(r.guard(&ALICE, &udp("fe80::2", "fe80::9")), Err(Reason::SourceNotOwned));
        assert_eq!(r.guard(&ALICE, &udp("192.168.1.1", "10.77.0.9")), Err(Reason::SourceNotOwned));
        assert_eq!(r.guard(&PeerId([3; 32]), &udp("10.77.0.1", "10.77.0.9")), Err(Reason::SourceNotOwned));
    }

    #[test]
    fn a_peer_sends_only_to_us_or_to_everyone() {
        let r = router();
        for many in ["10.77.0.255", "255.255.255.255", "239.1.2.3"] {
            let to = many.parse().expect("an address");
            assert_eq!(r.guard(&ALICE, &udp("10.77.0.1", many)), Ok(Some(to)));
        }
        for bad in ["10.77.0.2", "192.168.1.1", "127.0.0.1", "8.8.8.8"] {
            assert_eq!(r.guard(&ALICE, &udp("10.77.0.1", bad)), Err(Reason::DestinationNotOurs), "{bad}");
        }
        assert_eq!(r.guard(&ALICE, &udp("fd00::1", "::1")), Err(Reason::DestinationNotOurs));
    }

    #[test]
    fn what_the_kernel_says_to_its_link_goes_to_nobody_and_comes_from_nobody() {
        let r = router();
        for (to, kind) in
            [("ff02::2", 133), ("ff02::1", 134), ("ff02::1:ff00:2", 135), ("fe80::9", 136), ("ff02::16", 143)]
        {
            for from in ["fe80::9", "::"] {
                assert_eq!(r.route(&icmpv6(from, to, kind)), Route::Drop(Reason::LinkMessage), "{kind} from {from}");
            }
            assert!(r.guard(&ALICE, &icmpv6("::", to, kind)).is_err(), "{kind} from ::");
            assert_eq!(r.guard(&ALICE, &icmpv6("fe80::1", to, kind)).err(), Some(Reason::RouterMessage), "{kind}");
        }
        assert_eq!(r.route(&icmpv6("fe80::9", "fe80::1", 128)), Route::Peer(ALICE), "a ping");
        assert!(r.guard(&ALICE, &icmpv6("fe80::1", "fe80::9", 128)).is_ok(), "a ping");
    }

    #[test]
    fn a_removed_peer_owns_nothing() {
        let mut r = router();
        r.remove(&ALICE);
        assert_eq!(r.route(&udp("10.77.0.9", "10.77.0.1")), Route::Drop(Reason::NoSuchAddress));
        assert_eq!(r.guard(&ALICE, &udp("10.77.0.1", "10.77.0.9")), Err(Reason::SourceNotOwned));
    }

    #[test]
    fn an_address_that_moved_stays_with_its_new_owner_when_the_old_one_goes() {
        let mut r = router();
        r.insert(BOB, Owned { v4: Some(Ipv4Addr::new(10, 77, 0, 1)), ..owned(2) });
        r.remove(&ALICE);
        assert_eq!(r.owner("10.77.0.1".parse().expect("address")), Some(BOB));
    }
}
