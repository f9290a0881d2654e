//! net.toml is read again: what may change while we run changes, and what may not is named.

use std::collections::BTreeSet;

use super::notify::{Notice, notify};
use super::run::Peer;
use super::{AddressChoice, Options};
use crate::control::{Refusal, Response};
use crate::io::clock;
use crate::node::{Changeable, Command};

/// Where net.toml is read again.
pub trait Source {
    /// net.toml as it is now.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    fn read(&self) -> Result<Options, String>;

    /// What the file is called.
    fn name(&self) -> String;

    /// Logs as `log` says from now on; `false` if what was said at the start wins.
    fn set_log(&self, log: Option<&str>) -> bool;
}

/// Standing, while net.toml cannot be used.
const WARNING: &str = "configuration";

impl<S: Source> Peer<S> {
    /// Reads net.toml again, and says what came of it: in the log, and in the answer.
    pub(super) fn reload(&mut self) -> Response {
        notify(Notice::Reloading);
        let answer = match self.source.read() {
            Ok(wanted) => {
                self.node.clear_warning(WARNING, "");
                Response::Reloaded { changes: self.change(wanted) }
            }
            Err(text) => {
                // Where in the file is for whoever may read it: the answer says that.
                let what = text.lines().next().unwrap_or_default();
                let file = self.source.name();
                let warning = format!("{file} was read again and cannot be used, nothing has changed: {what}");
                let now = clock::now();
                // A warning is logged once: another cause is another warning.
                if self.node.status(now).warnings.iter().any(|w| w.code == WARNING && w.text != warning) {
                    self.node.clear_warning(WARNING, "");
                }
                self.node.warn(now, WARNING, String::new(), warning);
                Response::refused(Refusal::Config, text)
            }
        };
        notify(Notice::Reloaded);
        answer
    }

    fn change(&mut self, wanted: Options) -> Vec<String> {
        let mut changes = changes(&self.options, &wanted);
        if wanted.log != self.options.log {
            changes.push(match self.source.set_log(wanted.log.as_deref()) {
                true => changed("log", &shown(wanted.log.as_ref())),
                false => "log: -v or PUNCHLAN_LOG was given at the start, which wins".to_owned(),
            });
        }
        let file = self.source.name();
        changes.iter().for_each(|change| tracing::info!("{file}: {change}"));
        let changeable = Changeable {
            network_name: wanted.network_name.clone(),
            name: wanted.name.clone(),
            rendezvous: wanted.rendezvous.clone(),
            deny: wanted.deny.clone(),
            port_mapping: wanted.port_mapping,
            lan_discovery: wanted.lan_discovery,
            relay: wanted.relay,
            lan: wanted.lan,
        };
        self.node.handle_command(clock::now(), Command::Reconfigure(changeable));
        // What waits for the next start is named again until then.
        let Options { key, subnet, address, listen, .. } = self.options.clone();
        self.options = Options { key, subnet, address, listen, ..wanted };
        changes
    }
}

/// What is otherwise from now on, and what will be at the next start.
fn changes(old: &Options, new: &Options) -> Vec<String> {
    let mut list = Vec::new();
    let servers = |options: &Options| options.rendezvous.iter().map(|server| server.text()).collect::<Vec<_>>();
    list.extend(difference("rendezvous", servers(old), servers(new)));
    let pins = |options: &Options| options.rendezvous.iter().map(|s| (s.text(), s.pin)).collect::<Vec<_>>();
    for (server, pin) in pins(new) {
        if pins(old).iter().any(|(other, old_pin)| *other == server && *old_pin != pin) {
            list.push(format!("rendezvous {server}: its pinned key is another"));
        }
    }
    let denied = |options: &Options| options.deny.iter().map(ToString::to_string).collect::<Vec<_>>();
    list.extend(difference("deny", denied(old), denied(new)));
    if old.network_name != new.network_name {
        list.push(changed("the network's name", &new.network_name));
    }
    if old.name != new.name {
        list.push(changed("this machine's name", &new.name));
    }
    let switches = [
        ("port_mapping", [old, new].map(|options| options.port_mapping)),
        ("lan_discovery", [old, new].map(|options| options.lan_discovery)),
        ("[relay] offer", [old, new].map(|options| options.relay.offer)),
        ("[lan] broadcast", [old, new].map(|options| options.lan.broadcast)),
        ("[lan] multicast", [old, new].map(|options| options.lan.multicast)),
    ];
    list.extend(
        switches.into_iter().filter(|(_, [old, new])| old != new).map(|(key, [_, new])| changed(key, &new.to_string())),
    );
    if old.relay.mbit != new.relay.mbit {
        list.push(changed("[relay] mbit", &new.relay.mbit.to_string()));
    }
    if old.key != new.key {
        list.push(later("key", "it is another"));
    }
    if old.subnet != new.subnet {
        list.push(later("subnet", &format!("{} instead of {}", shown(new.subnet), shown(old.subnet))));
    }
    if old.address != new.address {
        list.push(later("address", &format!("{} instead of {}", address(new.address), address(old.address))));
    }
    if old.listen != new.listen {
        list.push(later("listen", &format!("{} instead of {}", new.listen, old.listen)));
    }
    list
}

fn difference(what: &str, old: Vec<String>, new: Vec<String>) -> Vec<String> {
    let (old, new): (BTreeSet<String>, BTreeSet<String>) = (old.into_iter().collect(), new.into_iter().collect());
    let removed = old.difference(&new).map(|gone| format!("{what} {gone}: removed"));
    new.difference(&old).map(|come| format!("{what} {come}: added")).chain(removed).collect()
}

fn changed(what: &str, now: &str) -> String {
    format!("{what}: {now} from now on")
}

fn later(what: &str, how: &str) -> String {
    format!("{what}: {how}; this takes effect at the next start")
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "the default".to_owned(), |value| value.to_string())
}

fn address(choice: AddressChoice) -> String {
    match choice {
        AddressChoice::Auto => "auto".to_owned(),
        AddressChoice::Configured(addr) => addr.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NetworkKey, PeerId};
    use crate::node::{LanConfig, RelayConfig, RendezvousConfig};

    fn options() -> Options {
        Options {
            network_name: "friday".into(),
            key: NetworkKey::new([1; 32]),
            subnet: None,
            rendezvous: vec![RendezvousConfig::plain("play.example.org", 3478)],
            deny: Vec::new(),
            name: "alice".into(),
            address: AddressChoice::Auto,
            listen: 0,
            port_mapping: true,
            lan_discovery: true,
            relay: RelayConfig::default(),
            lan: LanConfig::default(),
            log: None,
        }
    }

    #[test]
    fn every_change_is_a_sentence_and_the_key_is_in_none() {
        assert!(changes(&options(), &options()).is_empty());
        let other = Options {
            network_name: "saturday".into(),
            key: NetworkKey::new([2; 32]),
            subnet: Some("10.9.0.0/24".parse().expect("a prefix")),
            rendezvous: vec![RendezvousConfig::plain("other.example.org", 4000)],
            deny: vec![PeerId([7; 32])],
            name: "bob".into(),
            address: AddressChoice::Configured("10.9.0.7".parse().expect("an address")),
            listen: 5000,
            port_mapping: false,
            lan_discovery: false,
            relay: RelayConfig { offer: false, mbit: 25 },
            lan: LanConfig { broadcast: false, multicast: false },
            log: None,
        };
        let text = changes(&options(), &other).join("\n");
        let expected = format!(
            "rendezvous other.example.org:4000: added\nrendezvous play.example.org:3478: removed\ndeny {}: added\n\
             the network's name: saturday from now on\nthis machine's name: bob from now on\n\
             port_mapping: false from now on\nlan_discovery: false from now on\n\
             [relay] offer: false from now on\n[lan] broadcast: false from now on\n\
             [lan] multicast: false from now on\n[relay] mbit: 25 from now on\n\
             key: it is another; this takes effect at the next start\n\
             subnet: 10.9.0.0/24 instead of the default; this takes effect at the next start\n\
             address: 10.9.0.7 instead of auto; this takes effect at the next start\n\
             listen: 5000 instead of 0; this takes effect at the next start",
            PeerId([7; 32])
        );
        assert_eq!(text, expected);
    }
}
