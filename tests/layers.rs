//! Holds the layers of `src/lib.rs`: imports point down only, and the code below `io` reads no clock,
//! opens no socket or file, starts no thread and is not `async`.
//!
//! The source is read as tokens (comments and strings are skipped), every path in it is written out in
//! full (`use a::{b, c::d}` is `a::b` and `a::c::d`), and each path is held against the two tables below.
//! What `#[cfg(test)]` encloses may look up, since a test of a client is best run against the real
//! server; but it reads no clock either.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module and its layer. `src/lib.rs` draws the same map for people, and a test compares them.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["id", "addr", "nat", "sans"]),
    (1, &["wire"]),
    (2, &["crypto", "session", "offload", "fair"]),
    (3, &["punch", "symmetric", "tcp", "gather", "rendezvous", "relay", "netcheck"]),
    (4, &["router", "forward", "names"]),
    (5, &["node"]),
    (6, &["io"]),
    (7, &["server", "daemon", "control", "lab", "metrics", "api"]),
    (8, &["config", "cli", "log"]),
];

/// The machines of this layer never import each other; elsewhere neighbours may.
const STRANGERS: u8 = 3;

/// The last layer without effects.
const SANS_IO: u8 = 5;

/// Words that betray an effect, wherever they stand in a path.
const EFFECTS: &[(&[&str], &str)] = &[
    (&["Instant", "now"], "a clock"),
    (&["time", "Instant"], "a clock"),
    (&["SystemTime"], "a clock"),
    (&["UdpSocket"], "a socket"),
    (&["TcpStream"], "a socket"),
    (&["TcpListener"], "a socket"),
    (&["UnixStream"], "a socket"),
    (&["UnixListener"], "a socket"),
    (&["UnixDatagram"], "a socket"),
    (&["quinn_udp"], "a socket"),
    (&["socket2"], "a socket"),
    (&["nix"], "the operating system"),
    (&["std", "os"], "the operating system"),
    (&["std", "env"], "the operating system"),
    (&["std", "process"], "the operating system"),
    (&["std", "fs"], "a file"),
    (&["std", "io"], "input and output"),
    (&["std", "thread"], "a thread"),
    (&["thread", "spawn"], "a thread"),
    (&["async"], "async code"),
    (&["await"], "async code"),
    (&["tokio"], "async code"),
    (&["OsRng"], "entropy"),
    (&["SysRng"], "entropy"),
    (&["ThreadRng"], "entropy"),
    (&["thread_rng"], "entropy"),
    (&["getrandom"], "entropy"),
    (&["SystemRandom"], "entropy"),
];

/// One line of source that breaks the rule.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

#[test]
fn imports_point_down_and_nothing_below_io_has_effects() {
    let mut breaches = Vec::new();
    for (file, module) in sources() {
        let text = fs::read_to_string(&file).expect("source is readable");
        let shown = file.strip_prefix(root()).expect("below the root").display().to_string();
        breaches.extend(check(&module, &text).into_iter().map(|b| format!("{shown}:{b}")));
    }
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn every_module_has_its_place_in_the_map() {
    for (file, module) in sources() {
        assert!(layer(&module[0]).is_some(), "{} is in no layer", file.display());
    }
}

#[test]
fn the_map_in_the_crate_documentation_is_this_map() {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs is readable");
    let mut drawn = Vec::new();
    for line in text.lines().filter_map(|l| l.strip_prefix("//! L")) {
        let Some((number, names)) = line.split_once(' ') else { continue };
        let Ok(number) = number.parse::<u8>() else { continue };
        let names = names.split("  ").next().unwrap_or_default();
        for name in names.split_whitespace().map(|n| n.trim_end_matches('/')) {
            assert_eq!(layer(name), Some(number), "lib.rs draws `{name}` at L{number}");
            drawn.push(name.to_owned());
        }
    }
    for (file, module) in sources() {
        assert!(drawn.contains(&module[0]), "lib.rs does not draw `{}` ({})", module[0], file.display());
    }
}

#[test]
fn an_arrow_that_points_up_is_found() {
    let found = |module: &[&str], text: &str| check(&own(module), text).into_iter().map(|b| b.line).collect::<Vec<_>>();
    let wire = ["wire", "probe"];
    assert_eq!(found(&wire, "use crate::id::PeerId;\nuse crate::session::Session;"), [2]);
    assert_eq!(found(&wire, "use crate::{\n id::PeerId,\n node::{status, Node},\n};"), [3, 3]);
    assert_eq!(found(&wire, "use super::super::node;\nuse super::Reader;"), [1]);
    assert_eq!(found(&wire, "mod inner {\n use super::super::super::io::clock;\n use super::super::Reader;\n}"), [2]);
    assert_eq!(found(&wire, "fn f() { let x = crate::cli::run::<u8>(); }"), [1]);
    assert_eq!(found(&wire, "macro_rules! m { () => { $crate::router::X } }"), [1]);
    assert_eq!(found(&wire, "use crate::*;\nuse crate::Nonsense;"), [1, 2]);
    assert_eq!(found(&["punch"], "use crate::relay::Table;\nuse crate::punch::score;\nuse crate::session::Slot;"), [1]);
    assert_eq!(found(&["node"], "use crate::relay::Table; use crate::node::status; use crate::id;"), [0; 0]);
}

#[test]
fn an_effect_below_io_is_found() {
    let found = |text: &str| check(&own(&["session"]), text).into_iter().map(|b| b.line).collect::<Vec<_>>();
    assert_eq!(found("use std::time::{Duration, Instant};"), [1]);
    assert_eq!(found("use std::time::Duration;\nuse crate::sans::Instant;"), [0; 0]);
    assert_eq!(found("let t = Instant::now();"), [1]);
    assert_eq!(found("use std::{fs, sync::Arc};\nasync fn f() {}\nuse tokio::net::UdpSocket;"), [1, 2, 3, 3]);
    assert_eq!(found("use std::time as t;\nfn f(x: std::os::fd::RawFd) {}"), [2]);
    assert_eq!(
        found("#[cfg(test)]\nmod tests {\n use crate::server::Core;\n use std::thread;\n}\nuse crate::io;"),
        [4, 6]
    );
    assert!(check(&own(&["io"]), "use std::time::Instant; async fn f() {}").is_empty());
}

#[test]
fn comments_and_strings_are_no_code() {
    let text = r####"
        //! [`crate::io`] and SystemTime
        /* tokio /* nested */ async */
        const A: &str = "tokio \" async"; const B: &str = r#"std::fs " "#; const C: char = '"'; const D: &[u8] = b"tokio";
        fn f<'a>(x: &'a str) -> char { '\'' }
        use crate::io;
    "####;
    let breaches = check(&own(&["wire"]), text);
    assert_eq!(breaches.iter().map(|b| b.line).collect::<Vec<_>>(), [6], "{breaches:?}");
}

fn own(module: &[&str]) -> Vec<String> {
    module.iter().map(ToString::to_string).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, names)| names.contains(&module)).map(|(n, _)| *n)
}

/// All files of the library but its root, each with its module path.
fn sources() -> Vec<(PathBuf, Vec<String>)> {
    let mut files = Vec::new();
    collect(&root().join("src"), &mut Vec::new(), &mut files);
    files.retain(|(_, module)| !module.is_empty());
    assert!(files.len() > 10, "the source was found");
    files.sort();
    files
}

fn collect(folder: &Path, module: &mut Vec<String>, files: &mut Vec<(PathBuf, Vec<String>)>) {
    for entry in fs::read_dir(folder).expect("folder is readable") {
        let path = entry.expect("entry is readable").path();
        let name = path.file_stem().and_then(|n| n.to_str()).expect("names are UTF-8").to_owned();
        let top = module.is_empty() && ["lib", "main"].contains(&name.as_str());
        if path.is_dir() {
            module.push(name);
            collect(&path, module, files);
            module.pop();
        } else if path.extension().is_some_and(|e| e == "rs") && !top {
            let mut module = module.clone();
            if name != "mod" {
                module.push(name);
            }
            files.push((path, module));
        }
    }
}

/// What of `text`, the source of `module`, breaks the rules.
fn check(module: &[String], text: &str) -> Vec<Breach> {
    let tokens = tokens(text);
    let from = layer(&module[0]).unwrap_or_default();
    // A file of tests alone: `#[cfg(test)] mod tests;`.
    let only_tests = module.last().is_some_and(|name| name == "tests");
    let mut breaches = Vec::new();
    for path in paths(module, &tokens) {
        let words: Vec<&str> = path.words.iter().map(String::as_str).collect();
        let mut breach = |what: String| breaches.push(Breach { line: path.line, what });
        if !(path.test || only_tests)
            && let ["crate", target, ..] = words[..]
            && let Some(what) = arrow(from, &module[0], target)
        {
            breach(format!("`{}`: {what}", words.join("::")));
        }
        for (pattern, effect) in EFFECTS.iter().filter(|_| from <= SANS_IO) {
            if words.windows(pattern.len()).any(|w| w == *pattern) {
                breach(format!("`{}` is {effect}, and L{from} has none", words.join("::")));
            }
        }
    }
    breaches
}

/// Why `from` may not import `target`.
fn arrow(from: u8, module: &str, target: &str) -> Option<String> {
    match layer(target) {
        None => Some("names no module of the map".to_owned()),
        Some(to) if to > from => Some(format!("L{from} imports L{to}")),
        Some(to) if to == from && from == STRANGERS && target != module => {
            Some(format!("the machines of L{STRANGERS} never import each other"))
        }
        Some(_) => None,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Colons,
    Sign(char),
}

/// A path as written in full, `crate::…` if it begins in this crate.
#[derive(Debug)]
struct Written {
    line: usize,
    words: Vec<String>,
    /// Whether `#[cfg(test)]` encloses it.
    test: bool,
}

/// A `mod name {` whose brace has not closed yet.
struct Open {
    depth: usize,
    test: bool,
}

/// Every path in the tokens of `module`, groups and `super` resolved.
fn paths(module: &[String], tokens: &[(usize, Token)]) -> Vec<Written> {
    let (mut all, mut here, mut open) = (Vec::new(), module.to_vec(), Vec::<Open>::new());
    let (mut depth, mut i) = (0, 0);
    while let Some((_, token)) = tokens.get(i) {
        match token {
            Token::Word(word) if word == "mod" => {
                if let [(_, Token::Word(name)), (_, Token::Sign('{')), ..] = &tokens[i + 1..] {
                    let test = is_test(&tokens[..i]) || open.last().is_some_and(|o| o.test);
                    here.push(name.clone());
                    open.push(Open { depth, test });
                }
                i += 1;
            }
            Token::Word(_) => {
                let test = open.last().is_some_and(|o| o.test);
                i = tree(tokens, i, &mut Vec::new(), &mut |line, words| {
                    all.push(Written { line, words: absolute(&here, words), test });
                });
            }
            Token::Sign(sign) => {
                depth = match sign {
                    '{' => depth + 1,
                    '}' => depth.saturating_sub(1),
                    _ => depth,
                };
                if *sign == '}' && open.last().is_some_and(|o| o.depth == depth) {
                    open.pop();
                    here.pop();
                }
                i += 1;
            }
            Token::Colons => i += 1,
        }
    }
    all
}

/// Whether the tokens end in `#[cfg(test)]`.
fn is_test(before: &[(usize, Token)]) -> bool {
    let text: String = before[before.len().saturating_sub(7)..]
        .iter()
        .map(|(_, t)| match t {
            Token::Word(w) => w.clone(),
            Token::Colons => "::".to_owned(),
            Token::Sign(c) => c.to_string(),
        })
        .collect();
    text == "#[cfg(test)]"
}

/// Reads a path or use-tree at `i`, reports its leaves, returns what follows it.
fn tree(
    tokens: &[(usize, Token)],
    mut i: usize,
    stem: &mut Vec<String>,
    leaf: &mut dyn FnMut(usize, &[String]),
) -> usize {
    let height = stem.len();
    let mut line = tokens[i].0;
    while let Some((l, Token::Word(word))) = tokens.get(i) {
        line = *l;
        stem.push(word.clone());
        i += 1;
        if tokens.get(i).map(|(_, t)| t) != Some(&Token::Colons) {
            break;
        }
        i += 1;
    }
    match tokens.get(i) {
        Some((_, Token::Sign('{'))) if stem.len() > height && tokens[i - 1].1 == Token::Colons => {
            i += 1;
            while tokens.get(i).is_some_and(|(_, t)| *t != Token::Sign('}')) {
                i = match tokens[i].1 {
                    Token::Word(_) => tree(tokens, i, stem, leaf),
                    _ => i + 1,
                };
            }
            i += 1;
        }
        Some((_, Token::Sign('*'))) if tokens[i - 1].1 == Token::Colons => {
            stem.push("*".to_owned());
            leaf(line, stem);
        }
        _ => leaf(line, stem),
    }
    stem.truncate(height);
    i
}

/// The path from the crate's root, where it starts with `self` or `super`.
fn absolute(here: &[String], words: &[String]) -> Vec<String> {
    let supers = words.iter().take_while(|w| *w == "super").count();
    let head = usize::from(words[0] == "self");
    if supers + head == 0 || here.len() < supers {
        return words.to_vec();
    }
    let mut full = vec!["crate".to_owned()];
    full.extend_from_slice(&here[..here.len() - supers]);
    full.extend_from_slice(&words[supers + head..]);
    full
}

/// The code of `text` with line numbers.
fn tokens(text: &str) -> Vec<(usize, Token)> {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut line, mut i) = (Vec::new(), 1, 0);
    while i < chars.len() {
        let end = match chars[i] {
            '/' if chars.get(i + 1) == Some(&'/') => until(&chars, i, |c| c == '\n'),
            '/' if chars.get(i + 1) == Some(&'*') => comment(&chars, i),
            '"' => string(&chars, i),
            '\'' => quote(&chars, i),
            c if c.is_alphabetic() || c == '_' => {
                let end = until(&chars, i, |c| !(c.is_alphanumeric() || c == '_'));
                let word: String = chars[i..end].iter().collect();
                match raw_string(&chars, end).filter(|_| ["r", "br", "cr"].contains(&word.as_str())) {
                    Some(end) => end,
                    None => {
                        out.push((line, Token::Word(word)));
                        end
                    }
                }
            }
            ':' if chars.get(i + 1) == Some(&':') => {
                out.push((line, Token::Colons));
                i + 2
            }
            c => {
                if !c.is_whitespace() {
                    out.push((line, Token::Sign(c)));
                }
                i + 1
            }
        };
        line += chars[i..end].iter().filter(|c| **c == '\n').count();
        i = end;
    }
    out
}

fn until(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|i| stop(chars[*i])).unwrap_or(chars.len())
}

/// The end of a block comment; they nest.
fn comment(chars: &[char], from: usize) -> usize {
    let (mut depth, mut i) = (0, from);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i.min(chars.len())
}

/// The end of a string that opens at `from`.
fn string(chars: &[char], from: usize) -> usize {
    let mut i = from + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The end of a raw string whose hashes or quote stand at `from`.
fn raw_string(chars: &[char], from: usize) -> Option<usize> {
    let open = until(chars, from, |c| c != '#');
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let hashes = open - from;
    let closes =
        |i: &usize| chars[*i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    Some((open + 1..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes))
}

/// The end of a character literal or of a lifetime's quote.
fn quote(chars: &[char], from: usize) -> usize {
    match (chars.get(from + 1), chars.get(from + 2)) {
        (Some('\\'), _) => until(chars, from + 3, |c| c == '\'') + 1,
        (_, Some('\'')) => from + 3,
        _ => from + 1,
    }
}
