//! `punchlan lab` itself: what it prints, and that nothing of it stays, however it ends.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab::netns;
use crate::lab::programs::{PUNCHLAN, await_true};
use crate::shared_turn;

const PAIR: [&str; 2] = ["--gateways", "public,masquerade"];

fn lab(args: &[&str]) -> Child {
    let mut command = Command::new(PUNCHLAN);
    command.arg("lab").args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a process id"))
}

/// What carries the name of a lab of this process: namespaces, folders, and processes that were told one of these.
fn left_by(pid: Pid) -> Vec<String> {
    let prefix = format!("plt-{pid}-");
    let in_folder = |folder: &std::path::Path| -> Vec<String> {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        names.map(|entry| entry.path().display().to_string()).filter(|name| name.contains(&prefix)).collect()
    };
    let told = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten().filter_map(told);
    let processes = processes.map(|words| String::from_utf8_lossy(&words).into_owned());
    let mut left: Vec<String> = processes.filter(|words| words.contains(&prefix)).collect();
    left.extend(in_folder("/run/netns".as_ref()));
    left.extend(in_folder(&std::env::temp_dir()));
    left
}

/// Waits until two daemons run there.
fn await_daemons(pid: Pid) {
    let ups = || left_by(pid).into_iter().filter(|words| words.contains("up\0")).count();
    await_true("two daemons in the laboratory", Duration::from_secs(60), || Ok(ups() >= 2)).unwrap();
}

#[test]
fn the_command_says_how_each_pair_meets_and_leaves_nothing_behind() {
    let _turn = shared_turn();
    let child = lab(&[&PAIR[..], &["--runs", "1", "--json"]].concat());
    let pid = pid(&child);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("masquerade: as it should be") && said.contains("3 of 3: masquerade × masquerade: "),
        "{said}"
    );
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["schema"], &json["interrupted"]), (&1.into(), &false.into()));
    assert_eq!(json["gateways"][1]["found"]["mapping"], "endpoint-independent");
    let cells = json["cells"].as_array().unwrap();
    let names: Vec<_> = cells.iter().map(|cell| (cell["a"].as_str(), cell["b"].as_str())).collect();
    let [public, masquerade] = [Some("public"), Some("masquerade")];
    assert_eq!(names, [(public, public), (public, masquerade), (masquerade, masquerade)]);
    for cell in cells {
        assert_eq!((&cell["way"], &cell["as_expected"]), (&"direct".into(), &true.into()), "{cell:#}");
        let run = &cell["runs"][0];
        assert!(cell["direct_ms"]["median"].is_u64() && run["first_ping_ms"].is_u64(), "{cell:#}");
        assert_eq!((&run["cause"], &run["paths"][0]["transport"]), (&"direct".into(), &"udp".into()), "{cell:#}");
    }
    assert_eq!(json["summary"]["ways"], serde_json::json!({"direct": 3}));
    assert_eq!(left_by(pid), [""; 0]);
}

#[test]
fn an_interrupt_in_the_middle_takes_everything_down() {
    let _turn = shared_turn();
    for (jobs, signal) in [("1", Signal::SIGHUP), ("2", Signal::SIGINT)] {
        let mut child = lab(&[&PAIR[..], &["--jobs", jobs, "--runs", "100"]].concat());
        let pid = pid(&child);
        await_daemons(pid);
        kill(pid, signal).unwrap();
        let said: Vec<String> = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{said:?}");
        assert!(said.iter().any(|line| line.contains("interrupted; what was built is gone")), "{said:?}");
        assert_eq!(left_by(pid), [""; 0]);
    }
}

#[test]
fn what_a_killed_laboratory_leaves_the_next_one_sweeps() {
    let _turn = shared_turn();
    let mut child = lab(&[&PAIR[..], &["--runs", "100"]].concat());
    let pid = pid(&child);
    await_daemons(pid);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(left_by(pid), [""; 0]);
    netns::sweep();
    await_true("the end of all that was left", Duration::from_secs(10), || Ok(left_by(pid).is_empty())).unwrap();
}
