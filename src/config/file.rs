//! Step 2: the text on disk and its types, as a person writes them.

use std::fmt;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::DeTable;
use zeroize::Zeroizing;

use super::report::{ConfigError, Problem};

/// Nobody writes a net.toml longer than this; whatever is longer is another file.
const MAX_BYTES: u64 = 1 << 20;

/// net.toml as typed.
#[derive(Debug, Deserialize)]
pub(super) struct NetToml {
    pub(super) network: Option<Spanned<Network>>,
    #[serde(default)]
    pub(super) peer: Peer,
    #[serde(default)]
    pub(super) relay: Relay,
    #[serde(default)]
    pub(super) lan: Lan,
}

/// `[network]` as typed.
#[derive(Debug, Deserialize)]
pub(super) struct Network {
    pub(super) name: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<Secret>>,
    pub(super) subnet: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) rendezvous: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) deny: Vec<Spanned<String>>,
}

/// `[peer]` as typed.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Peer {
    pub(super) name: Option<Spanned<String>>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) listen: Option<Spanned<i64>>,
    pub(super) port_mapping: Option<bool>,
    pub(super) lan_discovery: Option<bool>,
    pub(super) log: Option<Spanned<String>>,
}

/// `[relay]` as typed.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Relay {
    pub(super) offer: Option<bool>,
    pub(super) mbit: Option<Spanned<i64>>,
}

/// `[lan]` as typed.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Lan {
    pub(super) broadcast: Option<bool>,
    pub(super) multicast: Option<bool>,
}

/// The text of a key: not in `Debug`, and wiped when dropped.
pub(super) struct Secret(pub(super) Zeroizing<String>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(|text| Self(Zeroizing::new(text)))
    }
}

/// Gives every value of `table`, which is `text`, its type.
pub(super) fn typed<T: DeserializeOwned>(text: &str, table: Spanned<DeTable<'_>>) -> Result<T, Problem> {
    T::deserialize(toml::Deserializer::from(table)).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let problem = Problem::at(span.clone(), wrong_type(error.message()));
        match error.message().ends_with("expected a sequence").then(|| as_list(text, span)).flatten() {
            Some(line) => problem.help(format!("type: {line}")),
            None => problem,
        }
    })
}

/// The line of a value that should be a list, with brackets around it.
fn as_list(text: &str, value: Range<usize>) -> Option<String> {
    let before = text.get(..value.start)?;
    let key = before.rsplit('\n').next()?.trim_end().strip_suffix('=')?.trim();
    Some(format!("{key} = [{}]", text.get(value)?))
}

/// serde's sentence in words of net.toml.
fn wrong_type(message: &str) -> String {
    let message = message.trim();
    match message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => {
            let expected = match expected {
                "a string" => "text in quotation marks",
                "a sequence" => "a list: [\"…\", \"…\"]",
                "i64" => "a whole number",
                "a boolean" => "true or false, without quotation marks",
                other => other,
            };
            format!("wrong type: this is {found}, but it should be {expected}")
        }
        None => message.to_owned(),
    }
}

/// Reads the file, if nobody else can.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    read_if(path, check_mode)
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    read_if(path, |_, _| Ok(()))
}

type Check = fn(&Path, &std::fs::Metadata) -> Result<(), ConfigError>;

fn read_if(path: &Path, check: Check) -> Result<Zeroizing<String>, ConfigError> {
    let mut file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return Err(ConfigError::unusable(path, "this is a folder", "name the file in it"));
    }
    check(path, &metadata)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.by_ref().take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ConfigError::unusable(path, "this is longer than 1 MiB, so it is another kind of file", EXAMPLES));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(ConfigError::unusable(path, "this is not UTF-8 text, so it is another kind of file", EXAMPLES)),
    }
}

const EXAMPLES: &str = "conf/ has an example; `punchlan init` writes a net.toml";

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    match error.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing(path.to_owned()),
        io::ErrorKind::PermissionDenied => ConfigError::unusable(
            path,
            "you may not read this file; it belongs to another user",
            format!("put sudo before the command, or take the file over: sudo chown $USER {}", quoted(path)),
        ),
        _ => ConfigError::unusable(path, format!("cannot be read: {error}"), EXAMPLES),
    }
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &std::fs::Metadata) -> Result<(), ConfigError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(ConfigError::unusable(
        path,
        format!(
            "others on this machine can read or write this file (mode {mode:03o}), and it holds the network's secret key"
        ),
        format!("type: chmod 600 {}", quoted(path)),
    ))
}

#[cfg(not(unix))]
fn check_mode(_path: &Path, _metadata: &std::fs::Metadata) -> Result<(), ConfigError> {
    Ok(()) // Files inherit the rights of their folder; there is no mode to look at.
}

/// The path as it is typed into a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@%".contains(c);
    if text.chars().all(plain) && !text.starts_with('-') {
        text
    } else {
        format!("-- '{}'", text.replace('\'', r"'\''"))
    }
}
