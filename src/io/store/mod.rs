//! What lives longer than the process: the state folder of a network, and the run folder of its daemon.
//!
//! ```text
//! $PUNCHLAN_STATE/<network id>/     0700, locked by the daemon
//!   lock, pid                       who holds it
//!   device.key                      this machine's secret, 0600: never silently replaced
//!   numbers                         the first number that was certainly not used
//!   cache                           bindings and known peers, as the node wrote them
//!   cache.damaged-1                 a damaged file, moved aside
//! $PUNCHLAN_RUN/<network id>/       0755
//!   control.sock                    the control socket
//! ```
//!
//! Every file carries a checksum and is replaced as a whole (written beside, synced, renamed), so a crash
//! or a power cut leaves the old one or the new one. What is damaged all the same is found: the device key
//! stops the start, everything else is moved aside and made anew.

mod file;
mod folders;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::id::NetworkId;
use file::{Damage, Kind};
pub use folders::{Folders, RunDir};

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon uses it. Exit code 1.
    #[error("{} is in use by {}", path.display(), match pid {
        Some(pid) => format!("the process {pid}; stop that one first: sudo punchlan down"),
        None => "another process".to_owned(),
    })]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The holder, if it said.
        pid: Option<u32>,
    },
    /// The device key is there but not whole. Exit code 2.
    #[error(
        "the device key {} is damaged ({why}); put back a copy of it, or delete it: \
         this machine is then a new device to all others, and its name and address stay \
         with the old one until a member types: punchlan forget NAME",
        path.display()
    )]
    DamagedKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The system refused. Exit code 3 if it is a matter of permission, else 1.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl StoreError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Whether rights are missing.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// What a file of the state held.
#[derive(Debug, PartialEq, Eq)]
pub struct Loaded<T> {
    /// Its content; `None` if there is none, or it was damaged.
    pub value: Option<T>,
    /// Where the damaged file went: worth a warning.
    pub moved_aside: Option<PathBuf>,
}

/// The state folder of one network (or of a rendezvous), locked for as long as the value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Holds the lock.
    lock: File,
}

/// One who has just been told to stop gets this long, in so many looks, to let go of the lock.
const LOCK_LOOKS: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

const LOCK_FILE: &str = "lock";
const PID_FILE: &str = "pid";
const KEY_FILE: &str = "device.key";
const NUMBERS_FILE: &str = "numbers";
const CACHE_FILE: &str = "cache";
/// The folder of a rendezvous, beside those of networks.
const RENDEZVOUS: &str = "rendezvous";

impl StateDir {
    /// Makes the folder of `network` below `parent` if there is none, and locks it.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Io`].
    pub fn open(parent: &Path, network: &NetworkId) -> Result<Self, StoreError> {
        Self::open_named(parent, &network.to_string())
    }

    /// As [`StateDir::open`], for a rendezvous on this machine.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Io`].
    pub fn open_rendezvous(parent: &Path) -> Result<Self, StoreError> {
        Self::open_named(parent, RENDEZVOUS)
    }

    fn open_named(parent: &Path, name: &str) -> Result<Self, StoreError> {
        let path = parent.join(name);
        folders::make(&path, folders::STATE_MODE).map_err(|source| StoreError::io(&path, source))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = file::open_private(&lock_path).map_err(|source| StoreError::io(&lock_path, source))?;
        if !take(&lock).map_err(|source| StoreError::io(&lock_path, source))? {
            return Err(StoreError::Locked { pid: read_pid(&path), path });
        }
        // In a file of its own: on Windows nobody else may read a locked one.
        let pid_path = path.join(PID_FILE);
        let pid = std::process::id().to_string();
        std::fs::write(&pid_path, pid).map_err(|source| StoreError::io(&pid_path, source))?;
        Ok(Self { path, lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secret from which the device's keys are derived (or a rendezvous' key): what is stored, or, if
    /// nothing ever was, what `fresh` makes, durably stored before it is returned.
    ///
    /// # Errors
    /// [`StoreError::DamagedKey`], [`StoreError::Io`].
    pub fn device_seed(&self, fresh: impl FnOnce() -> [u8; 32]) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let path = self.path.join(KEY_FILE);
        match file::read(&path, Kind::Key) {
            Ok(Some(bytes)) => match <[u8; 32]>::try_from(bytes.as_slice()) {
                Ok(seed) => Ok(Zeroizing::new(seed)),
                Err(_) => Err(StoreError::DamagedKey { path, why: "its length is wrong" }),
            },
            Ok(None) => {
                let seed = Zeroizing::new(fresh());
                file::write(&path, Kind::Key, &*seed).map_err(|source| StoreError::io(&path, source))?;
                Ok(seed)
            }
            Err(Damage::Content(why)) => Err(StoreError::DamagedKey { path, why }),
            Err(Damage::Io(source)) => Err(StoreError::io(&path, source)),
        }
    }

    /// The first number that was certainly never used.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn ceiling(&self) -> Result<Loaded<u64>, StoreError> {
        let path = self.path.join(NUMBERS_FILE);
        let loaded = load(&path, Kind::Numbers)?;
        match loaded.value.map(|bytes| <[u8; 8]>::try_from(bytes.as_slice())) {
            Some(Ok(bytes)) => Ok(Loaded { value: Some(u64::from_be_bytes(bytes)), moved_aside: None }),
            Some(Err(_)) => Ok(Loaded { value: None, moved_aside: Some(move_aside(&path)?) }),
            None => Ok(Loaded { value: None, moved_aside: loaded.moved_aside }),
        }
    }

    /// Durably reserves all numbers below `ceiling`.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn reserve(&self, ceiling: u64) -> Result<(), StoreError> {
        let path = self.path.join(NUMBERS_FILE);
        file::write(&path, Kind::Numbers, &ceiling.to_be_bytes()).map_err(|source| StoreError::io(&path, source))
    }

    /// The snapshot that the node wrote last.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn cache(&self) -> Result<Loaded<Vec<u8>>, StoreError> {
        load(&self.path.join(CACHE_FILE), Kind::Cache)
    }

    /// Durably replaces the snapshot.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn save_cache(&self, snapshot: &[u8]) -> Result<(), StoreError> {
        let path = self.path.join(CACHE_FILE);
        file::write(&path, Kind::Cache, snapshot).map_err(|source| StoreError::io(&path, source))
    }

    /// Moves the snapshot aside: for a node that cannot read what a whole file holds.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn reject_cache(&self) -> Result<PathBuf, StoreError> {
        move_aside(&self.path.join(CACHE_FILE))
    }
}

/// A leaving daemon takes its pid back, so that a later message never names a stranger.
impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path.join(PID_FILE));
        // Not by closing alone: a child process that is just being started still has the file open.
        let _ = self.lock.unlock();
    }
}

/// Takes the lock; false if somebody keeps it.
#[allow(clippy::disallowed_methods, reason = "once, before anything runs")]
fn take(lock: &File) -> io::Result<bool> {
    for look in 0..LOCK_LOOKS {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if look + 1 < LOCK_LOOKS => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {}
        }
    }
    Ok(false)
}

fn read_pid(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path.join(PID_FILE)).ok()?.trim().parse().ok()
}

/// Reads a file that may be made anew: a damaged one is moved aside.
fn load(path: &Path, kind: Kind) -> Result<Loaded<Vec<u8>>, StoreError> {
    match file::read(path, kind) {
        Ok(value) => Ok(Loaded { value: value.map(|bytes| bytes.to_vec()), moved_aside: None }),
        Err(Damage::Content(_)) => Ok(Loaded { value: None, moved_aside: Some(move_aside(path)?) }),
        Err(Damage::Io(source)) => Err(StoreError::io(path, source)),
    }
}

/// Renames `path` to the first free `path.damaged-N`.
fn move_aside(path: &Path) -> Result<PathBuf, StoreError> {
    file::move_aside(path).map_err(|source| StoreError::io(path, source))
}

#[cfg(test)]
mod tests;
