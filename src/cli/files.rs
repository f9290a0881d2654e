//! Files with secrets: made for their owner alone, never over another.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::Failure;

/// Refuses early, before anything was decided, what [`write_new`] would refuse in the end.
pub(super) fn refuse_existing(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_ok() { Err(exists(path)) } else { Ok(()) }
}

/// Writes `text` into a new file with mode 0600.
pub(super) fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|error| not_made(path, &error))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        let _ = std::fs::remove_file(path);
        Failure::Failed(format!("{} could not be written: {error}", path.display()))
    })
}

fn exists(path: &Path) -> Failure {
    Failure::Usage(format!(
        "{} exists already, and is never overwritten\n  help: name another file behind the command, or move this one away",
        path.display()
    ))
}

fn not_made(path: &Path, error: &std::io::Error) -> Failure {
    let shown = path.display();
    match error.kind() {
        ErrorKind::AlreadyExists => exists(path),
        ErrorKind::NotFound => Failure::Usage(format!(
            "{shown} cannot be made: its folder does not exist\n  help: make it first, with mkdir, or name another"
        )),
        ErrorKind::PermissionDenied => Failure::NotPermitted(format!(
            "{shown} cannot be made: you may not write into its folder\n  help: use a folder of yours, or put sudo before the command"
        )),
        _ => Failure::Failed(format!("{shown} cannot be made: {error}")),
    }
}
