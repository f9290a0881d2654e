//! Remembers what crossed the world and draws it as a sequence diagram when a test fails:
//!
//! ```text
//!              alice     bob       rdv
//!  0.010200    ├────────────────────▶    rendezvous 1200 B  192.168.1.2:4000 → 198.51.100.1:3478 (10.2 ms)
//!  0.020400    ├─────────✕         │     probe 1432 B  192.168.1.2:4000 → 203.0.113.2:4000  lost: filtered by bob's gateway
//!  0.020400    │         *         │     punch: path chosen
//! ```

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use punchlan::sans::Instant;
use punchlan::wire::{self, relay};

/// Lines kept from the beginning, and from the end.
const HEAD: usize = 400;
const TAIL: usize = 1_200;
/// Width of a column.
const COLUMN: usize = 10;

/// Everything that happened, or as much of it as a reader can take.
#[derive(Default)]
pub struct Recorder {
    names: Vec<String>,
    head: Vec<(Instant, What)>,
    tail: VecDeque<(Instant, What)>,
    /// Between them only what was noted.
    middle: Vec<(Instant, What)>,
    left_out: usize,
}

enum What {
    Arrow { from: usize, to: Option<usize>, label: Label },
    Note { host: usize, text: String },
}

struct Label {
    what: &'static str,
    len: usize,
    source: SocketAddr,
    destination: SocketAddr,
    ttl: Option<u8>,
    took: Duration,
    lost: Option<String>,
}

/// A datagram's way, as far as it went.
pub struct Crossing<'a> {
    pub from: usize,
    /// Who got it, or would have.
    pub to: Option<usize>,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub payload: &'a [u8],
    pub ttl: Option<u8>,
    pub sent: Instant,
    /// Where and why it ended on the way.
    pub lost: Option<String>,
}

impl Recorder {
    /// A new lifeline.
    pub fn host(&mut self, name: &str) {
        self.names.push(name.to_owned());
    }

    /// A datagram arrived or was lost.
    pub fn crossing(&mut self, now: Instant, c: Crossing<'_>) {
        let label = Label {
            what: kind(c.payload),
            len: c.payload.len(),
            source: c.source,
            destination: c.destination,
            ttl: c.ttl,
            took: now - c.sent,
            lost: c.lost,
        };
        self.push(now, What::Arrow { from: c.from, to: c.to, label });
    }

    /// Something happened at a host.
    pub fn note(&mut self, now: Instant, host: usize, text: impl Into<String>) {
        self.push(now, What::Note { host, text: text.into() });
    }

    fn push(&mut self, now: Instant, what: What) {
        if self.head.len() < HEAD {
            self.head.push((now, what));
            return;
        }
        self.tail.push_back((now, what));
        if self.tail.len() <= TAIL {
            return;
        }
        match self.tail.pop_front() {
            Some((at, what @ What::Note { .. })) if self.middle.len() < TAIL => self.middle.push((at, what)),
            _ => self.left_out += 1,
        }
    }

    /// The diagram.
    pub fn draw(&self) -> String {
        let mut out = format!("{:>11}  ", "");
        for name in &self.names {
            let _ = write!(out, "{:<COLUMN$}", name.chars().take(COLUMN - 1).collect::<String>());
        }
        out.push('\n');
        for (at, what) in &self.head {
            self.line(&mut out, *at, what);
        }
        if self.left_out > 0 {
            let _ = writeln!(out, "             … {} lines left out, but for …", self.left_out);
        }
        for (at, what) in &self.middle {
            self.line(&mut out, *at, what);
        }
        let _ = writeln!(out, "             …");
        for (at, what) in &self.tail {
            self.line(&mut out, *at, what);
        }
        out
    }

    fn line(&self, out: &mut String, at: Instant, what: &What) {
        let mut row: Vec<char> =
            (0..self.names.len() * COLUMN).map(|i| if i % COLUMN == 0 { '│' } else { ' ' }).collect();
        let text = match what {
            What::Note { host, text } => {
                row[host * COLUMN] = '*';
                text.clone()
            }
            What::Arrow { from, to, label } => {
                arrow(&mut row, *from, *to, label.lost.is_some());
                label.text()
            }
        };
        let seconds = Duration::from_nanos(at.as_nanos()).as_secs_f64();
        let _ = writeln!(out, "{seconds:>11.6}  {}  {text}", row.into_iter().collect::<String>());
    }
}

/// Draws the arrow; one that was lost, or leads nowhere, ends half-way.
fn arrow(row: &mut [char], from: usize, to: Option<usize>, lost: bool) {
    let start = from * COLUMN;
    let aim = match to {
        Some(to) if to != from => to * COLUMN,
        _ if start + COLUMN < row.len() => start + COLUMN,
        _ => start.saturating_sub(COLUMN),
    };
    let end = if lost { usize::midpoint(start, aim) } else { aim };
    let (low, high) = (start.min(end), start.max(end));
    row[low..=high].fill('─');
    row[start] = if end > start { '├' } else { '┤' };
    row[end] = match lost {
        true => '✕',
        false if end > start => '▶',
        false => '◀',
    };
}

impl Label {
    fn text(&self) -> String {
        let ttl = self.ttl.map(|ttl| format!(" ttl {ttl}")).unwrap_or_default();
        let end = match &self.lost {
            Some(why) => format!("lost: {why}"),
            None => format!("({:.1} ms)", self.took.as_secs_f64() * 1e3),
        };
        format!("{} {} B{ttl}  {} → {}  {end}", self.what, self.len, self.source, self.destination)
    }
}

/// Whether there is an inner packet in it.
pub fn carries_data(payload: &[u8]) -> bool {
    ["data", "relayed data"].contains(&kind(payload))
}

/// What a datagram is, and what is in a relay frame.
fn kind(payload: &[u8]) -> &'static str {
    use wire::Class;
    match (wire::classify(payload), payload.get(relay::HEADER..).map(wire::classify)) {
        (Class::Relay, Some(Class::Data)) => "relayed data",
        (Class::Relay, Some(Class::Control)) => "relayed control",
        (Class::Relay, Some(Class::Initiation)) => "relayed initiation",
        (Class::Relay, Some(Class::Response)) => "relayed response",
        (Class::Relay, Some(Class::CookieReply)) => "relayed cookie reply",
        (Class::Relay, Some(Class::Probe)) => "relayed probe",
        (Class::Relay, _) => "relay frame",
        (Class::Stun, _) => "stun",
        (Class::Keepalive, _) => "keepalive",
        (Class::Data, _) => "data",
        (Class::Control, _) => "control",
        (Class::Initiation, _) => "initiation",
        (Class::Response, _) => "response",
        (Class::CookieReply, _) => "cookie reply",
        (Class::Probe, _) => "probe",
        (Class::Rendezvous, _) => "rendezvous",
        (Class::Unknown, _) => "?",
    }
}
