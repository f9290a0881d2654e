//! What this machine's nftables do with what a member sends to it first: a game's question, a player who joins.
//!
//! The rules are walked as the kernel would, with a packet of UDP that comes from a member by the overlay's interface and
//! is for no port in particular. A condition that is not understood may hold or not: then what follows from it is in doubt,
//! and said to be. (`iptables` of today and firewalld, ufw above it, write nftables too.)

use std::net::Ipv4Addr;

use serde_json::Value;

/// Chains that are gone into, one in the other; and rules that are looked at in all.
const DEPTH: u32 = 16;
const RULES: u32 = 20_000;

/// What ends the way of a packet through a chain, or leads it elsewhere. What else stands in rules counts, logs, marks.
const VERDICTS: [&str; 6] = ["accept", "drop", "reject", "return", "jump", "goto"];

/// Something that keeps members out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    /// Who wrote the rules.
    pub(super) by: Manager,
    /// The chain that all packets enter: its family, table and name.
    pub(super) chain: [String; 3],
    /// Whether all conditions on the way were understood.
    pub(super) sure: bool,
}

/// Who writes a firewall's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    Ufw,
    Firewalld,
    Iptables,
    Nftables,
}

impl Manager {
    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

impl Blocked {
    /// What lets members in.
    pub(super) fn remedy(&self, interface: &str) -> String {
        let [family, table, chain] = &self.chain;
        match self.by {
            Manager::Ufw => format!("sudo ufw allow in on {interface}"),
            Manager::Firewalld => format!(
                "sudo firewall-cmd --permanent --zone=trusted --add-interface={interface} && sudo firewall-cmd --reload"
            ),
            Manager::Iptables => format!("sudo iptables -I {chain} -i {interface} -j ACCEPT"),
            Manager::Nftables => format!("sudo nft insert rule {family} {table} {chain} iifname {interface} accept"),
        }
    }
}

/// The packet that is followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// The interface that it comes by.
    pub(super) interface: &'a str,
    /// A member.
    pub(super) from: Ipv4Addr,
    /// This machine.
    pub(super) to: Ipv4Addr,
}

/// Every chain at which it ends, of a ruleset as `nft -j list ruleset` gives it.
pub(super) fn blocked(ruleset: &str, packet: Packet<'_>) -> Result<Vec<Blocked>, String> {
    let ruleset: Value = serde_json::from_str(ruleset).map_err(|error| format!("nft's answer is no JSON: {error}"))?;
    let objects = ruleset["nftables"].as_array().ok_or("nft's answer is of an unknown form")?;
    let mut blocked = Vec::new();
    for chain in objects.iter().map(|object| &object["chain"]).filter(|chain| is_on_the_way(chain)) {
        let mut walk =
            Walk { objects, packet, home: [&chain["family"], &chain["table"]], left: RULES, may_pass: false };
        let end =
            walk.chain(&chain["name"], 0).unwrap_or(if chain["policy"] == "drop" { End::Drop } else { End::Accept });
        if end == End::Drop {
            let [family, table, name] =
                ["family", "table", "name"].map(|key| chain[key].as_str().unwrap_or_default().to_owned());
            let by = manager(objects, &family, &table, &name);
            blocked.push(Blocked { by, chain: [family, table, name], sure: !walk.may_pass && walk.left > 0 });
        }
    }
    Ok(blocked)
}

/// Whether a packet to this machine passes the chain, by IPv4. Our own guard lets through what comes by ours.
fn is_on_the_way(chain: &Value) -> bool {
    let hook = chain["hook"].as_str().unwrap_or_default();
    let family = chain["family"].as_str().unwrap_or_default();
    let is_filter = chain["type"] == "filter" && ["prerouting", "input"].contains(&hook);
    is_filter && ["ip", "inet"].contains(&family)
}

fn manager(objects: &[Value], family: &str, table: &str, chain: &str) -> Manager {
    let here = |of: &&Value| of["family"] == family && of["table"] == table;
    let mut chains = objects.iter().map(|object| &object["chain"]).filter(here);
    if table == "firewalld" {
        Manager::Firewalld
    } else if chains.any(|chain| chain["name"].as_str().is_some_and(|name| name.starts_with("ufw-"))) {
        Manager::Ufw
    } else if family == "ip" && ["INPUT", "PREROUTING"].contains(&chain) && table == "filter" {
        Manager::Iptables
    } else {
        Manager::Nftables
    }
}

/// How a packet's way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Accept,
    Drop,
}

/// Where a rule leads.
enum Step {
    Next,
    Return,
    End(End),
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    Maybe,
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Holds {
    const fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
        }
    }
}

/// A packet on its way through the chains of a table.
struct Walk<'a> {
    objects: &'a [Value],
    packet: Packet<'a>,
    home: [&'a Value; 2],
    /// Rules that are still looked at.
    left: u32,
    /// A rule that may hold would have let it pass.
    may_pass: bool,
}

impl Walk<'_> {
    /// `None`: it came through to the end.
    fn chain(&mut self, name: &Value, depth: u32) -> Option<End> {
        if depth > DEPTH {
            return None;
        }
        let [family, table] = self.home;
        let rules = self.objects.iter().map(|object| &object["rule"]);
        for rule in rules.filter(|rule| rule["family"] == *family && rule["table"] == *table && rule["chain"] == *name)
        {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                return None;
            }
            match self.rule(rule, depth) {
                Step::Next => {}
                Step::Return => return None,
                Step::End(end) => return Some(end),
            }
        }
        None
    }

    fn rule(&mut self, rule: &Value, depth: u32) -> Step {
        let mut holds = Holds::Yes;
        for statement in rule["expr"].as_array().into_iter().flatten() {
            if let Some(condition) = statement.get("match") {
                match self.condition(condition) {
                    Holds::No => return Step::Next,
                    Holds::Maybe => holds = Holds::Maybe,
                    Holds::Yes => {}
                }
            } else if statement.get("xt").is_some() || statement.get("limit").is_some() {
                // Of an extension of iptables, or a rate: not to be known from here.
                holds = Holds::Maybe;
            } else if let Some(verdict) = self.verdict_of(statement) {
                return self.follow(&verdict, holds, depth);
            }
        }
        Step::Next
    }

    /// The statement, if it is a verdict, or the one that its map holds for this packet.
    fn verdict_of(&self, statement: &Value) -> Option<Value> {
        let is_verdict =
            || statement.as_object().is_some_and(|words| words.keys().any(|word| VERDICTS.contains(&word.as_str())));
        let Some(map) = statement.get("vmap") else { return is_verdict().then(|| statement.clone()) };
        let elements = map["data"]["set"].as_array()?;
        let fits = |element: &&Value| self.compare(&map["key"], &element[0]) == Holds::Yes;
        elements.iter().find(fits).map(|element| element[1].clone())
    }

    fn follow(&mut self, verdict: &Value, holds: Holds, depth: u32) -> Step {
        let verdicts = verdict.as_object();
        let has = |word: &str| verdicts.is_some_and(|verdict| verdict.contains_key(word));
        let jump = ["jump", "goto"].into_iter().find(|word| has(word));
        let step = if has("accept") {
            Step::End(End::Accept)
        } else if has("drop") || has("reject") {
            Step::End(End::Drop)
        } else if has("return") {
            Step::Return
        } else if let Some(word) = jump {
            match self.chain(&verdict[word]["target"], depth + 1) {
                Some(end) => Step::End(end),
                None if word == "goto" => Step::Return,
                None => Step::Next,
            }
        } else {
            Step::Next
        };
        match (holds, step) {
            (Holds::Yes, step) => step,
            (_, Step::End(End::Accept)) => {
                self.may_pass = true;
                Step::Next
            }
            _ => Step::Next,
        }
    }

    fn condition(&self, condition: &Value) -> Holds {
        let holds = self.compare(&condition["left"], &condition["right"]);
        if condition["op"] == "!=" { holds.not() } else { holds }
    }

    /// Whether what `left` is of our packet is `right`, or one of those.
    fn compare(&self, left: &Value, right: &Value) -> Holds {
        if let Some(any) = right.as_array().or_else(|| right["set"].as_array()) {
            let each: Vec<Holds> = any.iter().map(|one| self.compare(left, one)).collect();
            return [Holds::Yes, Holds::Maybe].into_iter().find(|holds| each.contains(holds)).unwrap_or(Holds::No);
        }
        if let Some(value) = right["elem"].get("val") {
            return self.compare(left, value);
        }
        if right.as_str().is_some_and(|text| text.starts_with('@')) {
            return Holds::Maybe;
        }
        let word = |ours: &str| Holds::from(right == ours);
        if let Some(key) = left["meta"]["key"].as_str() {
            return match key {
                "iifname" | "iif" => {
                    right.as_str().map_or(Holds::Maybe, |name| is_name(name, self.packet.interface).into())
                }
                "l4proto" => word("udp"),
                "nfproto" => word("ipv4"),
                "protocol" => word("ip"),
                "pkttype" => word("host"),
                "iiftype" => word("ether"),
                _ => Holds::Maybe,
            };
        }
        match left["ct"]["key"].as_str() {
            Some("state") => return word("new"),
            // Nobody translated it.
            Some("status") => return Holds::No,
            _ => {}
        }
        if left["fib"]["result"] == "type" {
            return word("local");
        }
        match (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str()) {
            (Some("ip"), Some("saddr")) => is_ip(right, self.packet.from),
            (Some("ip"), Some("daddr")) => is_ip(right, self.packet.to),
            (Some("ip"), Some("protocol")) => word("udp"),
            // For no port in particular.
            (Some("udp" | "th"), Some("sport" | "dport")) => Holds::No,
            (Some("tcp" | "icmp" | "icmpv6" | "ip6" | "sctp" | "igmp" | "esp" | "ah"), _) => Holds::No,
            _ => Holds::Maybe,
        }
    }
}

/// Whether a name of a rule is the interface's; a star at its end stands for anything.
fn is_name(pattern: &str, interface: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => interface.starts_with(start),
        None => pattern == interface,
    }
}

fn is_ip(right: &Value, ours: Ipv4Addr) -> Holds {
    let ip = |value: &Value| value.as_str().and_then(|text| text.parse::<Ipv4Addr>().ok());
    if let Some(only) = ip(right) {
        return (only == ours).into();
    }
    if let (Some(addr), Some(len)) = (ip(&right["prefix"]["addr"]), right["prefix"]["len"].as_u64()) {
        let net = u8::try_from(len).ok().and_then(|len| ipnet::Ipv4Net::new(addr, len).ok());
        return net.map_or(Holds::Maybe, |net| net.contains(&ours).into());
    }
    if let (Some(first), Some(last)) = (ip(&right["range"][0]), ip(&right["range"][1])) {
        return (first..=last).contains(&ours).into();
    }
    Holds::Maybe
}

#[cfg(test)]
mod tests;
