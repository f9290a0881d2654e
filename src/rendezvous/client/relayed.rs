//! What goes through the server to another member: the numbers of channels and the keys of their frames.

use std::ops::Range;

use super::Client;
use super::attempt::Attempt;
use super::link::Link;
use crate::crypto::relay::RelayKey;
use crate::id::{Origin, PeerId};
use crate::wire::relay;

impl Client {
    /// The header that makes a datagram a relay frame to `peer`, if the channel is open on both ends.
    pub fn relay_header(&self, peer: &PeerId, payload: &[u8]) -> Option<[u8; relay::HEADER]> {
        let channel = self.wishes.channel(peer).filter(|channel| channel.open)?.number;
        let tag = self.link.as_ref()?.keys.relay_to_server.tag(channel, payload);
        Some(relay::Header { channel, tag }.encode())
    }

    /// Who sent a relay frame, and where in it the datagram is, if it is genuine.
    pub fn relay_open(&self, frame: &mut [u8], from: impl Into<Origin>) -> Option<(PeerId, Range<usize>)> {
        let (header, payload) = relay::Header::parse(frame).ok()?;
        let from = from.into();
        let mut links = self.relay_links().into_iter().flatten().filter(|link| link.origin() == from);
        let peer = self.wishes.peer_of(header.channel)?;
        links
            .any(|link| link.keys.relay_to_peer.check(header.channel, payload, header.tag))
            .then_some((peer, relay::HEADER..frame.len()))
    }

    /// The number of the channel to `peer` and the key that tags what goes through it, if it is open on both ends.
    pub fn relay_out(&self, peer: &PeerId) -> Option<(u32, RelayKey)> {
        let channel = self.wishes.channel(peer).filter(|channel| channel.open)?;
        Some((channel.number, self.link.as_ref()?.keys.relay_to_server.clone()))
    }

    /// The number of the channel to `peer` and the keys that what comes through it may be tagged by.
    pub fn relay_in(&self, peer: &PeerId) -> Option<(u32, Vec<RelayKey>)> {
        let number = self.wishes.channel(peer)?.number;
        let server = self.link.as_ref()?.at;
        let links = self.relay_links().into_iter().flatten().filter(|link| link.at == server);
        Some((number, links.map(|link| link.keys.relay_to_peer.clone()).collect()))
    }

    /// Tells registrations apart: where it is another, so are the keys of all channels.
    pub fn relay_stamp(&self) -> [Option<u32>; 3] {
        self.relay_links().map(|link| link.map(|link| link.handle))
    }

    /// Whose keys a relay frame may be tagged by.
    fn relay_links(&self) -> [Option<&Link>; 3] {
        let pending = match &self.attempt {
            Attempt::Registering(registering) => Some(&registering.link),
            _ => None,
        };
        [self.link.as_ref(), pending, self.former.as_ref()]
    }
}
