//! `punchlan games` beside a daemon that is played: nothing of it is on any network.

use crate::stage::{Here, answer, text};

#[test]
fn a_daemon_that_names_no_interface_is_not_examined() {
    let here = Here::new();
    let _daemon = here.daemon(1, "friday", answer);
    let output = here.command(&["games", "--seconds", "0"]).output().expect("runs");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
    assert!(text(&output.stderr).contains("error: the daemon names no interface"), "{output:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn where_nobody_hears_anything_everything_is_still_said_and_it_fails() {
    let here = Here::new();
    let _daemon = here.daemon(1, "friday", |status, request| {
        let mut status = status.clone();
        status.network.interface = Some("punch9".to_owned());
        answer(&status, request)
    });
    // In a network of its own: nothing of this is heard by anybody.
    let alone = |words: &[&str]| {
        let script = "ip link set lo up && exec \"$0\" games --seconds 1 \"$@\"";
        let mut command = here.around("unshare");
        command.args(["-rn", "sh", "-c", script, crate::stage::PUNCHLAN]).args(words).output().expect("unshare runs")
    };
    let output = alone(&["--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("none of the members who are here answers"), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let codes: Vec<&str> =
        json["findings"].as_array().into_iter().flatten().filter_map(|found| found["code"].as_str()).collect();
    assert_eq!(codes, ["interface", "no-way-out"], "{json:#}");
    assert!(json["unknown"]["members"].as_str().is_some_and(|why| why.contains("255.255.255.255")), "{json:#}");
    assert_eq!(
        (&json["members"][0]["name"], &json["members"][0]["answered_ms"]["limited"]),
        (&"bob".into(), &serde_json::Value::Null)
    );
    let said = text(&alone(&[]).stdout);
    assert!(said.contains("punch9, gone") && said.contains("\nWhat to do: sudo punchlan down"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
}

#[test]
fn what_is_typed_wrongly_is_named() {
    let here = Here::new();
    assert!(here.fails(&["games", "--seconds", "301"], 2).contains("0..=300"));
}
