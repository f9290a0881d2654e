//! A network namespace for each test, with what stands in it.

use std::future::Future;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use punchlan::io::net::{Addresses, Network};
use punchlan::io::tun::{NAME_PREFIX, Tun};
use punchlan::offload::Offload;

use crate::MTU;

/// Runs `test` on a thread with a network namespace of its own, in which loopback is up.
pub(crate) fn in_namespace(test: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root makes a network namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            link_up("lo").await;
            test.await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A configured `punch0`.
pub(crate) async fn up() -> (Tun, Network) {
    up_with(Offload::All).await
}

pub(crate) async fn up_with(offload: Offload) -> (Tun, Network) {
    let tun = Tun::open(NAME_PREFIX, MTU, offload).expect("opened");
    let network = Network::open().expect("netlink");
    assert!(network.configure(&tun, MTU, &kernel_addresses()).await.expect("configured"), "IPv6");
    (tun, network)
}

pub(crate) fn kernel_addresses() -> Addresses {
    Addresses {
        v4: Some("10.77.0.1/24".parse().expect("net")),
        v6: vec!["fd77::1/64".parse().expect("net"), "fe80::1/64".parse().expect("net")],
    }
}

pub(crate) fn netlink() -> rtnetlink::Handle {
    let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
    tokio::spawn(connection);
    handle
}

pub(crate) async fn add_veth(name: &str, peer: &str) {
    netlink().link().add(rtnetlink::LinkVeth::new(name, peer).build()).execute().await.expect("veth");
    link_up(name).await;
    link_up(peer).await;
}

pub(crate) async fn link_up(name: &str) {
    let message = rtnetlink::LinkUnspec::new_with_name(name).up().build();
    netlink().link().set(message).execute().await.expect("up");
}

pub(crate) async fn configure_by_name(name: &str, net: &str) {
    let net: IpNet = net.parse().expect("net");
    let index = nix::net::if_::if_nametoindex(name).expect("index");
    netlink().address().add(index, net.addr(), net.prefix_len()).execute().await.expect("address");
    link_up(name).await;
}

/// A TUN device without an owner.
pub(crate) fn persistent_tun(name: &str) {
    let mut config = tun::Configuration::default();
    config.tun_name(name).platform_config(|platform| {
        platform.ensure_root_privileges(false);
    });
    tun::create(&config).expect("made").persist().expect("persistent");
}

pub(crate) async fn routes() -> Vec<String> {
    let routes = Network::open().expect("netlink").routes().await.expect("routes");
    routes.iter().map(|route| route.net.to_string()).collect()
}

/// All addresses of an interface, sorted.
pub(crate) async fn addresses(name: &str) -> Vec<String> {
    let index = nix::net::if_::if_nametoindex(name).expect("index");
    let handle = netlink();
    let request = handle.address().get().set_link_index_filter(index).execute();
    let messages: Vec<_> = request.try_collect().await.expect("addresses");
    let mut nets: Vec<String> = messages
        .iter()
        .filter_map(|message| {
            message.attributes.iter().find_map(|attribute| match attribute {
                rtnetlink::packet_route::address::AddressAttribute::Address(ip) => {
                    Some(format!("{ip}/{}", message.header.prefix_len))
                }
                _ => None,
            })
        })
        .collect();
    nets.sort_unstable();
    nets
}

/// The MTU of an interface; `None` if there is none of that name.
pub(crate) async fn mtu(name: &str) -> Option<u32> {
    let handle = netlink();
    let request = handle.link().get().match_name(name).execute();
    let links: Vec<_> = request.try_collect().await.ok()?;
    links.first()?.attributes.iter().find_map(|attribute| match attribute {
        rtnetlink::packet_route::link::LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}
