use std::process::{Command, Stdio};

use super::*;

const NETWORK: NetworkId = NetworkId([9; 32]);

fn open(parent: &Path) -> StateDir {
    StateDir::open(parent, &NETWORK).expect("state")
}

#[test]
fn the_device_key_is_made_once_and_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let first = *open(folder.path()).device_seed(|| [5; 32]).expect("made");
    let second = *open(folder.path()).device_seed(|| panic!("made anew")).expect("kept");
    assert_eq!((first, second), ([5; 32], [5; 32]));
}

#[test]
fn a_damaged_device_key_is_never_replaced() {
    let folder = tempfile::tempdir().expect("folder");
    let state = open(folder.path());
    state.device_seed(|| [5; 32]).expect("made");
    let path = state.path().join("device.key");
    let whole = std::fs::read(&path).expect("read");
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    for damaged in [Vec::new(), whole[..30].to_vec(), flipped, b"hello".to_vec()] {
        std::fs::write(&path, &damaged).expect("damage");
        let error = state.device_seed(|| panic!("made anew")).expect_err("damaged");
        assert!(matches!(error, StoreError::DamagedKey { .. }), "{error}");
        assert!(error.to_string().contains("delete it"), "{error}");
        assert_eq!(std::fs::read(&path).expect("still there"), damaged);
    }
    std::fs::write(&path, whole).expect("repair");
    assert_eq!(*state.device_seed(|| panic!("made anew")).expect("whole"), [5; 32]);
}

#[test]
fn numbers_and_snapshots_survive_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let state = open(folder.path());
    assert_eq!(state.ceiling().expect("none"), Loaded { value: None, moved_aside: None });
    assert_eq!(state.cache().expect("none"), Loaded { value: None, moved_aside: None });
    state.reserve(77).expect("reserved");
    state.reserve(u64::MAX).expect("reserved");
    state.save_cache(b"peers").expect("saved");
    drop(state);
    let state = open(folder.path());
    assert_eq!(state.ceiling().expect("kept").value, Some(u64::MAX));
    assert_eq!(state.cache().expect("kept").value.as_deref(), Some(&b"peers"[..]));
}

#[test]
fn damaged_numbers_and_snapshots_are_moved_aside_and_made_anew() {
    let folder = tempfile::tempdir().expect("folder");
    let state = open(folder.path());
    state.reserve(7).expect("reserved");
    state.save_cache(b"peers").expect("saved");
    // A whole file of another kind is as wrong as rubbish.
    std::fs::copy(state.path().join("cache"), state.path().join("numbers")).expect("mixed up");
    std::fs::write(state.path().join("cache"), b"rubbish").expect("damage");
    let numbers = state.ceiling().expect("usable");
    assert_eq!(numbers, Loaded { value: None, moved_aside: Some(state.path().join("numbers.damaged-1")) });
    let cache = state.cache().expect("usable");
    assert_eq!(cache, Loaded { value: None, moved_aside: Some(state.path().join("cache.damaged-1")) });
    assert_eq!(std::fs::read(state.path().join("cache.damaged-1")).expect("kept"), b"rubbish");
    state.reserve(8).expect("reserved");
    assert_eq!(state.ceiling().expect("whole"), Loaded { value: Some(8), moved_aside: None });
    assert_eq!(state.cache().expect("none"), Loaded { value: None, moved_aside: None });
    state.save_cache(b"of another version").expect("saved");
    assert_eq!(state.reject_cache().expect("moved"), state.path().join("cache.damaged-2"));
}

#[test]
fn a_second_opener_is_told_the_pid_of_the_first() {
    let folder = tempfile::tempdir().expect("folder");
    let state = open(folder.path());
    let error = StateDir::open(folder.path(), &NETWORK).expect_err("locked");
    assert!(matches!(error, StoreError::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(state);
    open(folder.path());
}

#[cfg(target_os = "linux")]
#[test]
fn the_lock_holds_between_processes_and_ends_with_its_holder() {
    let folder = tempfile::tempdir().expect("folder");
    let path = open(folder.path()).path().to_owned();
    let mut holder = Command::new("flock")
        .arg(path.join("lock"))
        .args(["sh", "-c", "echo $$ > \"$0\"; echo ready; read _", path.join("pid").to_str().expect("text")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("flock is part of util-linux");
    let mut ready = [0; 6];
    io::Read::read_exact(holder.stdout.as_mut().expect("piped"), &mut ready).expect("ready");
    let error = StateDir::open(folder.path(), &NETWORK).expect_err("locked");
    assert!(matches!(error, StoreError::Locked { pid: Some(pid), .. } if pid != std::process::id()), "{error}");
    drop(holder.stdin.take());
    holder.wait().expect("ended");
    open(folder.path());
}

#[test]
fn networks_and_a_rendezvous_have_folders_apart() {
    let folder = tempfile::tempdir().expect("folder");
    let _one = open(folder.path());
    let _other = StateDir::open(folder.path(), &NetworkId([8; 32])).expect("another network");
    let rendezvous = StateDir::open_rendezvous(folder.path()).expect("rendezvous");
    assert_ne!(*rendezvous.device_seed(|| [1; 32]).expect("made"), [0; 32]);
}

#[cfg(unix)]
#[test]
fn an_empty_run_folder_in_the_temporary_directory_goes_and_any_other_stays() {
    let own = tempfile::tempdir().expect("a folder in the temporary directory");
    let other = own.path().join("run");
    let [elsewhere, here] = [other.as_path(), own.path()].map(|parent| RunDir::create(parent, &NETWORK).expect("made"));
    elsewhere.remove();
    here.remove();
    assert!(other.exists(), "it is not ours, and what it is in is not empty");
    std::fs::remove_dir(&other).expect("removed");
    here.remove();
    assert!(!own.path().exists());
}
