//! The lease of a port on the router in front of this machine: when the router is asked for it, and what its answers
//! mean. Whoever talks to routers performs a [`Step`] and brings the answer; the protocols are its concern.
//!
//! - It is asked at the start, at half of the lease's time, and when something hints that the mapping may be gone: the
//!   router announced something, this machine's network changed, a rendezvous sees us elsewhere or is lost.
//! - A router that refuses, lies or is silent is asked again after 5 s, and after twice as long each time, up to 10 min.
//! - What it says is believed only as far as it can be true: an external address that not all the world can reach is
//!   none. A private one means a second NAT behind the router: the user is told, for that is what they can change.
//! - A mapping that is not renewed is gone at once: whoever would still be told of it would knock at a closed door.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::addr::{canonical, is_private, is_usable_candidate};
use crate::sans::{Instant, PortMapping, Transport, Wakeup};

/// The first pause after a failure; each doubles it.
const RETRY_SOON: Duration = Duration::from_secs(5);
/// The longest pause between two tries.
const RETRY_SELDOM: Duration = Duration::from_mins(10);
/// Hints come in bursts: between two questions lies at least this much (RFC 6887 §11.2.1).
const LOOK_PAUSE: Duration = Duration::from_secs(4);
/// Whoever talks to routers gives up long before.
const PATIENCE: Duration = Duration::from_mins(1);
/// Even what is leased for a day, or for ever, is renewed this often: a router that was restarted knows it no longer.
const RENEW_EVERY: Duration = Duration::from_mins(30);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the router for the mapping, or to renew it; answered by [`Lease::handle_answer`] with this number.
    Ask(u64),
    /// Give it back.
    Release,
}

/// One lease over time.
#[derive(Debug)]
pub struct Lease {
    /// What kind of port.
    transport: Transport,
    state: State,
    /// The newest question's number, and when it was asked.
    attempt: u64,
    asked: Option<Instant>,
    /// It has not been answered.
    asking: bool,
    /// Since it was asked something hinted that its answer may be of the past.
    again: bool,
    /// When the next question is due; `None`: never.
    next: Option<Instant>,
    /// In a row.
    failures: u32,
    /// The router's epoch as it was last told, and when.
    epoch: Option<(Instant, u32)>,
    restarted: bool,
    steps: VecDeque<Step>,
}

#[derive(Debug)]
enum State {
    /// The user does not want one.
    Off,
    /// Nothing was answered yet.
    Unknown,
    Held(PortMapping),
    /// There is none, and why.
    Missing(String),
}

impl Lease {
    /// A lease that is asked for at `now`, or not at all.
    pub fn new(transport: Transport, now: Instant, wanted: bool) -> Self {
        Self {
            transport,
            state: if wanted { State::Unknown } else { State::Off },
            attempt: 0,
            asked: None,
            asking: false,
            again: false,
            next: wanted.then_some(now),
            failures: 0,
            epoch: None,
            restarted: false,
            steps: VecDeque::new(),
        }
    }

    /// Whether the user wants one, from now on.
    pub fn set_wanted(&mut self, now: Instant, wanted: bool) {
        match (wanted, &self.state) {
            (true, State::Off) => {
                (self.state, self.next, self.failures) = (State::Unknown, Some(now), 0);
            }
            (false, State::Unknown | State::Held(_) | State::Missing(_)) => {
                self.release();
                self.state = State::Off;
            }
            _ => {}
        }
    }

    /// This run ends: whatever was got is given back, and nothing is asked any more.
    pub fn release(&mut self) {
        if !matches!(self.state, State::Off) {
            self.steps.push_back(Step::Release);
        }
        (self.next, self.asking, self.epoch) = (None, false, None);
    }

    /// The mapping may be gone, or another router be there: it is asked soon. A question that waits for its answer is
    /// left to: hints that come all the time must not keep it from ever having one.
    pub fn look(&mut self, now: Instant) {
        self.again |= self.asking;
        if self.next.is_some() && !self.asking {
            let earliest = self.asked.map_or(now, |asked| now.max(asked + LOOK_PAUSE));
            self.next = self.next.min(Some(earliest));
        }
    }

    /// The router answered the question `attempt`, or nobody did. `overlays`: the prefixes of all overlays of this
    /// machine.
    pub fn handle_answer(
        &mut self,
        now: Instant,
        attempt: u64,
        answer: Result<PortMapping, String>,
        overlays: &[IpNet],
    ) {
        if !self.asking || attempt != self.attempt {
            return;
        }
        self.asking = false;
        match answer {
            Ok(mapping) => match believe(&mapping, overlays) {
                Ok(()) => self.hold(now, mapping),
                Err(why) => {
                    self.steps.push_back(Step::Release);
                    self.fail(now, why);
                }
            },
            Err(why) => self.fail(now, why),
        }
        if std::mem::take(&mut self.again) {
            self.look(now);
        }
    }

    /// Time has passed; see [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.attempt += 1;
        (self.asked, self.asking, self.next) = (Some(now), true, Some(now + PATIENCE));
        self.again = false;
        self.steps.push_back(Step::Ask(self.attempt));
    }

    /// When [`Self::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Wakeup> {
        self.next.map(|at| Wakeup::new(at, "port mapping"))
    }

    /// What is to be done; call until `None` after every call that changed something.
    #[must_use]
    pub fn poll_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Whether the router was restarted since it was last asked: it has forgotten more than our mapping. Told once.
    #[must_use]
    pub fn poll_restarted(&mut self) -> bool {
        std::mem::take(&mut self.restarted)
    }

    /// Where all the world reaches us through the mapping.
    pub fn external(&self) -> Option<SocketAddr> {
        match &self.state {
            State::Held(mapping) => Some(mapping.external),
            State::Off | State::Unknown | State::Missing(_) => None,
        }
    }

    /// For `status`: which protocol gave which address, or why there is none; `None` before the first answer.
    pub fn report(&self) -> Option<String> {
        Some(match &self.state {
            State::Off => "off: `port_mapping = false` in net.toml".to_owned(),
            State::Unknown => return None,
            State::Held(mapping) => {
                let mut text =
                    format!("{} by {} of the router {}", mapping.external, mapping.protocol, mapping.gateway);
                if mapping.lifetime.is_none() {
                    let _ = write!(text, ", permanent");
                }
                text
            }
            State::Missing(why) => format!("none: {why}"),
        })
    }

    fn hold(&mut self, now: Instant, mapping: PortMapping) {
        self.restarted |= self.was_restarted(now, mapping.epoch);
        self.epoch = mapping.epoch.map(|epoch| (now, epoch));
        self.failures = 0;
        self.next = Some(now + renew_after(mapping.lifetime));
        if self.external() != Some(mapping.external) {
            tracing::info!(protocol = %mapping.protocol, "the router maps a {} port to this machine", self.transport);
            tracing::debug!(external = %mapping.external, lifetime = ?mapping.lifetime, "port mapping");
        }
        self.state = State::Held(mapping);
    }

    fn fail(&mut self, now: Instant, why: String) {
        match &self.state {
            State::Held(_) => tracing::info!(why, "the router's mapping of a {} port is gone", self.transport),
            State::Missing(before) if *before == why => {}
            _ => tracing::debug!(why, "no port mapping"),
        }
        let doubled = RETRY_SOON * 2u32.saturating_pow(self.failures.min(16));
        self.next = Some(now + doubled.min(RETRY_SELDOM));
        self.failures = self.failures.saturating_add(1);
        self.epoch = None;
        self.state = State::Missing(why);
    }

    /// Whether the router's clock and ours ran apart since its last answer, as RFC 6887 §8.5 counts: it fell, or they
    /// differ by more than a sixteenth and two seconds.
    fn was_restarted(&self, now: Instant, epoch: Option<u32>) -> bool {
        let (Some((then, before)), Some(epoch)) = (self.epoch, epoch) else { return false };
        if epoch.saturating_add(1) < before {
            return true;
        }
        let (ours, theirs) = ((now - then).as_secs(), u64::from(epoch.saturating_sub(before)));
        ours + 2 < theirs - theirs / 16 || theirs + 2 < ours - ours / 16
    }
}

/// Half of the lease's time, within reason: a router may say anything.
fn renew_after(lifetime: Option<Duration>) -> Duration {
    lifetime.map_or(RENEW_EVERY, |lifetime| (lifetime / 2).clamp(RETRY_SOON, RENEW_EVERY))
}

/// Whether a mapping can be what it says that it is.
///
/// # Errors
/// Why it cannot, for `status`.
fn believe(mapping: &PortMapping, overlays: &[IpNet]) -> Result<(), String> {
    let PortMapping { protocol, gateway, lifetime, .. } = mapping;
    let external = canonical(mapping.external);
    let ip = external.ip();
    if lifetime.is_some_and(|lifetime| lifetime.is_zero()) {
        return Err(format!("the router {gateway} gave a mapping by {protocol} that has already ended"));
    }
    if ip.is_ipv4() && is_private(ip) {
        return Err(format!(
            "the router {gateway} is itself behind a NAT (double NAT): it has the private address {ip} outside, which \
             others cannot reach; if the other router is yours, switch one of them to bridge or access-point mode"
        ));
    }
    if !ip.is_ipv4() || is_private(ip) || !is_usable_candidate(external, overlays) {
        return Err(format!(
            "the router {gateway} says by {protocol} that it is reached at {external}, which cannot be: is it connected \
             to the internet?"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
