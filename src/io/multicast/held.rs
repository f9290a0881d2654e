//! The groups of IPv6 that we are in on the overlay's interface, for programs that are in them on another.
//!
//! A socket of IPv6 hears its groups from whichever interface they come, if only somebody is in them there. So what comes
//! from the overlay reaches it as what it is, and its answers to a link-local address go where that is.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

use socket2::{Domain, Protocol, Socket, Type};

use super::Membership;

/// Our memberships.
#[derive(Debug)]
pub(super) struct Held {
    ours: u32,
    socket: Option<Socket>,
    groups: BTreeSet<Ipv6Addr>,
}

impl Held {
    /// None yet. `ours`: the index of the overlay's interface.
    pub(super) fn new(ours: u32) -> Self {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP));
        let socket = socket.inspect_err(|error| tracing::debug!(%error, "no groups of IPv6")).ok();
        Self { ours, socket, groups: BTreeSet::new() }
    }

    /// Joins what programs have joined, and leaves what they have left; what is to be delivered to the overlay's interface
    /// then.
    pub(super) fn follow(&mut self, joined: impl Iterator<Item = Membership>) -> BTreeSet<Membership> {
        let mut wanted = BTreeSet::new();
        for Membership { group, interface, users } in joined {
            let IpAddr::V6(group) = group else { continue };
            // What we hold is not to hold itself.
            if interface != self.ours || users > u32::from(self.groups.contains(&group)) {
                wanted.insert(group);
            }
        }
        let gone: Vec<Ipv6Addr> = self.groups.difference(&wanted).copied().collect();
        gone.into_iter().for_each(|group| self.leave(group));
        for group in &wanted {
            if !self.groups.contains(group)
                && let Err(error) = self.join(*group)
            {
                tracing::debug!(%error, %group, "what members send to the group is not heard by all");
            }
        }
        wanted.into_iter().map(|group| Membership { group: group.into(), interface: self.ours, users: 1 }).collect()
    }

    fn join(&mut self, group: Ipv6Addr) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            socket.join_multicast_v6(&group, self.ours)?;
            self.groups.insert(group);
        }
        Ok(())
    }

    fn leave(&mut self, group: Ipv6Addr) {
        self.groups.remove(&group);
        if let Some(socket) = &self.socket {
            // It is gone with its interface.
            let _ = socket.leave_multicast_v6(&group, self.ours);
        }
    }
}
