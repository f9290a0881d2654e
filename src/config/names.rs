//! Step 1: the text is TOML, and every section and key is one that exists.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::Problem;

/// The names that a file may have.
pub(super) struct Names<'a> {
    /// Keys above the first section.
    pub(super) top: &'a [&'a str],
    /// Sections and their keys.
    pub(super) sections: &'a [(&'a str, &'a [&'a str])],
    /// Sections of later versions: an error, never accepted and ignored.
    pub(super) later: &'a [&'a str],
}

/// Those of net.toml.
pub(super) const NET_TOML: Names<'static> = Names {
    top: &[],
    sections: &[
        ("network", &["name", "key", "subnet", "rendezvous", "deny"]),
        ("peer", &["name", "address", "listen", "port_mapping", "lan_discovery", "log"]),
        ("relay", &["offer", "mbit"]),
        ("lan", &["broadcast", "multicast"]),
    ],
    later: &["dns", "socks", "forward", "expose"],
};

/// Parses `text` and holds its names against those that there are.
pub(super) fn check<'t>(names: &Names<'_>, text: &'t str) -> Result<Spanned<DeTable<'t>>, Vec<Problem>> {
    let table = DeTable::parse(text).map_err(|error| vec![syntax(text, &error)])?;
    let mut problems = Vec::new();
    for (name, value) in table.get_ref() {
        names.section(&mut problems, name, value);
    }
    if problems.is_empty() { Ok(table) } else { Err(problems) }
}

/// The parser's complaint; in the usual cases in words of this file.
fn syntax(text: &str, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(text.len()..text.len());
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let line = &text[text[..start].rfind('\n').map_or(0, |i| i + 1)..];
    let line = line.lines().next().unwrap_or_default();
    if let Some(key) = key_of_bare_text(line) {
        return Problem::at(span, "not valid TOML: this text is not in quotation marks").help(format!("{key} = \"…\""));
    }
    let what = match error.message().trim() {
        what if what.starts_with("duplicate key") => "this is here twice; keep one",
        what if what.starts_with("string values must be quoted") => "text stands in quotation marks: \"…\"",
        what if what.starts_with("invalid basic string, expected `\"`") => "the quotation mark at the end is missing",
        what => what,
    };
    Problem::at(span, format!("not valid TOML: {what}"))
}

/// The key of a line like `name = friday` or `subnet = 10.77.0.0/24`.
fn key_of_bare_text(line: &str) -> Option<&str> {
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let value = value.split('#').next().unwrap_or_default().trim();
    let is_text = value.starts_with(|c: char| c.is_alphabetic()) && !matches!(value, "true" | "false" | "inf" | "nan");
    let is_address = value.starts_with(|c: char| c.is_ascii_digit()) && value.contains(['/', ':'])
        || value.matches('.').count() > 1 && !value.contains('"');
    (is_key && (is_text || is_address)).then_some(key)
}

impl Names<'_> {
    fn section(&self, problems: &mut Vec<Problem>, name: &Spanned<impl AsRef<str>>, value: &Spanned<DeValue<'_>>) {
        let (span, text) = (name.span(), name.get_ref().as_ref());
        let is_section = matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_));
        let Some((_, keys)) = self.sections.iter().find(|(section, _)| *section == text) else {
            match self.top.contains(&text) {
                true => {} // Its type is the next step's concern.
                false if is_section && !self.top.iter().any(|key| nearest(text, [*key].into_iter()).is_some()) => {
                    problems.push(self.unknown_section(span, text));
                }
                false => problems.push(self.outside(span, text)),
            }
            return;
        };
        match value.get_ref() {
            DeValue::Table(table) => {
                let unknown = table.keys().filter(|key| !keys.contains(&key.get_ref().as_ref()));
                problems.extend(unknown.map(|key| self.unknown_key(key.span(), text, key.get_ref().as_ref(), keys)));
            }
            DeValue::Array(_) => problems.push(
                Problem::at(span, format!("there is one [{text}] section, not a list of them"))
                    .help(format!("write [{text}] with single brackets, once")),
            ),
            _ => problems.push(
                Problem::at(span, format!("`{text}` is a section, not a value"))
                    .help(format!("write [{text}] on a line of its own")),
            ),
        }
    }

    fn unknown_section(&self, span: Range<usize>, name: &str) -> Problem {
        if self.later.contains(&name) {
            return Problem::at(span, format!("section [{name}] is not in this version of punchlan"))
                .help("delete the section, or put # before its lines");
        }
        let problem = Problem::at(span, format!("unknown section [{name}]"));
        match nearest(name, self.sections.iter().map(|(section, _)| *section)) {
            Some(near) => problem.help(format!("did you mean [{near}]?")),
            None => problem.help(self.list_of_sections()),
        }
    }

    /// A key above the first section that does not belong there.
    fn outside(&self, span: Range<usize>, name: &str) -> Problem {
        if let Some(near) = nearest(name, self.top.iter().copied()) {
            return Problem::at(span, format!("unknown key `{name}`")).help(format!("did you mean `{near}`?"));
        }
        let problem = Problem::at(span, format!("`{name}` stands outside of any section"));
        let near = nearest(name, self.sections.iter().flat_map(|(_, keys)| *keys).copied());
        match near.and_then(|near| Some((near, self.sections.iter().find(|(_, keys)| keys.contains(&near))?.0))) {
            Some((near, home)) if near == name => problem.help(format!("put the line [{home}] above it")),
            Some((near, home)) => problem.help(format!("did you mean `{near}`? It belongs into the section [{home}]")),
            None => problem.help(self.list_of_sections()),
        }
    }

    fn list_of_sections(&self) -> String {
        let sections: Vec<String> = self.sections.iter().map(|(section, _)| format!("[{section}]")).collect();
        format!("the sections are {}", sections.join(" and "))
    }

    fn unknown_key(&self, span: Range<usize>, section: &str, name: &str, keys: &[&str]) -> Problem {
        let problem = Problem::at(span, format!("unknown key `{name}` in [{section}]"));
        let elsewhere = self.sections.iter().find(|(other, keys)| *other != section && keys.contains(&name));
        match (elsewhere, nearest(name, keys.iter().copied())) {
            (Some((other, _)), _) => problem.help(format!("`{name}` belongs into the section [{other}]")),
            (None, _) if self.top.contains(&name) => problem.help(format!("`{name}` stands above the first section")),
            (None, Some(near)) => problem.help(format!("did you mean `{near}`?")),
            (None, None) => problem.help(format!("[{section}] has the keys {}", keys.join(", "))),
        }
    }
}

/// The known word that a person most likely meant.
pub(crate) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase();
    let distance = |word: &&str| strsim::damerau_levenshtein(&typed, word);
    known.min_by_key(distance).filter(|word| word.starts_with(&typed) || distance(word) <= 1 + word.len() / 3)
}
