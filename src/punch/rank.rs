//! Which of a peer's paths data uses: a value with a derived order, the smallest wins.
//!
//! Fields are compared from top to bottom. Loss and round trip are coarse and relative to a *reference*, the path
//! in use, so that neither noise nor two equal paths make the choice flap: a path that is merely as good as
//! the one in use never replaces it, unless it is IPv6 instead of IPv4 or a nearer kind of address. Where that is of
//! another kind (a relay, while paths are direct), the reference is the quickest of the path's own.

use std::time::Duration;

use super::path::Path;
use super::{Family, PathKind, Via};
use crate::sans::Instant;

/// A path is faster than the reference if it takes less than this share of its round trip…
const FASTER_PERCENT: u32 = 80;
/// …and this much less at least; it is no slower if it takes this much more at most.
const FASTER_BY: Duration = Duration::from_millis(2);
const NO_SLOWER: Duration = Duration::from_millis(1);
/// Share of lost probes, percent, from which a path counts as lossy, and as bad.
const LOSSY: u32 = 15;
const BAD: u32 = 40;
/// The path in use is forgiven so much more.
const LOSS_MARGIN: u32 = 10;
/// Fewer probes than this say nothing about loss, and too little to leave a good path for.
const ENOUGH_SAMPLES: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Datagrams,
    /// Directly as well; but what is lost holds up all that follows.
    Stream,
    Relay,
}

impl Reach {
    const fn of(via: Via) -> Self {
        match via {
            _ if via.is_stream() => Self::Stream,
            Via::Direct { .. } => Self::Datagrams,
            Via::Relay { .. } | Via::Member { .. } => Self::Relay,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Loss {
    Clean,
    Lossy,
    Bad,
}

/// Round trip against the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Speed {
    Faster,
    Alike,
    Slower,
}

/// How good a path is. Smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    reach: Reach,
    /// Asked, and no echo for a while.
    doubtful: bool,
    loss: Loss,
    speed: Speed,
    family: Option<Family>,
    kind: PathKind,
    /// The path in use stays, all else being equal.
    newcomer: bool,
    rtt: Option<Duration>,
    via: Via,
}

impl Rank {
    fn of(path: &Path, now: Instant, used: Option<Via>, reference: Option<Duration>) -> Self {
        let in_use = used == Some(path.via);
        let rtt = path.window.rtt(now);
        Self {
            reach: Reach::of(path.via),
            doubtful: path.is_doubtful(now),
            loss: loss(path.window.losses(now), in_use),
            speed: if in_use { Speed::Alike } else { speed(rtt, reference) },
            family: path.via.remote().map(|remote| Family::of(remote.ip())),
            kind: path.kind,
            newcomer: !in_use,
            rtt,
            via: path.via,
        }
    }
}

/// The best of `paths` when data goes by `used` now.
pub(super) fn best<'a>(
    paths: impl Iterator<Item = &'a Path> + Clone,
    now: Instant,
    used: Option<Via>,
) -> Option<&'a Path> {
    let reference = |reach| {
        let alike = || paths.clone().filter(move |path| Reach::of(path.via) == reach);
        let in_use = alike().find(|path| used == Some(path.via));
        in_use.map_or_else(|| alike().filter_map(|path| path.window.rtt(now)).min(), |path| path.window.rtt(now))
    };
    let references = [Reach::Datagrams, Reach::Stream, Reach::Relay].map(reference);
    let rank = |path: &&Path| Rank::of(path, now, used, references[Reach::of(path.via) as usize]);
    paths.clone().min_by_key(rank)
}

/// Whether what is known of `path` is enough to leave a good path for it.
pub(super) fn is_known(path: &Path, now: Instant) -> bool {
    path.window.losses(now).1 >= ENOUGH_SAMPLES
}

fn loss((lost, all): (u32, u32), in_use: bool) -> Loss {
    if all < ENOUGH_SAMPLES {
        return Loss::Clean;
    }
    let percent = (lost * 100 / all).saturating_sub(if in_use { LOSS_MARGIN } else { 0 });
    match percent {
        BAD.. => Loss::Bad,
        LOSSY.. => Loss::Lossy,
        _ => Loss::Clean,
    }
}

fn speed(rtt: Option<Duration>, reference: Option<Duration>) -> Speed {
    match (rtt, reference) {
        (Some(rtt), Some(reference)) if rtt < (reference * FASTER_PERCENT / 100).saturating_sub(FASTER_BY) => {
            Speed::Faster
        }
        (Some(rtt), Some(reference)) if rtt > reference + NO_SLOWER => Speed::Slower,
        (None, Some(_)) => Speed::Slower,
        _ => Speed::Alike,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ServerId, SocketId};
    use crate::wire::probe;

    const HOST: (PathKind, &str) = (PathKind::Host, "192.168.1.5:7");
    const REFLEXIVE: (PathKind, &str) = (PathKind::Reflexive, "203.0.113.9:7");
    const SIX: (PathKind, &str) = (PathKind::Host, "[2001:db8::9]:7");

    fn now() -> Instant {
        Instant::ZERO + Duration::from_secs(30)
    }

    fn path((kind, remote): (PathKind, &str), rtt_ms: u64, lost: u64) -> Path {
        let remote = remote.parse().expect("address");
        measured(Path::new(Via::Direct { socket: SocketId(0), remote }, kind, true), rtt_ms, lost)
    }

    fn measured(mut path: Path, rtt_ms: u64, lost: u64) -> Path {
        for i in 0..20 {
            path.window.sent(Instant::ZERO, i, probe::MIN_LEN, true);
            if i >= lost {
                path.window.echoed(Instant::ZERO + Duration::from_millis(rtt_ms), i, probe::MIN_LEN);
            }
        }
        path
    }

    fn chosen(paths: &[Path], used: Option<usize>) -> usize {
        let best = best(paths.iter(), now(), used.map(|i| paths[i].via)).expect("there are paths");
        paths.iter().position(|path| path.via == best.via).expect("one of them")
    }

    #[test]
    fn direct_beats_a_quicker_relay() {
        let relay = measured(Path::relay(ServerId(0)), 1, 0);
        assert_eq!(chosen(&[relay, path(REFLEXIVE, 90, 5)], Some(0)), 1);
    }

    #[test]
    fn a_stream_to_the_peer_beats_a_quicker_relay_and_gives_way_to_slower_datagrams() {
        let remote = "203.0.113.9:9".parse().expect("address");
        let via = Via::Direct { socket: SocketId::FIRST_STREAM, remote };
        let stream = || measured(Path::new(via, PathKind::Host, false), 40, 0);
        let relay = || measured(Path::relay(ServerId(0)), 1, 0);
        assert_eq!(chosen(&[relay(), stream()], Some(0)), 1);
        assert_eq!(chosen(&[relay(), stream(), path(REFLEXIVE, 90, 0)], Some(1)), 2);
    }

    #[test]
    fn of_two_relays_the_clearly_quicker_is_taken_and_two_alike_never_take_turns() {
        let relays = |a: u64, b: u64| {
            let carrier = Via::Member { carrier: crate::id::PeerId([3; 32]) };
            [measured(Path::relay(ServerId(0)), a, 0), measured(Path::relay(carrier), b, 0)]
        };
        assert_eq!(chosen(&relays(100, 20), Some(0)), 1);
        assert_eq!(chosen(&relays(20, 100), Some(1)), 0);
        for (a, b) in [(20, 20), (20, 17), (17, 20), (100, 85), (2, 1)] {
            assert_eq!((chosen(&relays(a, b), Some(0)), chosen(&relays(a, b), Some(1))), (0, 1), "{a} {b}");
        }
        let unknown = [measured(Path::relay(ServerId(0)), 100, 0), Path::relay(ServerId(1))];
        assert_eq!(chosen(&unknown, Some(0)), 0, "what was never measured is not quicker");
    }

    #[test]
    fn ipv6_is_preferred_only_if_it_is_not_slower() {
        assert_eq!(chosen(&[path(REFLEXIVE, 20, 0), path(SIX, 20, 0)], None), 1);
        assert_eq!(chosen(&[path(REFLEXIVE, 20, 0), path(SIX, 21, 0)], Some(0)), 1);
        assert_eq!(chosen(&[path(REFLEXIVE, 20, 0), path(SIX, 24, 0)], None), 0);
        assert_eq!(chosen(&[path(REFLEXIVE, 20, 0), path(SIX, 24, 0)], Some(0)), 0);
    }

    #[test]
    fn a_host_address_beats_a_hairpin_that_is_no_faster() {
        assert_eq!(chosen(&[path(REFLEXIVE, 2, 0), path(HOST, 1, 0)], Some(0)), 1);
    }

    #[test]
    fn two_paths_alike_never_take_turns() {
        for (a, b) in [(20, 20), (20, 23), (23, 20), (100, 85)] {
            let paths = [path(REFLEXIVE, a, 0), path((PathKind::Reflexive, "203.0.113.10:7"), b, 0)];
            assert_eq!(chosen(&paths, Some(0)), 0, "{a} {b}");
            assert_eq!(chosen(&paths, Some(1)), usize::from(a.max(b) < b * 5 / 4 + 3), "{a} {b}");
        }
    }

    #[test]
    fn a_clearly_faster_or_cleaner_path_wins() {
        assert_eq!(chosen(&[path(REFLEXIVE, 50, 0), path(HOST, 20, 0)], Some(0)), 1);
        assert_eq!(chosen(&[path(HOST, 20, 5), path(REFLEXIVE, 25, 0)], Some(0)), 1);
        assert_eq!(chosen(&[path(HOST, 20, 2), path(REFLEXIVE, 25, 0)], Some(0)), 0, "10 % is forgiven");
    }
}
