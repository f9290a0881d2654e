//! One file of the state: a checksummed whole, replaced at once.
//!
//! ```text
//!  0       8      12          16            16+n        48+n
//!  +-------+------+-----------+--------------+-----------+
//!  |punchl1| kind | length n  | content      | SHA-256   |
//!  +-------+------+-----------+--------------+-----------+
//!     8       4     4 (BE)       n             32, over all before
//! ```
//!
//! The kind keeps one file from passing for another.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"punchl1\n";
const HEADER_LEN: usize = 16;
const SUM_LEN: usize = 32;
/// No file of ours comes near this; a larger one is not read into memory.
const MAX_LEN: u64 = 64 << 20;
/// Damaged files kept at most; beyond that the last is overwritten.
const MAX_DAMAGED: u32 = 100;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Key,
    Numbers,
    Cache,
}

impl Kind {
    const fn tag(self) -> &'static [u8; 4] {
        match self {
            Self::Key => b"key ",
            Self::Numbers => b"numb",
            Self::Cache => b"cach",
        }
    }
}

/// Why a file's content was not had.
#[derive(Debug)]
pub(super) enum Damage {
    /// It is not what was once written.
    Content(&'static str),
    /// It could not be read.
    Io(io::Error),
}

/// The content of the file, `None` if there is none.
pub(super) fn read(path: &Path, kind: Kind) -> Result<Option<Zeroizing<Vec<u8>>>, Damage> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Damage::Io(error)),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    match file.take(MAX_LEN + 1).read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Err(Damage::Content("it is a folder")),
        read => read.map_err(Damage::Io)?,
    };
    decode(&bytes, kind).map(|content| Some(Zeroizing::new(content.to_vec()))).map_err(Damage::Content)
}

/// Durably puts `content` in the place of the file: after a crash at any moment, the old or the new one is
/// there, whole. Readable by its owner alone.
pub(super) fn write(path: &Path, kind: Kind, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let bytes = encode(kind, content)?;
    // One left by a crash goes; the state folder's lock keeps everybody else away.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = open_private(&beside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&beside, path)?;
    sync_folder(path)
}

/// Opens for writing, making it readable by its owner alone if it is new.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Renames `path` to the first free `path.damaged-N`, and says to what.
pub(super) fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let name = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{n}"));
        PathBuf::from(name)
    };
    let to = (1..MAX_DAMAGED).map(name).find(|to| !to.exists()).unwrap_or_else(|| name(MAX_DAMAGED));
    std::fs::rename(path, &to)?;
    sync_folder(path)?;
    Ok(to)
}

/// Makes a rename last.
fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path; // Windows cannot sync a folder; NTFS journals renames.
    Ok(())
}

fn encode(kind: Kind, content: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
    let len = u32::try_from(content.len()).ok().filter(|len| u64::from(*len) < MAX_LEN / 2);
    let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "too much for a state file"))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER_LEN + content.len() + SUM_LEN));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(kind.tag());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(content);
    let sum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(sum.as_ref());
    Ok(bytes)
}

fn decode(bytes: &[u8], kind: Kind) -> Result<&[u8], &'static str> {
    if bytes.is_empty() {
        return Err("it is empty");
    }
    let body = bytes.len().checked_sub(SUM_LEN).filter(|len| *len >= HEADER_LEN).ok_or("it is too short")?;
    let (body, sum) = bytes.split_at(body);
    let (header, content) = body.split_at(HEADER_LEN);
    if !header.starts_with(MAGIC) {
        return Err("it is no punchlan state file");
    }
    if digest(&SHA256, body).as_ref() != sum {
        return Err("its checksum does not match");
    }
    if header[8..12] != *kind.tag() {
        return Err("it is a state file of another kind");
    }
    if u32::try_from(content.len()).map(u32::to_be_bytes).ok().as_ref().map(<[u8; 4]>::as_slice) != Some(&header[12..])
    {
        return Err("its length is wrong");
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn content_survives_and_any_changed_byte_is_found(
            content in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let mut bytes = encode(Kind::Cache, &content).expect("small").to_vec();
            prop_assert_eq!(decode(&bytes, Kind::Cache), Ok(content.as_slice()));
            prop_assert!(decode(&bytes, Kind::Key).is_err());
            let at = at.index(bytes.len());
            prop_assert!(decode(&bytes[..at], Kind::Cache).is_err());
            bytes[at] ^= flip;
            prop_assert!(decode(&bytes, Kind::Cache).is_err());
        }

        #[test]
        fn no_bytes_make_the_reader_fail_otherwise(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes, Kind::Numbers).is_err());
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_private() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("cache");
        write(&path, Kind::Cache, b"old, and longer").expect("write");
        // What a crash left beside it neither hinders nor shows.
        std::fs::write(folder.path().join("cache.new"), vec![7; 1000]).expect("crash");
        assert_eq!(read(&path, Kind::Cache).expect("whole").expect("there").as_slice(), b"old, and longer");
        write(&path, Kind::Cache, b"new").expect("write");
        assert_eq!(read(&path, Kind::Cache).expect("whole").expect("there").as_slice(), b"new");
        assert!(!folder.path().join("cache.new").exists());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_in_the_place_of_a_file_is_damage() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("cache");
        std::fs::create_dir(&path).expect("made");
        assert!(matches!(read(&path, Kind::Cache), Err(Damage::Content("it is a folder"))));
        assert!(move_aside(&path).expect("moved").is_dir());
        assert!(matches!(read(&path, Kind::Cache), Ok(None)));
    }

    #[test]
    fn damaged_files_are_moved_aside_under_new_names() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("cache");
        for n in 1..=3 {
            std::fs::write(&path, b"rubbish").expect("write");
            assert_eq!(move_aside(&path).expect("moved"), folder.path().join(format!("cache.damaged-{n}")));
        }
    }
}
