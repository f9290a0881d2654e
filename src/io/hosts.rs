//! The system's hosts file, changed without harm: everything that is not to change stays as it is, byte by byte, and so
//! do owner and rights; a reader sees the old text or the new one.
//!
//! 1. **Other daemons** of this machine change it too: each holds a lock from reading to writing.
//! 2. **Nothing is written** where nothing changes.
//! 3. **A new file takes the old one's place.** Where that cannot be, or would lose something (a file that is mounted by
//!    itself, as in containers; one with two names; a folder that cannot be written to; a label of SELinux), the text is
//!    overwritten where it stands.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The variable that names another file.
const VARIABLE: &str = "PUNCHLAN_HOSTS";
const USUAL: &str = "/etc/hosts";
/// How often a lock is asked for, and the time between: anybody may hold one, and must not hold us up for long.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// A hosts file.
#[derive(Clone, Debug)]
pub struct HostsFile {
    path: PathBuf,
}

impl HostsFile {
    /// The system's, or that of `$PUNCHLAN_HOSTS`.
    pub fn from_env() -> Self {
        let path = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
        Self { path: path.map_or_else(|| USUAL.into(), PathBuf::from) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says. Each character is one byte, whatever the encoding: so nothing is lost.
    ///
    /// # Errors
    /// The system's.
    pub fn text(&self) -> io::Result<String> {
        std::fs::read(&self.path).map(|bytes| bytes.into_iter().map(char::from).collect())
    }

    /// Has it say what `change` makes of its text.
    ///
    /// # Errors
    /// The system's: it cannot be read, or written.
    pub fn edit(&self, change: impl FnOnce(&str) -> String) -> io::Result<()> {
        // What the name stands for, if it is a link: that stays one.
        let path = match self.path.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.path.clone(),
            found => found?,
        };
        let place = Self { path };
        let _lock = place.lock();
        let old = match place.text() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let new = change(&old);
        // Only what we add is new, and that is ASCII.
        let bytes: Vec<u8> = new.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
        if new == old { Ok(()) } else { place.write(&bytes) }
    }

    /// The lock of the file that has the name when it is held. Without it we go on: nobody else may change it now.
    #[allow(clippy::disallowed_methods, reason = "a file's lock tells nobody that it is free again")]
    fn lock(&self) -> Option<File> {
        for _ in 0..ATTEMPTS {
            let file = File::open(&self.path).ok()?;
            match file.try_lock() {
                Ok(()) if is_same(&file, &self.path) => return Some(file),
                Ok(()) => {} // Another took its place meanwhile.
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(TryLockError::Error(_)) => return None,
            }
        }
        None
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let metadata = std::fs::metadata(&self.path).ok();
        let has_label = Path::new("/sys/fs/selinux/enforce").exists();
        if metadata.as_ref().is_none_or(|old| old.nlink() == 1 && !has_label) {
            match self.replace(bytes, metadata.as_ref()) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!(%error, path = %self.path.display(), "overwritten where it stands"),
            }
        }
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()
    }

    fn replace(&self, bytes: &[u8], old: Option<&Metadata>) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let mut new = tempfile::Builder::new().prefix(".hosts-").tempfile_in(folder)?;
        new.write_all(bytes)?;
        let file = new.as_file();
        if let Some(old) = old {
            fchown(file, Some(old.uid()), Some(old.gid()))?;
        }
        let mode = old.map_or(0o644, |old| old.permissions().mode());
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        new.persist(&self.path).map(drop).map_err(|error| error.error)
    }
}

/// Whether the name still leads to the file.
fn is_same(file: &File, path: &Path) -> bool {
    let id = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let (here, there) = (file.metadata().map(id).ok(), std::fs::metadata(path).map(id).ok());
    here.is_some() && here == there
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Place {
        folder: tempfile::TempDir,
    }

    impl Place {
        fn new(text: &[u8]) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            fs::write(folder.path().join("hosts"), text).expect("written");
            Self { folder }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("hosts")
        }

        fn add(&self, line: &str) -> io::Result<()> {
            HostsFile { path: self.path() }.edit(|old| format!("{old}{line}\n"))
        }
    }

    #[test]
    fn what_is_not_to_change_stays_byte_by_byte_with_owner_and_rights() {
        let place = Place::new(b"# caf\xe9 \xff\n");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o640)).expect("set");
        let is_root = nix::unistd::geteuid().is_root();
        if is_root {
            std::os::unix::fs::chown(place.path(), Some(12), Some(34)).expect("given away");
        }
        let before = fs::metadata(place.path()).expect("there");
        place.add("::1 x").expect("written");
        assert_eq!(fs::read(place.path()).expect("read"), b"# caf\xe9 \xff\n::1 x\n");
        let after = fs::metadata(place.path()).expect("there");
        assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
        assert_ne!(after.ino(), before.ino(), "a reader of the old one has it whole");
        HostsFile { path: place.path() }.edit(str::to_owned).expect("nothing to write");
        assert_eq!(fs::metadata(place.path()).expect("there").ino(), after.ino());
        assert_eq!(fs::read_dir(place.folder.path()).expect("a folder").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_stays_one_and_so_does_a_file_with_two_names() {
        let place = Place::new(b"one\n");
        let (link, second) = (place.folder.path().join("link"), place.folder.path().join("second"));
        std::os::unix::fs::symlink("hosts", &link).expect("linked");
        HostsFile { path: link.clone() }.edit(|old| format!("{old}two\n")).expect("written");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::read(place.path()).expect("read"), b"one\ntwo\n");
        fs::hard_link(place.path(), &second).expect("linked");
        place.add("three").expect("written");
        assert_eq!(fs::read(&second).expect("read"), b"one\ntwo\nthree\n");
        HostsFile { path: place.path() }.edit(|_| "short\n".to_owned()).expect("written");
        assert_eq!(fs::read(&second).expect("read"), b"short\n");
    }

    #[test]
    fn a_file_that_is_not_there_is_made_and_one_that_cannot_be_written_is_said_to_be_so() {
        let place = Place::new(b"");
        fs::remove_file(place.path()).expect("removed");
        place.add("::1 x").expect("written");
        assert_eq!(fs::metadata(place.path()).expect("there").mode() & 0o777, 0o644);
        let nowhere = HostsFile { path: place.folder.path().join("no/hosts") };
        assert!(nowhere.edit(|_| "x".to_owned()).is_err());
        nowhere.edit(|_| String::new()).expect("nothing to write");
    }

    #[test]
    fn of_those_who_write_at_the_same_time_none_is_lost() {
        let place = Place::new(b"");
        std::thread::scope(|scope| {
            for name in ["a", "b", "c", "d"] {
                let place = &place;
                scope.spawn(move || (0..5).for_each(|_| place.add(name).expect("written")));
            }
        });
        let text = fs::read_to_string(place.path()).expect("read");
        assert!(["a", "b", "c", "d"].iter().all(|name| text.matches(name).count() == 5), "{text}");
    }

    #[test]
    fn who_holds_the_lock_for_ever_holds_nobody_up() {
        let place = Place::new(b"");
        let held = File::open(place.path()).expect("there");
        held.lock().expect("locked");
        place.add("::1 x").expect("written");
    }
}
