//! Where the folders are, and the run folder of a daemon.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::id::NetworkId;

/// Nobody else may look into the state: it holds the device key.
pub(super) const STATE_MODE: u32 = 0o700;
/// Anybody local may ask for the status.
const RUN_MODE: u32 = 0o755;
const SOCKET: &str = "control.sock";
/// Longest path that a Unix socket takes (`sun_path`, with its end).
#[cfg(unix)]
const MAX_SOCKET_PATH: usize = 104;

/// The parents of all state and run folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// Parent of the state folders.
    pub state: PathBuf,
    /// Parent of the run folders of daemons that this user starts.
    pub run: PathBuf,
    /// Where daemons of this machine may be found: `run` first, then the system's.
    pub search: Vec<PathBuf>,
}

impl Folders {
    /// By `$PUNCHLAN_STATE` and `$PUNCHLAN_RUN`, or the system's own places for root and for others.
    pub fn from_env() -> Self {
        Self::choose(|name| std::env::var_os(name).filter(|value| !value.is_empty()), is_root())
    }

    fn choose(var: impl Fn(&str) -> Option<OsString>, is_root: bool) -> Self {
        let folder = |name: &str| var(name).map(PathBuf::from);
        let state = folder("PUNCHLAN_STATE").unwrap_or_else(|| default_state(&folder, is_root));
        let system_run = system_run(&folder);
        let (run, search) = match folder("PUNCHLAN_RUN") {
            Some(run) => (run.clone(), vec![run]),
            None if is_root => (system_run.clone(), vec![system_run]),
            None => {
                let own = user_run(&folder);
                (own.clone(), vec![own, system_run])
            }
        };
        Self { state, run, search }
    }

    /// The run folders of all daemons that may be running here, sorted by network.
    pub fn run_dirs(&self) -> Vec<RunDir> {
        let mut found = Vec::new();
        for parent in &self.search {
            let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
            found.extend(entries.filter(is_trusted).filter_map(|entry| {
                let network = entry.file_name().to_str()?.parse().ok()?;
                Some(RunDir { path: entry.path(), network })
            }));
        }
        found.sort_by_key(|dir| dir.network);
        found
    }
}

/// The run folder of one network's daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
    network: NetworkId,
}

impl RunDir {
    /// Makes the folder of `network` below `parent` if there is none.
    ///
    /// # Errors
    /// The system's.
    pub fn create(parent: &Path, network: &NetworkId) -> io::Result<Self> {
        let path = parent.join(network.to_string());
        make(&path, RUN_MODE)?;
        Ok(Self { path, network: *network })
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the control socket is.
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Calls `with` with a path to the control socket that is short enough for the system's socket calls,
    /// however long the folder's own is.
    ///
    /// # Errors
    /// The folder is gone, or what `with` returns.
    #[cfg(unix)]
    pub fn with_socket_path<T>(&self, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        use std::os::fd::AsRawFd as _;
        let path = self.socket();
        if path.as_os_str().len() < MAX_SOCKET_PATH || !cfg!(target_os = "linux") {
            return with(&path);
        }
        let folder = std::fs::File::open(&self.path)?;
        with(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(SOCKET))
    }

    /// Removes the socket and the folder, and what was made for it in the temporary directory, where nothing of ours
    /// stays. What is gone already is no error.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(self.socket());
        let _ = std::fs::remove_dir(&self.path);
        if let Some(parent) = self.path.parent()
            && parent.parent() == Some(&std::env::temp_dir())
        {
            // Not if another network is up beside this one: then it is not empty.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// Whether root or this user made a folder. What another user made where ours is looked for could lead to a daemon
/// that only plays ours.
#[cfg(unix)]
fn is_trusted(entry: &std::fs::DirEntry) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let owner = entry.metadata().map(|metadata| metadata.uid());
    owner.is_ok_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw())
}

#[cfg(not(unix))]
fn is_trusted(_entry: &std::fs::DirEntry) -> bool {
    true
}

/// Makes `path` and its parents: parents that anybody may pass, the folder itself with `mode`. A state
/// folder that is too open is closed.
pub(super) fn make(path: &Path, mode: u32) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        std::fs::create_dir_all(parent)?;
        set_mode(parent, RUN_MODE)?;
    }
    match std::fs::create_dir(path) {
        Ok(()) => set_mode(path, mode),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => tighten(path, mode),
        Err(error) => Err(error),
    }
}

/// Takes rights beyond `mode` away.
fn tighten(path: &Path, mode: u32) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let has = std::fs::metadata(path)?.permissions().mode() & 0o777;
        if has & !mode != 0 {
            return set_mode(path, has & mode);
        }
    }
    #[cfg(not(unix))]
    let _ = (path, mode);
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    #[cfg(not(unix))]
    let _ = (path, mode); // Folders below %ProgramData% inherit their rights.
    Ok(())
}

#[cfg(unix)]
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    true
}

#[cfg(unix)]
fn default_state(folder: &impl Fn(&str) -> Option<PathBuf>, is_root: bool) -> PathBuf {
    if is_root {
        return PathBuf::from("/var/lib/punchlan");
    }
    let home = || folder("HOME").unwrap_or_else(|| PathBuf::from("/")).join(".local/state");
    folder("XDG_STATE_HOME").unwrap_or_else(home).join("punchlan")
}

#[cfg(not(unix))]
fn default_state(folder: &impl Fn(&str) -> Option<PathBuf>, _is_root: bool) -> PathBuf {
    program_data(folder)
}

#[cfg(unix)]
fn system_run(_folder: &impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    PathBuf::from(if cfg!(target_os = "macos") { "/var/run/punchlan" } else { "/run/punchlan" })
}

#[cfg(not(unix))]
fn system_run(folder: &impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    program_data(folder).join("run")
}

#[cfg(not(unix))]
fn program_data(folder: &impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    folder("ProgramData").unwrap_or_else(|| PathBuf::from(r"C:\ProgramData")).join("punchlan")
}

/// Without a session of its own, a user's daemons are found in a folder that bears the user's number.
#[cfg(unix)]
fn user_run(folder: &impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    match folder("XDG_RUNTIME_DIR") {
        Some(dir) => dir.join("punchlan"),
        None => std::env::temp_dir().join(format!("punchlan-{}", nix::unistd::geteuid())),
    }
}

#[cfg(not(unix))]
fn user_run(folder: &impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    system_run(folder)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_run_folder_that_another_user_made_is_not_believed() {
        let parent = tempfile::tempdir().expect("tempdir");
        let dir = RunDir::create(parent.path(), &NetworkId([7; 32])).expect("made");
        let folders = Folders { state: PathBuf::new(), run: PathBuf::new(), search: vec![parent.path().to_owned()] };
        assert_eq!(folders.run_dirs(), std::slice::from_ref(&dir));
        if !is_root() {
            return; // Only root can give a folder away.
        }
        std::os::unix::fs::chown(dir.path(), Some(65_534), None).expect("given away");
        assert_eq!(folders.run_dirs(), []);
    }

    fn choose(vars: &[(&str, &str)], is_root: bool) -> Folders {
        Folders::choose(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()), is_root)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn root_and_others_have_places_of_their_own_and_the_environment_overrides_both() {
        let root = choose(&[("XDG_STATE_HOME", "/home/a/.state")], true);
        assert_eq!((root.state, root.run), ("/var/lib/punchlan".into(), "/run/punchlan".into()));
        let user = choose(&[("HOME", "/home/a"), ("XDG_RUNTIME_DIR", "/run/user/7")], false);
        assert_eq!(user.state, PathBuf::from("/home/a/.local/state/punchlan"));
        assert_eq!(user.search, [PathBuf::from("/run/user/7/punchlan"), "/run/punchlan".into()]);
        let set = choose(&[("PUNCHLAN_STATE", "/s"), ("PUNCHLAN_RUN", "/r")], false);
        assert_eq!((set.state, set.run, set.search), ("/s".into(), "/r".into(), vec!["/r".into()]));
    }

    #[test]
    fn run_folders_are_found_by_their_networks_and_everything_else_is_passed_over() {
        let root = tempfile::tempdir().expect("folder");
        let run = root.path().join("deep/run");
        let folders = Folders { state: run.clone(), run: run.clone(), search: vec![run.clone()] };
        assert_eq!(folders.run_dirs(), []);
        let (one, two) = (NetworkId([1; 32]), NetworkId([2; 32]));
        let second = RunDir::create(&run, &two).expect("made");
        let first = RunDir::create(&run, &one).expect("made");
        std::fs::create_dir(run.join("rendezvous")).expect("made");
        assert_eq!(folders.run_dirs(), [first.clone(), second]);
        assert_eq!((mode(&run), mode(first.path())), (0o755, 0o755));
        first.remove();
        first.remove();
        assert_eq!(folders.run_dirs().len(), 1);
    }

    #[test]
    fn a_state_folder_that_is_too_open_is_closed() {
        let root = tempfile::tempdir().expect("folder");
        let path = root.path().join("state");
        make(&path, STATE_MODE).expect("made");
        assert_eq!(mode(&path), 0o700);
        set_mode(&path, 0o755).expect("opened");
        make(&path, STATE_MODE).expect("there");
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_socket_is_reached_however_long_its_folder_is() {
        let root = tempfile::tempdir().expect("folder");
        let dir = RunDir::create(&root.path().join("x".repeat(100)), &NetworkId([3; 32])).expect("made");
        let listener = dir.with_socket_path(|path| std::os::unix::net::UnixListener::bind(path)).expect("bound");
        dir.with_socket_path(|path| std::os::unix::net::UnixStream::connect(path)).expect("connected");
        drop(listener);
        assert!(dir.socket().exists());
    }
}
