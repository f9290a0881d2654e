//! `punchlan ping`: is a peer there, and over which path?

use std::net::IpAddr;
use std::time::Duration;

use super::args::Ping;
use super::daemons::{Running, select, unexpected};
use super::{Failure, block_on, output};
use crate::control::{Client, ClientError, Refusal, Request, Response};
use crate::io::signal;
use crate::node::status::{Path, PathKind, Peer, Status};

/// Between two pings.
const INTERVAL: Duration = Duration::from_secs(1);
/// For a reply; from the other side of the world, through a relay, it takes half a second.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn run(args: &Ping) -> Result<(), Failure> {
    block_on(async {
        let daemon = select(&args.select).await?;
        let peer = find(&daemon.status, &args.peer)?;
        let who = who(peer);
        let mut round_trips = Vec::new();
        let mut sent = 0;
        let stop = signal::stop().map_err(|error| Failure::Failed(format!("signals cannot be caught: {error}")))?;
        tokio::select! {
            result = ping_all(&daemon, args.count, &peer.name, &who, &mut sent, &mut round_trips) => result?,
            _ = stop => {}
        }
        output::answer(&summary(sent, &round_trips))?;
        if round_trips.is_empty() { Err(Failure::Failed(format!("no reply from {who}"))) } else { Ok(()) }
    })
}

async fn ping_all(
    daemon: &Running,
    count: u32,
    peer: &str,
    who: &str,
    sent: &mut u32,
    round_trips: &mut Vec<f64>,
) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(INTERVAL);
    for id in 1..=count {
        ticks.tick().await;
        *sent = id;
        let line = match ping(daemon, peer, id.into()).await? {
            Some((path, rtt_ms)) => {
                round_trips.push(rtt_ms);
                format!("reply from {who}: {}, {}", describe_path(&path), milliseconds(rtt_ms))
            }
            None => format!("no reply from {who}"),
        };
        output::answer(&line)?;
    }
    Ok(())
}

/// One ping on a connection of its own, so that a late reply is not taken for the next one's.
async fn ping(daemon: &Running, peer: &str, id: u64) -> Result<Option<(Path, f64)>, Failure> {
    let mut client = Client::connect(&daemon.run_dir).map_err(ended)?;
    match client.ask(&Request::Ping { peer: peer.to_owned(), id }, PATIENCE).await {
        Ok(Response::Pong { path, rtt_ms }) => Ok(Some((path, rtt_ms))),
        Ok(Response::Refused { code: Refusal::Failed, .. }) | Err(ClientError::NoAnswer { .. }) => Ok(None),
        Ok(Response::Refused { code, text }) => Err(Failure::refused(code, &text)),
        Ok(other) => Err(unexpected(&other)),
        Err(error) => Err(ended(error)),
    }
}

/// What ran a moment ago and does not now has failed.
fn ended(error: ClientError) -> Failure {
    match error {
        ClientError::NotRunning | ClientError::Closed { .. } => Failure::Failed("the network went down".into()),
        error => error.into(),
    }
}

/// The peer with this name or address.
pub(super) fn find<'a>(status: &'a Status, wanted: &str) -> Result<&'a Peer, Failure> {
    if let Some(peer) = status.peers.iter().find(|peer| is(wanted, &peer.name, &peer.addresses)) {
        return Ok(peer);
    }
    if is(wanted, &status.me.name, &status.me.addresses) {
        return Err(Failure::Nothing(format!("{wanted} is this machine")));
    }
    let known: String = status.peers.iter().map(|peer| format!("    {}\n", who(peer))).collect();
    let known = if known.is_empty() { "    nobody yet".to_owned() } else { known };
    Err(Failure::Nothing(format!("nobody in \"{}\" is called {wanted}; known are:\n{known}", status.network.name)))
}

/// Whether `wanted` means who has this name and these addresses.
pub(super) fn is(wanted: &str, name: &str, addresses: &[IpAddr]) -> bool {
    name.eq_ignore_ascii_case(wanted) || wanted.parse().is_ok_and(|address| addresses.contains(&address))
}

/// `bob (10.77.0.2)`.
fn who(peer: &Peer) -> String {
    match peer.addresses.first() {
        Some(address) => format!("{} ({address})", peer.name),
        None => peer.name.clone(),
    }
}

/// `direct 203.0.113.9:41641` or `relayed through play.example.org:3478`.
pub(super) fn describe_path(path: &Path) -> String {
    match (path.kind, &path.relay) {
        (PathKind::Relay, Some(relay)) => format!("relayed through {relay}"),
        (PathKind::Relay, None) => format!("relayed through {}", path.remote),
        _ if path.transport == "tcp" => format!("direct by TCP {}", path.remote),
        _ => format!("direct {}", path.remote),
    }
}

/// A duration as people read it: three digits are enough.
pub(super) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 0.1 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

fn summary(sent: u32, round_trips: &[f64]) -> String {
    let received = u32::try_from(round_trips.len()).unwrap_or(u32::MAX);
    let text = format!("{sent} sent, {received} received");
    if received == 0 {
        return text;
    }
    let (min, max) = round_trips.iter().fold((f64::MAX, 0f64), |(min, max), rtt| (min.min(*rtt), max.max(*rtt)));
    let mean = round_trips.iter().sum::<f64>() / f64::from(received);
    let [min, mean, max] = [min, mean, max].map(milliseconds);
    format!("{text}; round trip {mean} on average, from {min} to {max}")
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::status;
    use super::*;

    #[test]
    fn a_peer_is_found_by_name_or_by_either_address() {
        let status = status();
        for wanted in ["bob", "Bob", "10.77.0.2", "fd00::2"] {
            assert_eq!(find(&status, wanted).expect(wanted).name, "bob");
        }
        let unknown = find(&status, "eve").expect_err("nobody");
        assert!(unknown.code() == 4 && unknown.to_string().contains("bob (10.77.0.2)"), "{unknown}");
        assert!(find(&status, "10.77.0.1").expect_err("me").to_string().contains("this machine"));
    }

    #[test]
    fn replies_are_said_with_their_path() {
        let mut path = status().peers[0].path.clone().expect("a path");
        assert_eq!(describe_path(&path), "direct 203.0.113.9:41641");
        path.kind = PathKind::Relay;
        path.relay = Some("play.example.org:3478".into());
        assert_eq!(describe_path(&path), "relayed through play.example.org:3478");
        assert_eq!(summary(4, &[]), "4 sent, 0 received");
        assert_eq!(summary(3, &[1.0, 2.0]), "3 sent, 2 received; round trip 1.5 ms on average, from 1.0 ms to 2.0 ms");
        assert_eq!([0.042, 1.25, 240.4].map(milliseconds), ["0.04 ms", "1.2 ms", "240 ms"]);
    }
}
