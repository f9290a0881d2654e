//! Names on a machine: in its hosts file, or told to systemd-resolved, in whose place a small program of ours is on a bus
//! of its own.

use std::fs::OpenOptions;
use std::io::Write as _;

use futures_util::StreamExt as _;
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream};

use crate::shell::Shell;

const HOSTS: &str = "127.0.0.1 localhost desk\n# mine\n";
/// Where the one in systemd-resolved's place writes what it is told.
const STAND_IN: &str = "PUNCHLAN_TEST_STAND_IN";

/// A shell whose hosts file and order of looking up names are its own, mounted as in a container.
fn shell(order: &str) -> Shell {
    let mut here = Shell::new();
    std::fs::write(here.folder.path().join("hosts"), HOSTS).expect("written");
    here.ok("cp hosts original && mount --bind hosts /etc/hosts && unset PUNCHLAN_HOSTS");
    here.ok(&format!("echo 'hosts: {order}' >nsswitch.conf && mount --bind nsswitch.conf /etc/nsswitch.conf"));
    here.ok("address() { getent \"$1\" \"$2\" | awk '{print $1}' | sort -u; }");
    here.ok(
        "until_ok() { for i in $(seq 200); do if \"$@\" >/dev/null 2>&1; then return; fi; sleep 0.05; done; false; }",
    );
    here
}

#[test]
fn networks_are_in_the_hosts_file_while_they_are_up_and_no_line_of_anybody_else_is_touched() {
    let mut here = shell("files");
    here.ok("punchlan init a.toml --network friday --subnet 10.77.0.0/24 --name alice --address 10.77.0.1");
    here.ok("punchlan init b.toml --network sunday --subnet 10.78.0.0/20 --name desk --address 10.78.3.1");
    here.up("punchlan up a.toml");
    here.ok("friday=$up; until_ok getent hosts alice");
    here.up("punchlan up b.toml");
    here.ok("sunday=$up; until_ok getent hosts desk.sunday.internal");
    assert_eq!(here.ok("address ahostsv4 alice.friday.internal; address ahostsv4 ALICE"), "10.77.0.1\n10.77.0.1\n");
    assert!(here.ok("address ahostsv6 alice.friday.internal").starts_with("fd"));
    assert_eq!(here.ok("address ahostsv4 desk"), "127.0.0.1\n", "somebody else is called so already");
    assert!(here.ok("getent hosts 10.77.0.1").contains("alice.friday.internal alice"));
    assert!(here.ok("getent hosts 10.78.3.1").trim_end().ends_with("desk.sunday.internal"));
    assert!(here.ok("punchlan status --network friday").contains("names: alice.friday.internal by /etc/hosts"));

    here.ok("sed -i s/alice/alina/ a.toml; kill -HUP $friday; until_ok getent hosts alina.friday.internal");
    here.fails("getent hosts alice.friday.internal", 2);
    here.ok("punchlan down --network friday");
    here.fails("getent hosts alina.friday.internal", 2);
    here.ok("getent hosts desk.sunday.internal");
    here.ok("printf '\\n[dns]\\nenabled = false\\n' >>b.toml");
    assert!(here.ok("punchlan reload").contains("[dns] enabled: false from now on"));
    here.ok("until_ok cmp -s hosts original");
    here.ok("off() { punchlan status | grep -q 'names: off'; }; until_ok off");
    here.ok("sed -i s/false/true/ b.toml; punchlan reload; until_ok getent hosts desk.sunday.internal");
    here.ok("kill -KILL $sunday; wait $sunday; true");
    here.ok("getent hosts desk.sunday.internal");
    here.up("punchlan up b.toml");
    here.ok("sleep 0.2; until_ok getent hosts desk.sunday.internal");
    assert_eq!(here.ok("grep -c begin hosts"), "1\n", "what a crash left is taken over");
    here.ok("kill -KILL $up; wait $up; true");
    let said = here.fails("punchlan down", 4);
    assert!(said.contains("nothing is running") && said.contains("/etc/hosts are gone now"), "{said}");
    assert_eq!(here.ok("cat hosts"), HOSTS);
    assert!(!here.fails("punchlan down", 4).contains("/etc/hosts"));
}

#[test]
fn where_the_hosts_file_cannot_be_written_a_warning_says_what_to_do_and_the_rest_works() {
    let mut here = shell("files");
    here.ok("mount -o remount,bind,ro /etc/hosts");
    here.ok("punchlan init --network friday --subnet 10.77.0.0/24 --name alice");
    here.up("punchlan up");
    here.ok("warned() { punchlan status | grep -q '^warning: .*Read-only'; }; until_ok warned");
    let status = here.ok("punchlan status");
    for part in ["/etc/hosts cannot be written", "ReadWritePaths=/etc/hosts", "`enabled = false` under [dns]"] {
        assert!(status.contains(part), "{status}");
    }
    assert!(status.contains("names: alice.friday.internal for those who ask 10.77.0."), "{status}");
    here.ok("printf '\\n[dns]\\nenabled = false\\n' >>net.toml; punchlan reload");
    here.ok("off() { punchlan status | grep -q 'names: off'; }; until_ok off");
    assert!(!here.ok("punchlan status").contains("warning: programs here"), "{}", here.ok("punchlan status"));
}

#[test]
fn systemd_resolved_is_told_where_it_runs_and_the_hosts_file_has_the_names_while_it_does_not() {
    let mut here = shell("resolve [!UNAVAIL=return] files");
    start_bus(&mut here);
    here.ok("punchlan init --network friday --subnet 10.77.0.0/23 --name alice --address 10.77.0.1");
    here.up("punchlan up");
    here.ok("until_ok grep -q alice.friday.internal hosts");
    here.ok("index=$(ip -o link show punch0 | cut -d: -f1); said() { grep -q \"^$1 $index \" told; }");
    for round in ["first", "when it is restarted"] {
        start_stand_in(&mut here);
        here.ok("until_ok said SetLinkDNSOverTLS");
        here.ok("resolved() { punchlan status | grep -q 'by systemd-resolved'; }");
        here.ok("until_ok resolved && until_ok cmp -s hosts original");
        let told = here.ok("sed \"s/ $index / N /\" told");
        let ula = here.ok("ip -6 -o address show punch0 scope global | awk '{print $4}' | cut -d/ -f1");
        let ula: std::net::Ipv6Addr = ula.trim().parse().expect("an address");
        let servers = format!("[(2, [10, 77, 0, 1], 1053, \"\"), (10, {:?}, 1053, \"\")]", ula.octets());
        for line in [
            &format!("SetLinkDNSEx N {servers}"),
            "SetLinkDomains N [(\"friday.internal\", false), (\"0.77.10.in-addr.arpa\", true), \
             (\"1.77.10.in-addr.arpa\", true), (\"0.0.0.0.",
            "SetLinkDefaultRoute N false",
            "SetLinkDNSSEC N \"no\"",
            "SetLinkDNSOverTLS N \"no\"",
        ] {
            assert!(told.lines().any(|said| said.starts_with(line)), "{round}: {line}\n{told}");
        }
        assert!(!told.contains("RevertLink"), "{told}");
        here.ok("kill $stand_in; wait $stand_in; until_ok grep -q alice.friday.internal hosts");
    }
    start_stand_in(&mut here);
    here.ok("until_ok said SetLinkDNSOverTLS");
    here.ok("punchlan down; said RevertLink");
    assert_eq!(here.ok("cat hosts"), HOSTS);
}

#[test]
fn a_systemd_resolved_that_sees_other_interfaces_is_told_nothing() {
    let mut here = shell("resolve files");
    start_bus(&mut here);
    // As for a container that has the machine's bus.
    here.ok("elsewhere='unshare --net'");
    start_stand_in(&mut here);
    here.ok("punchlan init --network friday --subnet 10.77.0.0/24 --name alice");
    here.up("punchlan up");
    here.ok("until_ok grep -q alice.friday.internal hosts");
    here.ok("sed -i s/alice/alina/ net.toml; punchlan reload; until_ok grep -q alina.friday.internal hosts");
    here.ok("punchlan down");
    assert_eq!(here.ok("cat told"), "");
}

fn start_bus(here: &mut Shell) {
    let policy = "<allow send_destination=\"*\"/><allow receive_sender=\"*\"/><allow own=\"*\"/>";
    let config = format!(
        "<busconfig><type>system</type><listen>unix:path={}/bus</listen><auth>EXTERNAL</auth>\
         <policy context=\"default\">{policy}</policy></busconfig>",
        here.folder.path().display()
    );
    std::fs::write(here.folder.path().join("bus.conf"), config).expect("written");
    here.ok("dbus-daemon --config-file=bus.conf --nofork --nopidfile >bus.log 2>&1 & until_ok test -S bus");
    here.ok("export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$PWD/bus");
}

fn start_stand_in(here: &mut Shell) {
    let program = std::env::current_exe().expect("this program");
    here.ok(&format!(
        "rm -f told; {STAND_IN}=$PWD/told $elsewhere {} --exact names::in_place_of_systemd_resolved >/dev/null 2>&1 & \
         stand_in=$!; until_ok test -e told",
        program.display()
    ));
}

/// No test, but where it is asked for a program: it is systemd-resolved on the bus, and writes down what it is told.
#[test]
fn in_place_of_systemd_resolved() {
    let Some(file) = std::env::var_os(STAND_IN) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bus = Connection::system().await.expect("a bus");
        let mut calls = MessageStream::from(&bus);
        bus.request_name("org.freedesktop.resolve1").await.expect("free");
        let mut file = OpenOptions::new().create(true).append(true).open(file).expect("a file");
        while let Some(Ok(call)) = calls.next().await {
            if call.header().message_type() == Type::MethodCall {
                writeln!(file, "{}", said(&call)).expect("written");
                bus.reply(&call.header(), &()).await.expect("answered");
            }
        }
    });
}

/// The method, the interface, and the rest.
fn said(call: &Message) -> String {
    let (method, body) = (call.header().member().map(ToString::to_string).unwrap_or_default(), call.body());
    let (index, rest) = match method.as_str() {
        "SetLinkDNSEx" => text(body.deserialize::<(i32, Vec<(i32, Vec<u8>, u16, String)>)>()),
        "SetLinkDomains" => text(body.deserialize::<(i32, Vec<(String, bool)>)>()),
        "SetLinkDefaultRoute" => text(body.deserialize::<(i32, bool)>()),
        "SetLinkDNSSEC" | "SetLinkDNSOverTLS" => text(body.deserialize::<(i32, String)>()),
        _ => (body.deserialize().expect("an interface"), String::new()),
    };
    format!("{method} {index} {rest}")
}

fn text<T: std::fmt::Debug>(body: zbus::Result<(i32, T)>) -> (i32, String) {
    let (index, rest) = body.expect("what the method has");
    (index, format!("{rest:?}"))
}
