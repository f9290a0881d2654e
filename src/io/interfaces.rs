//! The addresses of this machine: what others may try to reach it at.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

/// Every address of every running interface with its prefix, sorted; without loopback and unspecified addresses,
/// link-local ones of IPv6, which mean nothing without their interface, and those of any overlay: of an interface named
/// `punchN`, or inside one of the prefixes `overlays`.
///
/// # Errors
/// The system does not list its interfaces.
pub fn list(overlays: &[IpNet]) -> io::Result<Vec<IpNet>> {
    let interfaces = if_addrs::get_if_addrs()?;
    let mut nets: Vec<IpNet> = interfaces
        .iter()
        .filter(|interface| interface.is_oper_up() && !is_ours(&interface.name))
        .filter_map(|interface| net(&interface.addr))
        .filter(|net| is_reachable(net.addr()) && !overlays.iter().any(|overlay| overlay.contains(&net.addr())))
        .collect();
    nets.sort_unstable();
    nets.dedup();
    Ok(nets)
}

/// The prefixes on all overlay interfaces of this machine, other networks' and other daemons' included.
///
/// # Errors
/// As [`list`].
pub fn overlays() -> io::Result<Vec<IpNet>> {
    let interfaces = if_addrs::get_if_addrs()?;
    let ours = interfaces.iter().filter(|interface| is_ours(&interface.name));
    Ok(ours.filter_map(|interface| net(&interface.addr)).map(|net| net.trunc()).collect())
}

/// Whether an interface of this name is one of ours: the prefix and a number.
pub(crate) fn is_ours(name: &str) -> bool {
    name.strip_prefix(super::tun::NAME_PREFIX)
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// An interface's address with its prefix length.
pub(crate) fn net(addr: &if_addrs::IfAddr) -> Option<IpNet> {
    let (ip, prefix) = match addr {
        if_addrs::IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
        if_addrs::IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
    };
    IpNet::new(ip, prefix).ok()
}

fn is_reachable(ip: IpAddr) -> bool {
    let is_of_its_link = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !is_of_its_link && !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_prefix_and_a_number_is_an_interface_of_ours() {
        assert!(is_ours("punch0") && is_ours("punch12"));
        assert!(!is_ours("punch") && !is_ours("punchy") && !is_ours("eth0") && !is_ours("xpunch0"));
    }

    #[test]
    fn addresses_that_nobody_can_reach_are_left_out() {
        let listed = list(&[]).expect("list");
        assert!(listed.iter().all(|net| is_reachable(net.addr())), "{listed:?}");
        let everything: Vec<IpNet> = ["0.0.0.0/0", "::/0"].iter().map(|n| n.parse().expect("net")).collect();
        assert_eq!(list(&everything).expect("list"), Vec::<IpNet>::new());
    }
}
