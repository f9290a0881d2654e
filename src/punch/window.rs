//! Requests sent on one path and what became of them: what proves it, and how good it was in the last minute.
//!
//! One ring per path holds both: an unanswered request is what an echo has to match, an answered one is a
//! sample. It never grows past [`CAPACITY`]; the oldest request makes room for the newest.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sans::Instant;
use crate::wire::probe;

/// Requests remembered per path: the ladders of a search (about 20), or a minute of measuring twice over.
const CAPACITY: usize = 32;
/// How long a request counts in the statistics.
const SPAN: Duration = Duration::from_secs(60);
/// A request without an echo for so long is lost: longer than any line one could play over.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// An echo later than this proves nothing: what it says is no longer so.
const ECHO_HOLDS: Duration = Duration::from_secs(10);

/// How a path did over the last 60 seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathStats {
    /// Median round trip; `None` without an echo.
    pub rtt: Option<Duration>,
    /// Mean deviation of the round trip; `None` without two echoes.
    pub jitter: Option<Duration>,
    /// Share of measuring probes that were not echoed, 0 to 1; `None` when none was due yet.
    pub loss: Option<f64>,
    /// Small packets pass here and full-size ones do not.
    pub narrow: bool,
}

/// What an echo answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// Whether the request was full-size.
    pub(super) full: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    nonce: u64,
    at: Instant,
    len: usize,
    /// Whether its loss says something: the path was proven when it was sent.
    counts: bool,
    rtt: Option<Duration>,
}

/// The ring.
#[derive(Debug, Default)]
pub(super) struct Window(VecDeque<Sent>);

impl Window {
    /// A request leaves. `counts`: an echo is to be expected, so its loss is a loss.
    pub(super) fn sent(&mut self, now: Instant, nonce: u64, len: usize, counts: bool) {
        if self.0.len() >= CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back(Sent { nonce, at: now, len, counts, rtt: None });
    }

    /// An echo came. `None` unless it returns, at full length, the nonce of a request that still waits.
    pub(super) fn echoed(&mut self, now: Instant, nonce: u64, len: usize) -> Option<Answered> {
        let sent = self.0.iter_mut().find(|sent| sent.nonce == nonce && sent.rtt.is_none() && sent.len == len)?;
        let rtt = now - sent.at;
        if rtt > ECHO_HOLDS {
            return None;
        }
        sent.rtt = Some(rtt);
        Some(Answered { full: sent.len >= probe::FULL_LEN })
    }

    /// The path broke off: what is unanswered says nothing about the line any more.
    pub(super) fn forgive(&mut self) {
        self.0.iter_mut().filter(|sent| sent.rtt.is_none()).for_each(|sent| sent.counts = false);
    }

    /// The median round trip.
    pub(super) fn rtt(&self, now: Instant) -> Option<Duration> {
        let mut sorted = [Duration::ZERO; CAPACITY];
        let mut n = 0;
        for (slot, rtt) in sorted.iter_mut().zip(self.samples(now)) {
            *slot = rtt;
            n += 1;
        }
        sorted[..n].sort_unstable();
        sorted[..n].get(n / 2).copied()
    }

    /// Requests that were lost, and those whose fate is known.
    pub(super) fn losses(&self, now: Instant) -> (u32, u32) {
        let decided = |sent: &&Sent| sent.counts && (sent.rtt.is_some() || now - sent.at >= LOST_AFTER);
        self.recent(now)
            .filter(decided)
            .fold((0, 0), |(lost, all), sent| (lost + u32::from(sent.rtt.is_none()), all + 1))
    }

    /// All of it, for people.
    pub(super) fn stats(&self, now: Instant, narrow: bool) -> PathStats {
        let (lost, all) = self.losses(now);
        PathStats {
            rtt: self.rtt(now),
            jitter: self.jitter(now),
            loss: (all > 0).then(|| f64::from(lost) / f64::from(all)),
            narrow,
        }
    }

    fn jitter(&self, now: Instant) -> Option<Duration> {
        let n = u32::try_from(self.samples(now).count()).ok().filter(|n| *n >= 2)?;
        let mean = self.samples(now).sum::<Duration>() / n;
        Some(self.samples(now).map(|rtt| rtt.abs_diff(mean)).sum::<Duration>() / n)
    }

    fn samples(&self, now: Instant) -> impl Iterator<Item = Duration> {
        self.recent(now).filter_map(|sent| sent.rtt)
    }

    fn recent(&self, now: Instant) -> impl Iterator<Item = &Sent> {
        self.0.iter().filter(move |sent| now - sent.at <= SPAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn only_the_nonce_of_a_waiting_request_counts_and_only_once() {
        let mut window = Window::default();
        window.sent(Instant::ZERO, 7, 62, true);
        let later = Instant::ZERO + MS * 30;
        assert_eq!(window.echoed(later, 8, 62), None);
        assert_eq!(window.echoed(later, 7, 1432), None, "an echo is as long as its request");
        assert_eq!(window.echoed(later, 7, 62), Some(Answered { full: false }));
        assert_eq!(window.echoed(later, 7, 62), None);
        assert_eq!(window.rtt(later), Some(MS * 30));
    }

    #[test]
    fn a_very_late_echo_proves_nothing() {
        let mut window = Window::default();
        window.sent(Instant::ZERO, 7, 62, true);
        assert_eq!(window.echoed(Instant::ZERO + Duration::from_secs(11), 7, 62), None);
    }

    #[test]
    fn loss_counts_decided_requests_of_the_last_minute() {
        let mut window = Window::default();
        for i in 0..10_u64 {
            let at = Instant::ZERO + Duration::from_secs(5 * i);
            window.sent(at, i, 62, true);
            if i % 2 == 0 {
                window.echoed(at + MS, i, 62);
            }
        }
        let now = Instant::ZERO + Duration::from_secs(46);
        assert_eq!(window.losses(now), (4, 9), "the last one may still be echoed");
        assert_eq!(window.losses(now + Duration::from_secs(300)), (0, 0));
        assert_eq!(window.stats(now + Duration::from_secs(300), false).rtt, None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut window = Window::default();
        for i in 0..10_000 {
            window.sent(Instant::ZERO, i, 62, false);
        }
        assert_eq!(window.0.len(), CAPACITY);
        assert!(window.0.capacity() <= 2 * CAPACITY);
    }
}
