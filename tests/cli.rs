//! The program as a person meets it: every kind of bad input and what it gets, and every command against
//! daemons that are played by this test.
#![cfg(unix)]

#[path = "cli/games.rs"]
mod games;
#[path = "cli/netcheck.rs"]
mod netcheck;
#[path = "cli/stage.rs"]
mod stage;

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use punchlan::id::NetworkId;
use punchlan::node::status::Status;
use stage::{Here, PUNCHLAN, answer, text};

// ── Bad input ──

#[test]
fn a_bad_net_toml_is_shown_with_its_line_and_leaves_nothing_behind() {
    let here = Here::new();
    let (good, key) = here.good_net_toml();
    let other = if key.ends_with('q') { 'p' } else { 'q' };
    let typo = good.replace(&key, &format!("{}{other}", &key[..key.len() - 1]));
    let cases: &[(String, &str, &[&str])] = &[
        (good.replace("[network]", "[network"), "bad.toml:4", &["not valid TOML"]),
        (good.replace("subnet ", "subnte "), "bad.toml:7:1", &["unknown key `subnte`", "did you mean `subnet`"]),
        (format!("{good}\n[pear]\n"), "bad.toml:10:2", &["unknown section [pear]", "did you mean [peer]"]),
        (format!("{good}\n[socks]\n"), "bad.toml:10:2", &["[socks] is not in this version"]),
        (format!("{good}\n[peer]\nlisten = \"4\""), "bad.toml:11:10", &["wrong type", "should be a whole number"]),
        (typo, "bad.toml:6:14", &["typo", "copy the key again"]),
        (format!("{good}\n[peer]\naddress = \"10.78.0.1\""), "bad.toml:11:11", &["outside of the network's subnet"]),
        (good.replace("10.77.0.0/24", "10.77.0.0/30"), "bad.toml:7:14", &["too small", "at least a /29"]),
    ];
    for (text, at, parts) in cases {
        here.write("bad.toml", text, 0o600);
        for command in ["up", "invite"] {
            let said = here.fails(&[command, "bad.toml"], 2);
            assert!(said.contains(at) && parts.iter().all(|part| said.contains(part)), "{at} {parts:?}:\n{said}");
            assert!(!said.contains(&key[10..30]), "the key is shown:\n{said}");
        }
    }
    assert_eq!(here.files(), ["bad.toml", "good.toml"]);
}

#[test]
fn a_net_toml_that_cannot_be_used_says_what_to_type() {
    let here = Here::new();
    let said = here.fails(&["up"], 2);
    assert!(said.contains("punchlan init") && said.contains("punchlan join"), "{said}");
    assert!(said.contains("sudo punchlan up FOLDER/net.toml"), "{said}");
    let said = here.fails(&["invite"], 2);
    assert!(said.contains("punchlan invite FOLDER/net.toml") && !said.contains("punchlan up"), "{said}");
    let said = here.fails(&["up", "elsewhere.toml"], 2);
    assert!(said.contains("elsewhere.toml: there is no such file") && said.contains("punchlan init"), "{said}");
    assert!(here.fails(&["up", "."], 2).contains("this is a folder"));
    here.write("invite.txt", "punchlan://join?name=friday&key=plk1-secretsecret\n", 0o600);
    let said = here.fails(&["up", "invite.txt"], 2);
    assert!(said.contains("punchlan join invite.txt") && !said.contains("secretsecret"), "{said}");

    let (good, _) = here.good_net_toml();
    here.write("open.toml", &good, 0o640);
    assert!(here.fails(&["up", "open.toml"], 2).contains("type: chmod 600 open.toml"));
    here.write("my net.toml", &good, 0o604);
    assert!(here.fails(&["invite", "my net.toml"], 2).contains("chmod 600 -- 'my net.toml'"));
    fs::write(here.path("binary.toml"), [0xff, 0xfe, 0]).expect("written");
    fs::set_permissions(here.path("binary.toml"), Permissions::from_mode(0o600)).expect("mode");
    assert!(here.fails(&["up", "binary.toml"], 2).contains("not UTF-8"));
    here.write("secret.toml", &good, 0o000);
    let said = text(&here.as_nobody(&["up", "secret.toml"]).stderr);
    assert!(said.contains("may not read") && said.contains("sudo"), "{said}");
}

#[test]
fn without_rights_it_says_which_are_missing() {
    let here = Here::new();
    let (good, _) = here.good_net_toml();
    here.write("net.toml", &good, 0o600);
    here.give_away("net.toml");
    let output = here.as_nobody(&["up", "net.toml"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("sudo punchlan up"), "{}", text(&output.stderr));
    assert!(!here.path("state").exists() && !here.path("run").exists());
}

#[test]
#[cfg(target_os = "linux")]
fn without_a_tun_device_it_says_how_to_get_one() {
    let here = Here::new();
    let (good, _) = here.good_net_toml();
    here.write("net.toml", &good, 0o600);
    let script = "mount -t tmpfs none /dev/net && exec \"$0\" up net.toml";
    let mut command = here.around("unshare");
    let output = command.args(["-rmn", "sh", "-c", script, PUNCHLAN]).output().expect("unshare runs");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("modprobe tun"), "{}", text(&output.stderr));
}

#[test]
fn wrong_words_on_the_command_line_are_named_and_secrets_are_not_repeated() {
    let here = Here::new();
    for (words, part) in [
        (&["fly"][..], "unrecognized subcommand"),
        (&["init", "--subnet", "10.77.0.9/24"], "the bits behind /24 must be zero"),
        (&["init", "--subnet", "10.77.0.0/33"], "for example: \"10.77.0.0/24\""),
        (&["init", "--name", "Bob Ross"], "for example: bob"),
        (&["init", "--rendezvous", "tls://a"], "no way to reach a rendezvous"),
        (&["init", "--address", "bob"], "an IPv4 address"),
        (&["ping"], "PEER"),
        (&["ping", "bob", "-c", "0"], "0"),
        (&["rendezvous", "--listen", "here"], "0.0.0.0:3478"),
        (&["up", "punchlan://join?key=plk1-secretsecret"], "punchlan join"),
        (&["join", "punchlan://join?key=plk1-secretsecret"], "damaged"),
        (&["join", "ponchlan://join?key=plk1-secretsecret"], "neither an invite"),
        (&["join", "a", "b", "punchlan://join?key=plk1-secretsecret"], "unexpected argument"),
        (&["join", "punchlan://join?name=friday"], "single quotes"),
    ] {
        let said = here.fails(words, 2);
        assert!(said.contains(part), "{words:?}: {said}");
        assert!(!said.contains("secretsecret"), "{words:?}: {said}");
    }
    for slip in ["punchlan=loud", "loud", "wran"] {
        let loud = here.command(&["status"]).env("PUNCHLAN_LOG", slip).output().expect("runs");
        assert_eq!(loud.status.code(), Some(2));
        assert!(text(&loud.stderr).contains("PUNCHLAN_LOG=punchlan=debug"), "{}", text(&loud.stderr));
    }
    assert_eq!(here.files(), Vec::<String>::new());
}

#[test]
fn a_bad_rendezvous_toml_is_shown_with_its_line() {
    let here = Here::new();
    here.write("r.toml", "listen = [\"0.0.0.0:0\"]\n[limits]\nmembrs = 5\n", 0o644);
    let said = here.fails(&["rendezvous", "--config", "r.toml"], 2);
    assert!(said.contains("r.toml:3:1") && said.contains("did you mean `members`"), "{said}");
    let said = here.fails(&["rendezvous", "--config", "none.toml"], 2);
    assert!(said.contains("there is no such file") && said.contains("conf/rendezvous.toml"), "{said}");
    here.write("twice.toml", "listen = [\"127.0.0.1:4000\", \"127.0.0.1:4000\"]", 0o644);
    for words in [
        &["rendezvous", "--config", "twice.toml"][..],
        &["rendezvous", "--listen", "127.0.0.1:4000", "--listen", "127.0.0.1:4000"],
    ] {
        assert!(here.fails(words, 2).contains("127.0.0.1:4000 is listened on twice"), "{words:?}");
    }
}

#[test]
fn a_rendezvous_says_what_it_has_bound_and_ends_when_it_is_told_to() {
    let here = Here::new();
    here.write("r.toml", "listen = [\"127.0.0.1:0\"]\nlog = \"off\"\n", 0o644);
    let mut child = here.command(&["rendezvous", "--config", "r.toml"]).stdout(Stdio::piped()).spawn().expect("runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let first = lines.next().expect("a line");
    let address: SocketAddr = first.split(' ').find_map(|word| word.parse().ok()).expect("an address");
    assert!(address.ip().is_loopback() && address.port() != 0, "{first}");
    let rest: Vec<String> = lines.by_ref().take_while(|line| !line.contains("rendezvous = [")).collect();
    assert!(rest.concat().contains("plr1-"), "{rest:?}");
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("told");
    assert!(child.wait().expect("ends").success());
}

#[test]
#[cfg(target_os = "linux")]
fn a_laboratory_that_cannot_be_built_says_why() {
    let here = Here::new();
    let said = here.fails(&["lab", "--gateways", "public,masqerade"], 2);
    assert!(said.contains("there is no gateway `masqerade`; did you mean `masquerade`?"), "{said}");
    let said = here.fails(&["lab", "--gateways", "carrier-cone+ipv6"], 2);
    assert!(said.contains("`carrier-cone` cannot have IPv6 beside IPv4"), "{said}");
    here.fails(&["lab", "--all", "--gateways", "public"], 2);
    let output = here.as_nobody(&["lab"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("needs root") && said.contains("sudo"), "{said}");
    let listed = here.succeeds(&["lab", "--list"]);
    assert!(listed.contains("\nsymmetric-random ") && listed.lines().count() > 15, "{listed}");
    let json: serde_json::Value = serde_json::from_str(&here.succeeds(&["lab", "--list", "--json"])).expect("JSON");
    let names = json.as_array().into_iter().flatten().map(|gateway| gateway["name"].as_str().expect("a name"));
    assert!(names.clone().count() > 15 && names.clone().any(|name| name == "symmetric-random"), "{json}");
    assert!(json[0]["description"].is_string(), "{json}");
}

#[test]
fn every_command_has_help_with_an_example() {
    let here = Here::new();
    assert!(here.succeeds(&["--help"]).contains("punchlan init"));
    for command in [
        "init",
        "invite",
        "join",
        "up",
        "down",
        "status",
        "ping",
        "why",
        "games",
        "netcheck",
        #[cfg(target_os = "linux")]
        "lab",
        "rendezvous",
        "reload",
        "forget",
        "completions",
        "man",
    ] {
        let help = here.succeeds(&[command, "--help"]);
        assert!(help.contains("Example") && help.contains(&format!("punchlan {command}")), "{help}");
        assert!(!help.contains('\u{1b}'), "colours outside of a terminal: {help}");
    }
}

// ── Making a network and joining it ──

#[test]
fn a_network_is_made_and_joined_by_link_by_file_and_by_stdin() {
    let here = Here::new();
    let pin = punchlan::id::ServerKey([7; 32]);
    let server = format!("play.example.org:3478#{pin}");
    let said = here.succeeds(&["init", "--network", "friday", "--rendezvous", &server, "--name", "alice"]);
    assert!(said.contains("Wrote net.toml") && said.contains("sudo punchlan up"), "{said}");
    assert!(said.contains("You appear in it as \"alice\""), "{said}");
    assert_eq!(here.mode("net.toml"), 0o600);
    let link = here.succeeds(&["invite", "--plain"]);
    assert_eq!((link.lines().count(), link.starts_with("punchlan://join?name=friday&key=plk1-")), (1, true), "{link}");
    assert_eq!(here.succeeds(&["invite"]), link, "a pipe gets the link alone");

    here.succeeds(&["invite", "--out", "invite.txt"]);
    assert_eq!((here.mode("invite.txt"), here.read("invite.txt")), (0o600, link.clone()));
    assert!(here.fails(&["invite", "--out", "invite.txt"], 2).contains("never overwritten"));

    here.succeeds(&["join", link.trim(), "by-link.toml"]);
    here.succeeds(&["join", "invite.txt", "by-file.toml"]);
    let by_stdin = here.with_stdin(&["join", "-", "by-stdin.toml"], &format!("Hi, here it is: {link} See you!"));
    assert!(by_stdin.status.success(), "{}", text(&by_stdin.stderr));
    for file in ["by-link.toml", "by-file.toml", "by-stdin.toml"] {
        assert_eq!(here.mode(file), 0o600);
        assert_eq!(here.succeeds(&["invite", "--plain", file]), link);
        assert!(!here.read(file).contains("[peer]"), "a name is each member's own");
    }
    let before = here.read("net.toml");
    assert!(here.fails(&["init"], 2).contains("net.toml exists already"));
    assert!(here.fails(&["join", "invite.txt"], 2).contains("net.toml exists already"));
    assert_eq!(here.read("net.toml"), before);
    assert!(here.fails(&["join", "net.toml", "other.toml"], 2).contains("not an invite"));
}

#[test]
fn without_a_rendezvous_init_and_invite_say_what_is_missing() {
    let here = Here::new();
    let said = here.succeeds(&["init"]);
    assert!(said.contains("punchlan rendezvous") && said.contains("rendezvous = ["), "{said}");
    let invite = here.command(&["invite", "--plain"]).output().expect("runs");
    assert!(invite.status.success() && text(&invite.stderr).contains("no rendezvous"));
}

#[test]
fn a_subnet_that_is_somebodys_is_warned_of_at_once() {
    let here = Here::new();
    let warned = |subnet: &str, file: &str| {
        let output = here.command(&["init", file, "--subnet", subnet]).output().expect("runs");
        assert!(output.status.success());
        text(&output.stderr)
    };
    let said = warned("8.8.8.0/24", "a.toml");
    assert!(said.contains("warning: 8.8.8.0/24 is no private range") && said.contains("`subnet`"), "{said}");
    let invite = here.succeeds(&["invite", "a.toml"]);
    let joined = here.command(&["join", invite.trim(), "b.toml"]).output().expect("runs");
    assert!(text(&joined.stderr).contains("no private range"), "{}", text(&joined.stderr));
    assert_eq!(warned("100.64.9.0/24", "c.toml"), "");
}

#[test]
fn what_cannot_be_written_is_named_and_a_dangling_link_is_not_followed() {
    let here = Here::new();
    assert!(here.fails(&["init", "no/such/net.toml"], 2).contains("mkdir"));
    std::os::unix::fs::symlink("target.toml", here.path("net.toml")).expect("link");
    assert!(here.fails(&["init"], 2).contains("exists already"));
    assert!(!here.path("target.toml").exists());
    let full = here.command(&["init", "new.toml"]).stdout(fs::File::create("/dev/full").expect("full")).output();
    assert_eq!(full.expect("runs").status.code(), Some(1));
}

// ── Daemons ──

#[test]
fn when_nothing_runs_the_answer_is_four_and_stdout_is_empty() {
    let here = Here::new();
    fs::create_dir_all(here.path("run").join(NetworkId([9; 32]).to_string())).expect("a folder that a crash left");
    for words in [&["status"][..], &["status", "--json"], &["down"], &["ping", "bob"], &["games"], &["forget", "bob"]] {
        assert!(here.fails(words, 4).contains("nothing is running"), "{words:?}");
    }
}

#[test]
fn with_several_networks_one_must_be_named() {
    let here = Here::new();
    let _friday = here.daemon(1, "friday", answer);
    assert!(here.succeeds(&["status"]).contains("friday: you are alice, 10.77.0.1"));
    let _work = here.daemon(2, "work", answer);
    for words in [&["status"][..], &["status", "--json"], &["down"], &["ping", "bob"], &["games"], &["forget", "bob"]] {
        let said = here.fails(words, 2);
        assert!(said.contains("--network") && said.contains("friday") && said.contains("work"), "{said}");
    }
    let json: Status =
        serde_json::from_str(&here.succeeds(&["status", "--json", "--network", "work"])).expect("the contract");
    assert_eq!(json.network.name, "work");
    assert!(here.fails(&["status", "--network", "sunday"], 4).contains("friday"));
}

#[test]
fn a_peer_is_pinged_by_name_or_address_and_its_path_is_shown() {
    let here = Here::new();
    let _daemon = here.daemon(1, "friday", answer);
    let said = here.succeeds(&["ping", "bob", "-c", "1"]);
    assert!(said.starts_with("reply from bob (10.77.0.2): direct 203.0.113.9:41641, 1.2 ms\n"), "{said}");
    assert!(said.contains("1 sent, 1 received"), "{said}");
    assert!(here.succeeds(&["ping", "10.77.0.2", "-n", "1"]).contains("reply from bob"));

    let unknown = here.fails(&["ping", "eve"], 4);
    assert!(unknown.contains("eve") && unknown.contains("bob (10.77.0.2)"), "{unknown}");
    let silent = here.command(&["ping", "carol", "-c", "1"]).output().expect("runs");
    assert_eq!(silent.status.code(), Some(1));
    assert!(text(&silent.stdout).contains("1 sent, 0 received"), "{}", text(&silent.stdout));
    assert!(text(&silent.stderr).contains("no reply from carol"), "{}", text(&silent.stderr));
}

#[test]
fn why_a_peer_is_reached_as_it_is_is_said_for_people_and_for_programs() {
    let here = Here::new();
    let _daemon = here.daemon(1, "friday", answer);
    let said = here.succeeds(&["why", "bob"]);
    assert!(said.contains("\nWhy: bob's router shows each friend another port"), "{said}");
    assert!(said.contains("\nWhat helps: switch on UPnP (or PCP, NAT-PMP) in that router"), "{said}");
    let why: serde_json::Value = serde_json::from_str(&here.succeeds(&["why", "10.77.0.2", "--json"])).expect("JSON");
    assert_eq!((&why["cause"], &why["peer"]["name"]), (&"symmetric-there".into(), &"bob".into()));
    assert!(here.fails(&["why", "eve"], 4).contains("bob (10.77.0.2)"));
    assert!(here.fails(&["why"], 2).contains("<PEER>"));
}

#[test]
fn a_member_who_is_gone_is_forgotten_by_name() {
    let here = Here::new();
    let _daemon = here.daemon(1, "friday", answer);
    assert!(here.succeeds(&["forget", "dave"]).contains("dave"));
    assert!(here.fails(&["forget", "eve"], 4).contains("nobody is called eve"));
    assert!(here.fails(&["forget", "bob"], 1).contains("bob is here"));
    assert!(here.fails(&["forget", "10.77.0.2"], 1).contains("10.77.0.2 is here"));
    for me in ["alice", "10.77.0.1"] {
        assert!(here.fails(&["forget", me], 4).contains("is this machine"), "{me}");
    }
}

#[test]
fn a_reload_says_what_has_changed() {
    let here = Here::new();
    assert!(here.fails(&["reload"], 4).contains("nothing is running"));
    let _daemon = here.daemon(1, "friday", answer);
    assert_eq!(here.succeeds(&["reload"]), "rendezvous play.example.org:3478: added\n");
}

#[test]
fn completions_and_the_manual_are_printed_for_their_programs() {
    let here = Here::new();
    for (shell, word) in
        [("bash", "complete -F _punchlan"), ("zsh", "#compdef punchlan"), ("fish", "complete -c punchlan")]
    {
        assert!(here.succeeds(&["completions", shell]).contains(word), "{shell}");
    }
    assert!(here.fails(&["completions", "basic"], 2).contains("possible values"));
    let page = here.succeeds(&["man"]);
    assert!(page.contains("\n.nf\n  sudo punchlan down\n"), "{page}");
    assert!(page.contains(".SH \"PUNCHLAN RELOAD\"") && page.contains("\\-\\-network"), "{page}");
}

#[test]
fn a_daemon_that_stays_although_it_was_told_to_end_is_a_failure() {
    let here = Here::new();
    let _daemon = here.daemon(1, "friday", answer);
    let said = here.fails(&["down"], 1);
    assert!(said.contains("its control socket is still there"), "{said}");
    assert!(said.contains(&format!("kill -9 {}", std::process::id())), "{said}");
}

#[test]
fn others_may_look_but_change_nothing() {
    let here = Here::new();
    let _daemon = here.daemon(1, "friday", answer);
    if !nix::unistd::geteuid().is_root() {
        return; // Then nobody else can be played, and the owner is not another.
    }
    let status = here.as_nobody(&["status"]);
    assert!(status.status.success(), "{}", text(&status.stderr));
    for words in [&["down"][..], &["reload"], &["forget", "dave"]] {
        let output = here.as_nobody(words);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("sudo"), "{}", text(&output.stderr));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let here = Here::new();
    let _daemon = here.daemon(1, "friday", answer);
    let mut child = here.command(&["status", "--json"]).stdout(Stdio::piped()).spawn().expect("runs");
    drop(child.stdout.take());
    assert!(child.wait().expect("ends").success());
}

#[test]
fn a_status_that_is_watched_is_told_again_and_again_for_as_long_as_somebody_reads() {
    let here = Here::new();
    let _daemon = here.daemon(1, "friday", answer);
    let mut child = here.command(&["status", "--json", "--watch"]).stdout(Stdio::piped()).spawn().expect("runs");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    for line in lines.take(2) {
        let status: Status = serde_json::from_str(&line.expect("text")).expect("the contract, in one line");
        assert_eq!(status.network.name, "friday");
    }
    assert!(child.wait().expect("ends").success());
}
