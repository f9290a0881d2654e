//! Lists of tests that the project promises to have: what they name must exist.

#![allow(dead_code, unreachable_pub, reason = "each test binary that includes this file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Panics unless `test` (`file: test`) is there.
pub fn test_exists(test: &str) {
    let (file, name) = test.split_once(": ").expect("file: test");
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert!(text.contains(&format!("fn {name}(")), "{test} does not exist");
}

/// The texts of all source files in and below `folder`.
pub fn sources(folder: &str) -> Vec<String> {
    let (mut folders, mut texts) = (vec![root().join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let paths = entries.map(|entry| entry.expect("readable").path());
        let (inner, files): (Vec<PathBuf>, Vec<PathBuf>) = paths.partition(|path| path.is_dir());
        folders.extend(inner);
        texts.extend(files.iter().map(|file| fs::read_to_string(file).expect("UTF-8")));
    }
    texts
}
