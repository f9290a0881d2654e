//! `punchlan up` and `punchlan down` with a real interface, each test in a network namespace of its own: what
//! stands in their way, and that nothing is left of them. Root is needed.
#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "real programs take real time")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use punchlan::node::status::Status;
use tempfile::TempDir;

const PUNCHLAN: &str = env!("CARGO_BIN_EXE_punchlan");

#[test]
fn up_says_one_line_and_down_leaves_nothing_of_it() {
    let mut here = Shell::new();
    here.ok("punchlan init --subnet 10.77.0.0/24 --network friday --name alice --address 10.77.0.1");
    here.up("punchlan up");
    let said = here.ok("cat up.out");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("friday") && said.contains("10.77.0.1") && said.contains("punch0"), "{said}");

    let status: Status = serde_json::from_str(&here.ok("punchlan status --json")).expect("the contract");
    assert_eq!(status.network.interface.as_deref(), Some("punch0"));
    assert_eq!(status.me.addresses.first().map(ToString::to_string).as_deref(), Some("10.77.0.1"));
    assert!(here.ok("punchlan status").contains("you are alice, 10.77.0.1"));
    assert!(here.ok("ip -o address show punch0").contains("10.77.0.1/24"));
    here.fails("punchlan ping bob", 4);
    here.fails("punchlan ping alice", 4);

    let begun = Instant::now();
    assert!(here.ok("punchlan down").contains("friday is down"));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(here.ok("ip -o link show | grep -c punch; true"), "0\n");
    assert_eq!(here.ok("ls run"), "");
    assert_eq!(here.ok("wait $up; echo $?"), "0\n", "down is no failure of up");
    here.up("punchlan up");
}

#[test]
fn a_signal_ends_it_within_two_seconds_and_cleanly() {
    let mut here = Shell::new();
    here.ok("punchlan init --subnet 10.77.0.0/24");
    for signal in ["TERM", "INT"] {
        here.up("punchlan up");
        let begun = Instant::now();
        assert_eq!(here.ok(&format!("kill -{signal} $up; wait $up; echo $?")), "0\n", "{signal}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{signal}: {:?}", begun.elapsed());
        assert_eq!(here.ok("ls run; ip -o link show | grep punch; true"), "");
    }
}

#[test]
fn what_stands_in_its_way_is_named() {
    let mut here = Shell::new();
    here.ok("punchlan init --subnet 10.77.0.0/24 && punchlan init other.toml --subnet 10.78.0.0/24");
    here.up("punchlan up");
    let locked = here.fails("punchlan up", 1);
    assert!(locked.contains(&here.ok("echo $up").trim().to_owned()) && locked.contains("punchlan down"), "{locked}");
    assert!(locked.starts_with("error: \"lan\" is up here already (process "), "{locked}");
    for (variable, command) in
        [("PUNCHLAN_STATE", "up other.toml"), ("PUNCHLAN_RUN", "up other.toml"), ("PUNCHLAN_STATE", "rendezvous")]
    {
        let said = here.fails(&format!("{variable}=$PWD/net.toml/x punchlan {command}"), 1);
        assert!(said.contains("net.toml/x") && said.contains(&format!("type {variable}=FOLDER")), "{said}");
    }
    let clash = here.fails("PUNCHLAN_STATE=$PWD/second PUNCHLAN_RUN=$PWD/second punchlan up", 1);
    assert!(clash.contains("10.77.0.0/24") && clash.contains("punch0") && clash.contains("All members"), "{clash}");

    here.ok(
        "ip link add veth0 type veth peer name veth1 && ip link set veth0 up && ip address add 10.78.0.0/16 dev veth0",
    );
    let inside = here.fails("punchlan up other.toml", 1);
    assert!(inside.contains("10.78.0.0/16") && inside.contains("veth0"), "{inside}");
    here.ok("ip link delete veth0");

    let port = here.ok("punchlan status --json | grep -o '0.0.0.0:[0-9][0-9]*' | head -n 1; ss -Hlun | grep -o '0.0.0.0:[0-9][0-9]*' | head -n 1");
    let port = port.trim().rsplit(':').next().expect("a port").to_owned();
    here.ok(&format!("printf '[peer]\\nlisten = {port}\\n' >>other.toml"));
    let taken = here.fails("punchlan up other.toml", 1);
    assert!(taken.contains(&port) && taken.contains("listen"), "{taken}");
    assert_eq!(here.ok("ip -o link show | grep -c punch; true"), "1\n", "a failed start leaves nothing");
}

#[test]
fn a_subnet_that_hides_what_is_somebodys_is_warned_of() {
    let mut here = Shell::new();
    here.ok("punchlan init --subnet 8.8.8.0/24");
    here.ok(
        "ip link add veth0 type veth peer name veth1 && ip link set veth0 up && ip address add 8.8.8.200/29 dev veth0",
    );
    here.up("punchlan up");
    let status = here.ok("punchlan status");
    for part in ["8.8.8.0/24 is no private range", "contains a network that is already in use here"] {
        let warning = status.lines().find(|line| line.contains(part)).expect(part);
        assert!(warning.contains("write it as `subnet` under [network]"), "{warning}");
    }
}

#[test]
fn a_network_that_comes_later_and_clashes_is_named_while_it_is_there() {
    let mut here = Shell::new();
    here.ok("punchlan init --subnet 10.77.0.0/24");
    here.up("punchlan up");
    let clashes = "punchlan status | grep -q 'the overlay 10.77.0.0/24'";
    here.ok(&format!("! {clashes}; ip link add veth0 type veth peer name veth1; ip link set veth0 up"));
    for (net, how) in [("10.77.0.9/24", "already in use"), ("10.0.0.1/8", "is inside"), ("10.77.0.129/25", "contains")]
    {
        here.ok(&format!("ip address add {net} dev veth0"));
        here.ok(&format!("for i in $(seq 100); do {clashes} && break; sleep 0.05; done"));
        let status = here.ok("punchlan status");
        let warning = status.lines().find(|line| line.contains("the overlay 10.77.0.0/24")).expect("a warning");
        assert!(warning.contains(how) && warning.contains("veth0") && warning.contains("under [network]"), "{warning}");
        here.ok(&format!(
            "ip address delete {net} dev veth0; for i in $(seq 100); do {clashes} || break; sleep 0.05; done"
        ));
        here.ok(&format!("! {clashes}"));
    }
}

#[test]
fn two_networks_run_side_by_side_and_are_told_apart_by_name() {
    let mut here = Shell::new();
    here.ok("punchlan init a.toml --network friday --subnet 10.77.0.0/24");
    here.ok("punchlan init b.toml --network sunday --subnet 10.78.0.0/24");
    here.up("punchlan up a.toml");
    here.up("punchlan up b.toml");
    let which = here.fails("punchlan status", 2);
    assert!(which.contains("friday") && which.contains("sunday") && which.contains("punch1"), "{which}");
    assert!(here.ok("punchlan status --network sunday").contains("interface punch1"));
    here.ok("punchlan down --network friday");
    assert!(here.ok("punchlan status").contains("sunday"));
}

#[test]
fn what_a_crash_left_is_taken_over() {
    let mut here = Shell::new();
    here.ok("punchlan init --subnet 10.77.0.0/24");
    here.up("punchlan up");
    let before: Status = serde_json::from_str(&here.ok("punchlan status --json")).expect("the contract");
    here.ok("kill -KILL $up; wait $up; true");
    here.fails("punchlan status", 4);
    here.up("punchlan up");
    let after: Status = serde_json::from_str(&here.ok("punchlan status --json")).expect("the contract");
    assert_eq!((before.me.id, before.me.addresses), (after.me.id, after.me.addresses));
}

#[test]
fn a_reload_changes_what_may_change_and_names_the_rest() {
    let mut here = Shell::new();
    here.ok("punchlan init --subnet 10.77.0.0/24 --network friday --name alice --rendezvous 192.0.2.1");
    here.up("punchlan up");
    assert_eq!(here.ok("punchlan reload"), "Nothing has changed.\n");
    here.ok("sed -i -e 's/192.0.2.1:3478/192.0.2.2:3478/' -e 's/alice/bob/' -e 's/10.77/10.78/' net.toml");
    let said = here.ok("punchlan reload");
    for part in ["192.0.2.2:3478: added", "192.0.2.1:3478: removed", "bob from now on", "at the next start"] {
        assert!(said.contains(part), "{said}");
    }
    let status: Status = serde_json::from_str(&here.ok("punchlan status --json")).expect("the contract");
    assert_eq!((status.me.name.as_str(), status.rendezvous[0].address.as_str()), ("bob", "192.0.2.2:3478"));

    here.ok("sed -i -e 's/friday/Friday!/' net.toml");
    let refused = here.fails("punchlan reload", 2);
    assert!(refused.contains("net.toml:5") && refused.contains("Friday!"), "{refused}");
    assert!(here.ok("punchlan status").contains("nothing has changed"));
    here.ok("sed -i -e 's/Friday!/sunday/' -e 's/10.78/10.999/' net.toml");
    here.fails("punchlan reload", 2);
    here.ok("mv net.toml away.toml");
    let gone = here.fails("punchlan reload", 2);
    assert!(gone.contains("there is no such file") && gone.contains("put it back"), "{gone}");
    assert!(!gone.contains("punchlan init"), "{gone}");
    let log = here.ok("grep 'WARN.*nothing has changed' up.err");
    let causes = ["a network's name", "10.999.0.0", "there is no such file"];
    assert!(log.lines().count() == 3 && causes.iter().all(|cause| log.contains(cause)), "each cause once: {log}");
    here.ok("mv away.toml net.toml; sed -i -e 's/10.999/10.78/' net.toml; kill -HUP $up");
    here.ok("for i in $(seq 100); do punchlan status | grep -q '^sunday: ' && break; sleep 0.05; done");
    let status = here.ok("punchlan status");
    assert!(status.contains("sunday: you are bob") && !status.contains("nothing has changed"), "{status}");
    assert!(here.ok("cat up.err").contains("net.toml: the network's name: sunday from now on"));
    assert!(here.ok("cat up.err").contains("no longer so: net.toml was read again and cannot be used"));
}

#[test]
fn what_is_logged_changes_with_a_reload_unless_it_was_typed() {
    let mut here = Shell::new();
    here.ok("punchlan init --subnet 10.77.0.0/24 && printf '[peer]\\nlog = \"punchlan=error\"\\n' >>net.toml");
    for (typed, quiet) in [("", true), ("-v ", false)] {
        here.up(&format!("punchlan {typed}up"));
        assert_eq!(here.ok("cat up.err").is_empty(), quiet, "{}", here.ok("cat up.err"));
        here.ok("sed -i 's/punchlan=error/punchlan=debug/' net.toml");
        let said = here.ok("punchlan reload");
        assert_eq!(said.contains("punchlan=debug from now on"), quiet, "{said}");
        assert_eq!(said.contains("which wins"), !quiet, "{said}");
        assert!(here.ok("punchlan down; cat up.err").contains("stopping"));
        here.ok("sed -i 's/punchlan=debug/punchlan=error/' net.toml");
    }
}

#[test]
fn another_user_may_look_and_no_more() {
    let mut here = Shell::new();
    here.ok("punchlan init --subnet 10.77.0.0/24 && chmod 711 . && cp $P other && chmod 755 other");
    here.up("punchlan up");
    here.ok("other() { setpriv --reuid=65534 --regid=65534 --clear-groups ./other \"$@\"; }");
    assert!(here.ok("other status").contains("punch0"));
    for words in ["down", "reload", "forget bob"] {
        let said = here.fails(&format!("other {words}"), 3);
        assert!(said.contains("sudo"), "{said}");
    }
    here.ok("! setpriv --reuid=65534 --regid=65534 --clear-groups cat net.toml");
    here.ok("! setpriv --reuid=65534 --regid=65534 --clear-groups ls state/*");
    assert!(here.ok("punchlan status").contains("punch0"), "it still runs");
}

#[test]
fn a_service_manager_is_told_when_it_is_ready_reloads_and_stops() {
    let mut here = Shell::new();
    let manager = UnixDatagram::bind(here.folder.path().join("notify")).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    let next = || {
        let mut text = [0; 1024];
        let len = manager.recv(&mut text).expect("it is told");
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    here.ok("export NOTIFY_SOCKET=$PWD/notify; punchlan init --subnet 10.77.0.0/24");
    here.up("punchlan up");
    let ready = next();
    assert!(ready.contains("READY=1") && ready.contains("STATUS=lan is up on punch0"), "{ready}");
    here.ok("kill -HUP $up");
    let reloading = next();
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(next().contains("READY=1"));
    here.ok("kill -TERM $up");
    assert!(next().contains("STOPPING=1"));
    here.up("punchlan rendezvous --listen 127.0.0.1:0");
    assert!(next().contains("READY=1"));
    here.ok("kill -TERM $up");
    assert!(next().contains("STOPPING=1"));
}

/// A shell in a network namespace and a folder of its own. Whatever it started ends with it.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    folder: TempDir,
}

impl Shell {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("punchlan-up-").tempdir().expect("a folder");
        let mut command = Command::new("unshare");
        command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"]).current_dir(folder.path());
        command.env("PUNCHLAN_STATE", folder.path().join("state")).env("PUNCHLAN_RUN", folder.path().join("run"));
        command.env_remove("PUNCHLAN_LOG").env("P", PUNCHLAN);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a namespace");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut shell = Self { child, stdin, stdout, folder };
        shell.ok("ip link set lo up; punchlan() { \"$P\" \"$@\"; }");
        shell
    }

    /// Runs a line in the shell itself; its exit code, stdout and stderr.
    fn run(&mut self, line: &str) -> (i32, String, String) {
        writeln!(self.stdin, "{{ {line}\n}} >out 2>err; echo $?").expect("the shell listens");
        let mut code = String::new();
        self.stdout.read_line(&mut code).expect("the shell speaks");
        let read = |name| fs::read_to_string(self.folder.path().join(name)).expect("text");
        (code.trim().parse().unwrap_or(-1), read("out"), read("err"))
    }

    fn ok(&mut self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!(code, 0, "{line}: {out}{err}");
        out
    }

    /// What it says on stderr; stdout must be empty.
    fn fails(&mut self, line: &str, expected: i32) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!((code, out.as_str()), (expected, ""), "{line}: {err}");
        err
    }

    /// Starts a daemon, whose process is then `$up`, and waits for its line.
    fn up(&mut self, line: &str) {
        let (program, arguments) = line.split_once(' ').expect("punchlan up");
        assert_eq!(program, "punchlan");
        let wait = "for i in $(seq 200); do [ -s up.out ] && break; sleep 0.02; done; [ -s up.out ]";
        let (code, _, _) = self.run(&format!("rm -f up.out; \"$P\" {arguments} >up.out 2>up.err & up=$!; {wait}"));
        assert_eq!(code, 0, "{}", fs::read_to_string(self.folder.path().join("up.err")).expect("text"));
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
