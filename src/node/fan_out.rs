//! A packet for many goes out: broadcast, and multicast to those who want the group.
//!
//! 1. The table lets it out, or cuts a storm, before it costs anything ([`crate::forward`]).
//! 2. What is sent twice, or goes in circles, does not go on ([`crate::forward::Repeats`]).
//! 3. It is written once for each peer that wants it, and sealed where it stands.
//!
//! Packets that programs sent on a real LAN come in by another door and go the same way ([`crate::forward::Overheard`]).

use super::{HEADROOM, MTU, Node, Outbound, TAILROOM};
use crate::forward::{Door, Overheard, RealLan, Unsealed, pieces};
use crate::id::PeerId;
use crate::offload::tos;
use crate::sans::{Instant, Transmit};
use crate::wire::ip;

impl Node {
    /// A packet for many came from the TUN, and the table has let it out ([`Unsealed::Shared`]).
    pub fn handle_shared(&mut self, now: Instant, packet: &[u8]) {
        if !self.leaving {
            self.refresh(now);
            self.share(now, Door::Overlay, packet, |node| node.fan_out(now, packet));
        }
    }

    /// A program here sent a packet on a real LAN. If it is for many, it goes to the overlay's too, as if it had been sent
    /// there.
    pub fn handle_overheard(&mut self, now: Instant, lan: &RealLan<'_>, packet: &mut [u8]) {
        let Some(heard) = Overheard::read(packet, lan).filter(|_| !self.leaving) else { return };
        self.refresh(now);
        if self.table.let_out(now, heard.destination()) != Unsealed::Shared {
            return;
        }
        let Some(packet) = heard.adopt(packet, self.router.me(), self.router.broadcast()) else { return };
        self.router.filter().sent(packet);
        self.share(now, Door::RealLan(lan.interface), packet, |node| node.fan_out_pieces(now, packet));
    }

    fn share(&mut self, now: Instant, door: Door, packet: &[u8], fan_out: impl FnOnce(&mut Self)) {
        self.drain_many(now);
        match self.table.sharing().repeats.lets_out(now, door, packet) {
            Ok(()) => fan_out(self),
            Err(word) => self.drops.count(word),
        }
        self.attend(now);
        self.look_for_storm(now, None);
    }

    /// A real LAN's packets may be longer than the overlay's.
    fn fan_out_pieces(&mut self, now: Instant, packet: &[u8]) {
        if packet.len() <= usize::from(MTU) {
            return self.fan_out(now, packet);
        }
        self.cuts = self.cuts.wrapping_add(1);
        match pieces(packet, MTU.into(), self.cuts) {
            Some(pieces) => pieces.iter().for_each(|piece| self.fan_out(now, piece)),
            None => self.drops.count("too-big"),
        }
    }

    /// One sealing for each peer that wants it.
    fn fan_out(&mut self, now: Instant, packet: &[u8]) {
        let Ok(ip::Addresses { destination, .. }) = ip::addresses(packet) else { return };
        let tos = tos(packet);
        let mut otherwise: Vec<PeerId> = Vec::new();
        for (id, peer) in self.peers.iter() {
            if !peer.session.is_established(now) || !peer.groups.wants.want(destination) {
                continue;
            }
            let Some(egress) = self.table.egress(id) else {
                otherwise.push(*id);
                continue;
            };
            match egress.seal_copy(now, packet) {
                Ok(payload) => {
                    let (socket, to) = (egress.leg.socket, egress.leg.remote);
                    self.transmits.push_back(Transmit { socket, src: None, to, ttl: None, tos, payload });
                }
                Err(_) => self.drops.count("no-keys"),
            }
        }
        // Those with two ways at the moment, or with none.
        for id in otherwise {
            let mut framed = [&[0; HEADROOM][..], packet, &[0; TAILROOM]].concat();
            if let Outbound::Send { socket, to, range } = self.send_packet(now, &id, &mut framed) {
                let payload = framed[range].to_vec();
                self.transmits.push_back(Transmit { socket, src: None, to, ttl: None, tos, payload });
            }
        }
    }
}
