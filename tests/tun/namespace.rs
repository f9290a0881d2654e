//! A network namespace for each test, with what stands in it.

use std::fs::File;
use std::future::Future;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};
use punchlan::io::net::{Addresses, Network};
use punchlan::io::tun::{NAME_PREFIX, Tun};
use punchlan::offload::Offload;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteType};

use crate::{KERNEL, MTU};

/// Runs `test` on a thread with a network namespace of its own, in which loopback is up.
pub(crate) fn in_namespace(test: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("root makes a network namespace");
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
    let network = configured(&tun, KERNEL).await;
    (tun, network)
}

/// Gives the device these addresses in the namespace in which this is called.
pub(crate) async fn configured(tun: &Tun, addresses: [&str; 3]) -> Network {
    let network = Network::open().expect("netlink");
    assert!(network.configure(tun, MTU, &with_prefixes(addresses)).await.expect("configured"), "IPv6");
    network
}

pub(crate) fn kernel_addresses() -> Addresses {
    with_prefixes(KERNEL)
}

fn with_prefixes([v4, ula, link_local]: [&str; 3]) -> Addresses {
    Addresses {
        v4: Some(format!("{v4}/24").parse().expect("net")),
        v6: [ula, link_local].map(|v6| format!("{v6}/64").parse().expect("net")).into(),
    }
}

/// Another namespace, beside the test's own.
pub(crate) struct Elsewhere {
    here: File,
    there: File,
}

impl Elsewhere {
    pub(crate) fn new() -> Self {
        let this = || File::open("/proc/thread-self/ns/net").expect("a namespace");
        let here = this();
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("root makes a network namespace");
        let elsewhere = Self { here, there: this() };
        elsewhere.enter(&elsewhere.here);
        elsewhere
    }

    /// Runs `body` there.
    pub(crate) fn visit<T>(&self, body: impl FnOnce() -> T) -> T {
        self.enter(&self.there);
        let result = body();
        self.enter(&self.here);
        result
    }

    /// The same of something that waits, while which nothing else must run on this thread.
    pub(crate) async fn visit_async<T>(&self, body: impl Future<Output = T>) -> T {
        self.enter(&self.there);
        let result = body.await;
        self.enter(&self.here);
        result
    }

    fn enter(&self, namespace: &File) {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("entered");
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

/// A TUN or TAP device without an owner.
pub(crate) fn persistent(name: &str, layer: tun::Layer) {
    let mut config = tun::Configuration::default();
    config.tun_name(name).layer(layer).platform_config(|platform| {
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
    link(name).await?.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

pub(crate) async fn link_flags(name: &str) -> LinkFlags {
    link(name).await.expect("it is there").header.flags
}

pub(crate) async fn hardware_address(name: &str) -> Vec<u8> {
    let link = link(name).await.expect("it is there");
    let address = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(address) => Some(address.clone()),
        _ => None,
    });
    address.expect("an Ethernet interface")
}

async fn link(name: &str) -> Option<LinkMessage> {
    let handle = netlink();
    let links: Vec<_> = handle.link().get().match_name(name.to_owned()).execute().try_collect().await.ok()?;
    links.into_iter().next()
}

/// The metrics of an interface's routes for all multicast of IPv6, sorted.
pub(crate) async fn multicast_metrics(index: u32) -> Vec<u32> {
    let all = rtnetlink::RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
    let routes: Vec<_> = netlink().route().get(all).execute().try_collect().await.expect("routes");
    let ours = routes.iter().filter(|route| {
        route.header.kind == RouteType::Multicast && route.attributes.contains(&RouteAttribute::Oif(index))
    });
    let metric = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    };
    let mut metrics: Vec<u32> = ours.filter_map(|route| route.attributes.iter().find_map(metric)).collect();
    metrics.sort_unstable();
    metrics
}
