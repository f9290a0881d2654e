//! Which multicast groups the programs of this machine are in, on which interface. The kernel's own lists are read again
//! whenever it tells of a change (Linux 6.14 and later do), and once a second where it does not.
//!
//! How many are in a group is told by nobody, so that is looked after now and then everywhere.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use rtnetlink::sys::{Socket, constants::NETLINK_ROUTE};

use super::held::Held;
use crate::io::interfaces::is_ours;
use crate::io::watched::{self, Watched};
use crate::wire::beacon::{GROUP_V4, GROUP_V6};

/// The kernel's lists, of the namespace that we are in.
const V4: &str = "/proc/thread-self/net/igmp";
const V6: &str = "/proc/thread-self/net/igmp6";
/// The groups of netlink in which changes are told (linux/rtnetlink.h).
const RTNLGRP_IPV4_MCADDR: u32 = 37;
const RTNLGRP_IPV6_MCADDR: u32 = 38;
/// Where the kernel does not tell…
const ONCE_A_SECOND: Duration = Duration::from_secs(1);
/// …and where it does.
const NOW_AND_THEN: Duration = Duration::from_secs(15);
/// Changes come in bursts; this long is waited for the rest of one.
const SETTLE: Duration = Duration::from_millis(20);

/// Programs are in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Membership {
    /// The group.
    pub group: IpAddr,
    /// On this interface, by its index.
    pub interface: u32,
    /// So often.
    pub users: u32,
}

/// The groups, from the moment this was made.
#[derive(Debug)]
pub struct Groups {
    ours: u32,
    held: Held,
    changes: Option<Watched>,
    /// The lists as they were read last.
    lists: Option<(String, String)>,
}

impl Groups {
    /// Nothing was read yet. `ours`: the index of this overlay's interface; those of others are not looked at, nor the
    /// loopback one. Must be called inside a tokio runtime.
    pub fn watch(ours: u32) -> Self {
        let changes = changes().inspect_err(|error| tracing::debug!(%error, "groups are read once a second"));
        Self { ours, held: Held::new(ours), changes: changes.ok(), lists: None }
    }

    /// Waits until they are others than the last time; the first time does not wait. May be dropped and called again at
    /// any time.
    ///
    /// # Errors
    /// The kernel does not say which there are.
    pub async fn next(&mut self) -> io::Result<BTreeSet<Membership>> {
        loop {
            if self.lists.is_some() {
                self.change().await;
            }
            // A system without IPv6 has no such list.
            let lists = (fs::read_to_string(V4)?, fs::read_to_string(V6).unwrap_or_default());
            if self.lists.as_ref() == Some(&lists) {
                continue;
            }
            let joined = v4(&lists.0).chain(v6(&lists.1)).filter(|(name, joined)| self.counts(name, joined));
            let joined: Vec<Membership> = joined.map(|(_, joined)| joined).collect();
            self.lists = Some(lists);
            let mut wanted = self.held.follow(joined.iter().copied());
            wanted.extend(joined.into_iter().filter(|joined| joined.group.is_ipv4()));
            return Ok(wanted);
        }
    }

    /// Whether it is a program's, and of account: not where this machine says that it is here, and not what the kernel
    /// joins for each address.
    fn counts(&self, interface: &str, joined: &Membership) -> bool {
        let is_elsewhere = interface == "lo" || is_ours(interface);
        let is_own = match joined.group {
            IpAddr::V4(group) => group == GROUP_V4,
            IpAddr::V6(group) => {
                let stays_inside = group.octets()[1] & 0xf == INTERFACE_LOCAL;
                group == GROUP_V6 || stays_inside || group.to_bits() >> 24 == SOLICITED_NODE.to_bits() >> 24
            }
        };
        !is_own && (joined.interface == self.ours || !is_elsewhere)
    }

    /// Waits until they may be others.
    async fn change(&mut self) {
        let Some(changes) = &self.changes else { return tokio::time::sleep(ONCE_A_SECOND).await };
        if let Ok(Err(error)) = tokio::time::timeout(NOW_AND_THEN, changes.read(told)).await {
            // Some were lost: something has changed.
            tracing::debug!(%error, "changes of groups");
        }
        tokio::time::sleep(SETTLE).await;
        let _ = told_all(changes).await;
    }
}

/// Takes what was told, which is of no interest itself.
fn told(fd: &OwnedFd) -> io::Result<usize> {
    Ok(recv(fd.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_TRUNC)?)
}

/// Takes all that was told until now.
async fn told_all(changes: &Watched) -> io::Result<()> {
    tokio::time::timeout(
        Duration::ZERO,
        changes.read(|fd| {
            loop {
                told(fd)?;
            }
        }),
    )
    .await
    .unwrap_or(Ok(()))
}

/// Where changes are told.
fn changes() -> io::Result<Watched> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    for group in [RTNLGRP_IPV4_MCADDR, RTNLGRP_IPV6_MCADDR] {
        socket.add_membership(group)?;
    }
    watched::readable(std::os::fd::AsFd::as_fd(&socket).try_clone_to_owned()?)
}

/// The scope of what leaves no machine (RFC 4291 §2.7).
const INTERFACE_LOCAL: u8 = 1;
/// With any last 24 bits (RFC 4291 §2.7.1).
const SOLICITED_NODE: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0);

/// Reads the list of IPv4: a line for each interface, and below it one for each of its groups. With the interfaces' names.
fn v4(list: &str) -> impl Iterator<Item = (&str, Membership)> {
    let mut on = None;
    list.lines().skip(1).filter_map(move |line| {
        let mut words = line.split_ascii_whitespace();
        if line.starts_with(|first: char| first.is_ascii_digit()) {
            on = words.next()?.parse().ok().zip(words.next().map(|name| name.trim_end_matches(':')));
            return None;
        }
        // As it stands in memory.
        let group = u32::from_str_radix(words.next()?, 16).ok()?;
        let group = Ipv4Addr::from(group.to_ne_bytes()).into();
        let (interface, name) = on?;
        Some((name, Membership { group, interface, users: words.next()?.parse().ok()? }))
    })
}

/// Reads the list of IPv6: a line for each group on each interface.
fn v6(list: &str) -> impl Iterator<Item = (&str, Membership)> {
    list.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (interface, name) = (words.next()?.parse().ok()?, words.next()?);
        let group = u128::from_str_radix(words.next()?, 16).ok()?;
        Some((name, Membership { group: Ipv6Addr::from(group).into(), interface, users: words.next()?.parse().ok()? }))
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn joined(group: &str, interface: u32, users: u32) -> Membership {
        Membership { group: group.parse().unwrap(), interface, users }
    }

    #[test]
    fn the_kernels_lists_are_read() {
        let (one, two) = (u32::from_ne_bytes([224, 0, 0, 1]), u32::from_ne_bytes([239, 255, 255, 250]));
        let list = format!(
            "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        :     1      V3\n\
             \t\t\t\t{one:08X}     1 0:00000000\t\t0\n12\tenp0s31f6:     2      V3\n\
             \t\t\t\t{two:08X}     3 0:00000000\t\t1\n\t\t\t\t{one:08X}     1 0:00000000\t\t0\n"
        );
        let expected = [
            ("lo", joined("224.0.0.1", 1, 1)),
            ("enp0s31f6", joined("239.255.255.250", 12, 3)),
            ("enp0s31f6", joined("224.0.0.1", 12, 1)),
        ];
        assert_eq!(v4(&list).collect::<Vec<_>>(), expected);
        let list = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n\
                    12   eth0            ff150000000000000000000000001234     2 00000004 0\nnonsense\n";
        let expected = [("lo", joined("ff02::1", 1, 1)), ("eth0", joined("ff15::1234", 12, 2))];
        assert_eq!(v6(list).collect::<Vec<_>>(), expected);
        for nonsense in ["", "\n\n", "a\n\tb", "head\n1 lo\n\tZZ 1\n\t01020304"] {
            assert_eq!(v4(nonsense).chain(v6(nonsense)).count(), 0, "{nonsense:?}");
        }
    }

    #[test]
    fn what_the_kernel_and_our_own_beacons_join_does_not_count_nor_what_is_joined_on_another_overlay() {
        let groups = Groups { ours: 7, held: Held::new(7), changes: None, lists: None };
        for group in ["ff02::1:ff12:3456", "ff01::1", &GROUP_V4.to_string(), &GROUP_V6.to_string()] {
            assert!(!groups.counts("eth0", &joined(group, 2, 1)), "{group}");
        }
        for group in ["224.0.0.1", "224.0.2.60", "ff02::1", "ff02::1:3", "ff15::1234"] {
            assert!(groups.counts("eth0", &joined(group, 2, 1)), "{group}");
            assert!(groups.counts("punch0", &joined(group, 7, 1)), "{group}");
            assert!(!groups.counts("punch1", &joined(group, 8, 1)) && !groups.counts("lo", &joined(group, 1, 1)));
        }
    }

    #[test]
    fn groups_of_ipv6_are_held_on_the_overlays_interface_for_as_long_as_a_program_is_in_them() {
        let ours = nix::net::if_::if_nametoindex("lo").unwrap();
        let mut held = Held::new(ours);
        let mut follow = |joined: &[Membership]| held.follow(joined.iter().copied()).into_iter().collect::<Vec<_>>();
        let (elsewhere, here) = (joined("ff15::77:1", ours + 1, 2), joined("ff15::77:1", ours, 1));
        assert_eq!(follow(&[elsewhere]), [here]);
        let listed = || v6(&fs::read_to_string(V6).unwrap()).filter(|(_, joined)| *joined == here).count();
        assert_eq!(listed(), 1);
        assert_eq!(follow(&[elsewhere, here]), [here]);
        // A program here joins too, and then both leave.
        assert_eq!(follow(&[joined("ff15::77:1", ours, 2)]), [here]);
        assert_eq!((follow(&[here]), listed()), (vec![], 0));
        assert_eq!(follow(&[here]), [here], "a program's again");
    }

    #[tokio::test]
    async fn a_program_that_joins_and_leaves_is_told_of() {
        let group = Ipv4Addr::new(239, 77, 1, 1);
        let has = |joined: &BTreeSet<Membership>| joined.iter().any(|joined| joined.group == IpAddr::from(group));
        let mut groups = Groups::watch(nix::net::if_::if_nametoindex("lo").unwrap());
        assert!(!has(&groups.next().await.unwrap()));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
        while !has(&groups.next().await.unwrap()) {}
        drop(socket);
        while has(&groups.next().await.unwrap()) {}
    }
}
