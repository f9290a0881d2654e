//! Complaints about a file: where, what is wrong, what to type. Never with the secret in them.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// One thing that is wrong at one place of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Bytes of the text that are wrong.
    pub(super) span: Range<usize>,
    /// What is wrong, as a sentence.
    pub(super) what: String,
    /// What to type.
    pub(super) help: Option<String>,
}

impl Problem {
    /// `what` is wrong at `span`.
    pub(super) fn at(span: Range<usize>, what: impl Into<String>) -> Self {
        Self { span, what: what.into(), help: None }
    }

    /// With what to type.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Why a net.toml cannot be used. Its text is for people and begins after the word "error".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("{}: there is no such file", .0.display())]
    Missing(PathBuf),
    /// It cannot be read, or others can read it, or it is no text.
    #[error("{}: {what}\n  help: {help}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
        /// What to type.
        help: String,
    },
    /// Its content is wrong.
    #[error("{0}")]
    Content(Report),
}

/// Rendered complaints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report(String);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ConfigError {
    pub(super) fn unusable(path: &Path, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Unusable { path: path.to_owned(), what: what.into(), help: help.into() }
    }

    pub(super) fn in_text(path: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.start);
        let shown = mask_keys(text);
        let reports: Vec<String> = problems.iter().map(|problem| render(path, &shown, problem)).collect();
        Self::Content(Report(reports.join("\nerror: ")))
    }
}

fn render(path: &str, shown: &str, problem: &Problem) -> String {
    let span = clamp(shown, &problem.span);
    let snippet = Snippet::source(shown).path(path).annotation(AnnotationKind::Primary.span(span));
    let what = mask(&problem.what, false);
    let mut group = Level::ERROR.no_name().primary_title(what).element(snippet);
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(mask(help, false)));
    }
    Renderer::plain().render(&[group])
}

/// A span that the renderer can show: inside the text, on character boundaries, of one line.
fn clamp(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
    let end = text.ceil_char_boundary(span.end.clamp(start, line_end));
    start..end.min(line_end)
}

/// Whatever follows `plk` and is shorter than this is no key, and no part of one that is worth hiding.
const SECRET_LEN: usize = 6;

/// The same text, byte for byte as long, with `*` in place of everything that may be a network key: what
/// follows `plk`, and any value given to a `key`.
pub fn mask_keys(text: &str) -> String {
    mask(text, true)
}

fn mask(text: &str, values_of_key: bool) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let new_word = values_of_key && !masked.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let value = new_word.then(|| value_of_key(rest)).flatten();
        let (keep, hide) = token(rest).or(value).unwrap_or((c.len_utf8(), 0));
        masked.push_str(&rest[..keep]);
        masked.extend(rest[keep..keep + hide].chars().flat_map(|c| std::iter::repeat_n('*', c.len_utf8())));
        rest = &rest[keep + hide..];
    }
    masked
}

fn starts_like_a_key(text: &str) -> bool {
    text.get(..3).is_some_and(|head| head.eq_ignore_ascii_case("plk"))
}

/// If the text of a key begins here: bytes to keep and bytes to hide.
fn token(rest: &str) -> Option<(usize, usize)> {
    let token = rest.find(ends_token).map_or(rest, |end| &rest[..end]);
    (starts_like_a_key(token) && token.len() >= 3 + SECRET_LEN).then(|| (3, token.len() - 3))
}

/// If the name `key` and its value begin here: bytes to keep and bytes to hide. The value ends where one that
/// was typed by hand would; `plk…` on later lines is found by itself.
fn value_of_key(rest: &str) -> Option<(usize, usize)> {
    const AROUND: [char; 4] = ['"', '\'', ' ', '\t'];
    let value = rest.strip_prefix("key")?.trim_start_matches(AROUND).strip_prefix('=')?.trim_start_matches(AROUND);
    let hidden = value.find(['"', '\'', '\n', '\r', '&', '#', '}', ',']).unwrap_or(value.len());
    let shown = if starts_like_a_key(&value[..hidden]) { 3 } else { 0 };
    Some((rest.len() - value.len() + shown, hidden - shown))
}

fn ends_token(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '&' | '#' | ',' | '}' | ']' | '`' | '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_masked_wherever_it_stands() {
        assert_eq!(mask_keys("key = \"plk1-abcd\" # mine"), "key = \"plk******\" # mine");
        assert_eq!(mask_keys("key = \"pkl1-abcd\""), "key = \"*********\"");
        assert_eq!(mask_keys("x = { key = 'hunter2' }"), "x = { key = '*******' }");
        assert_eq!(mask_keys("name=PLK1-ABCD"), "name=PLK******");
        assert_eq!(
            mask_keys("punchlan://join?name=a&key=plk1-ab&subnet=b"),
            "punchlan://join?name=a&key=plk****&subnet=b"
        );
        assert_eq!(mask_keys("key=\u{e9}\u{e9}\nmonkey = \"a\""), "key=****\nmonkey = \"a\"");
        assert_eq!(mask_keys("\"key\" = \"secret\""), "\"key\" = \"******\"");
    }

    proptest::proptest! {
        #[test]
        fn masking_keeps_every_byte_position(text in ".{0,80}") {
            proptest::prop_assert_eq!(mask_keys(&text).len(), text.len());
        }

        #[test]
        fn any_span_can_be_shown(text in "(?s).{0,60}", a in 0usize..90, b in 0usize..90) {
            let _ = ConfigError::in_text("net.toml", &text, vec![Problem::at(a..b, "wrong")]).to_string();
        }
    }
}
