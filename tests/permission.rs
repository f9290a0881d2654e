//! What `io::permission` says, asked in processes that really lack something. Needs root.
#![cfg(target_os = "linux")]

use std::process::Command;

use punchlan::io::permission;

const CHILD: &str = "PUNCHLAN_TEST_PERMISSION_CHILD";

#[test]
fn root_with_everything_may_make_a_device() {
    assert_eq!(said_under(&["env"]), "permitted");
}

#[test]
fn root_without_the_capability_is_told_how_a_container_gets_it() {
    let said = said_under(&["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
    assert!(said.contains("--cap-add NET_ADMIN"), "{said}");
}

#[test]
fn another_user_is_told_to_use_sudo_or_setcap() {
    let said = said_under(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    assert!(
        said.contains("sudo punchlan up net.toml") && said.contains("sudo setcap cap_net_admin,cap_net_raw+ep"),
        "{said}"
    );
}

#[test]
fn where_the_device_is_missing_it_is_said_how_to_load_the_module() {
    let said = said_under(&["unshare", "-m", "sh", "-c", "mount -t tmpfs none /dev/net && exec \"$@\"", "sh"]);
    assert!(said.contains("sudo modprobe tun"), "{said}");
}

/// Does nothing in the tests' own run; under [`said_under`] it is the process that asks.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_some() {
        match permission::check() {
            Ok(()) => println!("SAID permitted"),
            Err(error) => println!("SAID {error}"),
        }
    }
}

/// What the check says in a process started through `wrapper`. The test's program is copied to where every
/// user may run it.
fn said_under(wrapper: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("folder");
    let program = folder.path().join("asks");
    std::fs::copy(std::env::current_exe().expect("own path"), &program).expect("copied");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("opened");
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(&program)
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, "1")
        .current_dir("/")
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.lines().find_map(|line| line.split_once("SAID ").map(|(_, said)| said.to_owned()));
    said.unwrap_or_else(|| panic!("nothing said: {text} {}", String::from_utf8_lossy(&output.stderr)))
}
