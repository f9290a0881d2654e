//! What is configured on the device, what the machine has beside it, and what is left of it.

use ipnet::IpNet;
use punchlan::io::interfaces;
use punchlan::io::net::{Changes, Clash, Network};
use punchlan::io::tun::{NAME_PREFIX, Tun};
use punchlan::offload::Offload;

use crate::MTU;
use crate::namespace::{
    add_veth, addresses, configure_by_name, in_namespace, kernel_addresses, mtu, netlink, persistent, routes, up,
};
use crate::packets::{ip, ping, router_advertisement, within};

#[test]
fn the_ipv4_address_changes_while_everything_runs() {
    in_namespace(async {
        let (tun, network) = up().await;
        let net = |text: &str| Some(text.parse().expect("net"));
        network.replace_v4(&tun, net("10.77.0.1/24"), net("10.77.0.9/24")).await.expect("changed");
        assert!(ping(&tun, ip("10.77.0.2"), ip("10.77.0.9")).await);
        assert!(!ping(&tun, ip("10.77.0.2"), ip("10.77.0.1")).await);
        assert_eq!(addresses("punch0").await, ["10.77.0.9/24", "fd77::1/64", "fe80::1/64"]);
        assert!(routes().await.contains(&"10.77.0.0/24".to_owned()));
        // Taken away, and given again although the old one is not there.
        network.replace_v4(&tun, net("10.77.0.9/24"), None).await.expect("taken");
        assert!(!routes().await.contains(&"10.77.0.0/24".to_owned()));
        assert!(ping(&tun, ip("fd77::2"), ip("fd77::1")).await);
        network.replace_v4(&tun, net("10.77.0.9/24"), net("10.77.0.3/24")).await.expect("given");
        assert!(ping(&tun, ip("10.77.0.2"), ip("10.77.0.3")).await);
    });
}

#[test]
fn everything_is_gone_after_drop() {
    in_namespace(async {
        let before = routes().await;
        let (tun, _) = up().await;
        assert_eq!(tun.name(), "punch0");
        assert_eq!(addresses("punch0").await, ["10.77.0.1/24", "fd77::1/64", "fe80::1/64"]);
        assert_eq!(mtu("punch0").await, Some(u32::from(MTU)));
        for expected in ["10.77.0.0/24", "fd77::/64", "fe80::/64"] {
            assert!(routes().await.contains(&expected.to_owned()), "{expected}");
        }
        drop(tun);
        assert_eq!(mtu("punch0").await, None);
        assert_eq!(routes().await, before);
        assert_eq!(Tun::open(NAME_PREFIX, MTU, Offload::All).expect("opened").name(), "punch0");
    });
}

#[test]
fn the_first_number_that_nobody_has_is_taken() {
    in_namespace(async {
        add_veth("punch0", "other").await;
        let one = Tun::open(NAME_PREFIX, MTU, Offload::All).expect("opened");
        let two = Tun::open(NAME_PREFIX, MTU, Offload::All).expect("opened");
        assert_eq!((one.name(), two.name()), ("punch1", "punch2"));
        assert_ne!(one.index(), two.index());
        drop(one);
        assert_eq!(Tun::open(NAME_PREFIX, MTU, Offload::All).expect("opened").name(), "punch1");
    });
}

#[test]
fn a_device_whose_owner_died_is_deleted_and_all_others_stay() {
    in_namespace(async {
        persistent("punch0", tun::Layer::L2);
        persistent("punch1", tun::Layer::L3);
        persistent("game0", tun::Layer::L2);
        add_veth("punch7", "other").await;
        let network = Network::open().expect("netlink");
        configure_by_name("punch0", "10.77.0.1/24").await;
        let alive = Tun::open(NAME_PREFIX, MTU, Offload::All).expect("opened");
        assert_eq!(alive.name(), "punch2");
        assert!(routes().await.contains(&"10.77.0.0/24".to_owned()));
        assert_eq!(network.remove_leftovers().await.expect("removed"), ["punch0", "punch1"]);
        assert!(!routes().await.contains(&"10.77.0.0/24".to_owned()));
        assert_eq!(network.remove_leftovers().await.expect("nothing"), [""; 0]);
        for name in ["punch2", "punch7", "game0"] {
            assert!(mtu(name).await.is_some(), "{name}");
        }
        // Also while it is up, a device that is held is no leftover.
        network.configure(&alive, MTU, &kernel_addresses()).await.expect("configured");
        assert_eq!(network.remove_leftovers().await.expect("nothing"), [""; 0]);
        assert_eq!(Tun::open(NAME_PREFIX, MTU, Offload::All).expect("opened").name(), "punch0");
    });
}

#[test]
fn a_clash_with_a_network_of_this_machine_is_found() {
    in_namespace(async {
        add_veth("lan0", "lan1").await;
        configure_by_name("lan0", "10.77.0.200/24").await;
        let listed = Network::open().expect("netlink").routes().await.expect("routes");
        let find = |subnet: &str| Clash::find(subnet.parse().expect("subnet"), &listed);
        let clash = find("10.77.0.0/24").expect("equal");
        assert!(matches!(&clash, Clash::Equal(route) if route.device.as_deref() == Some("lan0")), "{clash}");
        assert!(matches!(find("10.77.0.64/26"), Some(Clash::Inside(_))));
        assert!(matches!(find("10.77.0.0/16"), Some(Clash::Covers(_))));
        assert_eq!(find("10.78.0.0/24"), None);
    });
}

#[test]
fn a_change_of_the_network_is_told_once_and_our_own_interface_is_none() {
    in_namespace(async {
        // Else the kernel would give the pair link-local addresses, in its own time.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("setting");
        add_veth("lan0", "lan1").await;
        let mut changes = Changes::watch().expect("watched");
        let (_tun, network) = up().await;
        assert_eq!(within(changes.next()).await.map(|told| told.is_ok()), None, "our own");
        configure_by_name("lan0", "192.0.2.7/24").await;
        within(changes.next()).await.expect("in time").expect("told");
        drop(network);
        assert_eq!(within(changes.next()).await.map(|told| told.is_ok()), None, "nothing new");
        netlink().link().del(nix::net::if_::if_nametoindex("lan0").expect("index")).execute().await.expect("deleted");
        within(changes.next()).await.expect("in time").expect("told");
    });
}

#[test]
fn our_own_interface_is_not_listed_as_an_address_of_this_machine() {
    in_namespace(async {
        add_veth("lan0", "lan1").await;
        configure_by_name("lan0", "192.0.2.7/24").await;
        configure_by_name("lan1", "10.88.0.1/24").await;
        let _up = up().await;
        let overlay: IpNet = "10.88.0.0/16".parse().expect("net");
        let listed = interfaces::list(&[overlay]).expect("listed");
        assert_eq!(listed, ["192.0.2.7/24".parse::<IpNet>().expect("net")]);
    });
}

#[test]
fn the_kernel_makes_no_address_of_its_own_and_believes_no_router() {
    in_namespace(async {
        let (tun, _) = up().await;
        let before = routes().await;
        tun.send(&router_advertisement()).expect("sent");
        assert!(ping(&tun, ip("fe80::2"), ip("fe80::1")).await, "after it, in order");
        assert_eq!(routes().await, before);
        assert_eq!(addresses("punch0").await, ["10.77.0.1/24", "fd77::1/64", "fe80::1/64"]);
        // The same advertisement does harm where the interface is not shielded.
        std::fs::write("/proc/sys/net/ipv6/conf/punch0/accept_ra", "2").expect("setting");
        tun.send(&router_advertisement()).expect("sent");
        assert!(ping(&tun, ip("fe80::2"), ip("fe80::1")).await, "after it, in order");
        assert_ne!(routes().await, before);
    });
}

#[test]
fn ipv6_comes_up_where_it_is_off_for_new_interfaces() {
    in_namespace(async {
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("setting");
        let (tun, _) = up().await;
        assert!(ping(&tun, ip("fd77::2"), ip("fd77::1")).await);
    });
}
