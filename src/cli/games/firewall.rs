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

/// Whether a packet to this machine passes the chain, by IPv4. The guard of [lan] lets everything of ours through.
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
mod tests {
    use super::*;
    use serde_json::json;

    const PACKET: Packet<'static> =
        Packet { interface: "punch0", from: Ipv4Addr::new(10, 77, 0, 2), to: Ipv4Addr::new(10, 77, 0, 1) };

    fn chain(family: &str, table: &str, name: &str, policy: Option<&str>) -> Value {
        match policy {
            Some(policy) => {
                json!({"chain": {"family": family, "table": table, "name": name, "type": "filter", "hook": "input", "prio": 0, "policy": policy}})
            }
            None => json!({"chain": {"family": family, "table": table, "name": name}}),
        }
    }

    fn rule(family: &str, table: &str, chain: &str, expr: Value) -> Value {
        json!({"rule": {"family": family, "table": table, "chain": chain, "handle": 1, "expr": expr}})
    }

    fn is(left: Value, right: Value) -> Value {
        json!({"match": {"op": "==", "left": left, "right": right}})
    }

    fn of(objects: Vec<Value>) -> Vec<Blocked> {
        let metainfo = json!({"metainfo": {"json_schema_version": 1}});
        let objects: Vec<Value> = [metainfo].into_iter().chain(objects).collect();
        blocked(&json!({"nftables": objects}).to_string(), PACKET).expect("understood")
    }

    fn by_interface(name: &str) -> Value {
        is(json!({"meta": {"key": "iifname"}}), json!(name))
    }

    #[test]
    fn a_chain_that_drops_what_nobody_accepts_is_named_with_what_helps() {
        let input = || chain("inet", "filter", "input", Some("drop"));
        let of_input = |expr| rule("inet", "filter", "input", expr);
        let answers = of_input(
            json!([is(json!({"ct": {"key": "state"}}), json!({"set": ["established", "related"]})), {"accept": null}]),
        );
        let found = of(vec![input(), answers.clone()]);
        assert_eq!(found.len(), 1);
        assert!(found[0].sure && found[0].by == Manager::Nftables, "{found:?}");
        assert_eq!(found[0].remedy("punch0"), "sudo nft insert rule inet filter input iifname punch0 accept");
        for lets_in in ["punch0", "punch*"] {
            assert_eq!(
                of(vec![input(), answers.clone(), of_input(json!([by_interface(lets_in), {"accept": null}]))]),
                []
            );
        }
        let of_another = of_input(json!([by_interface("eth0"), {"accept": null}]));
        let one_port = of_input(
            json!([is(json!({"payload": {"protocol": "udp", "field": "dport"}}), json!(27_015)), {"accept": null}]),
        );
        assert_eq!(of(vec![input(), of_another, one_port]).len(), 1);
        assert_eq!(of(vec![chain("inet", "filter", "input", Some("accept"))]), []);
        assert_eq!(of(vec![]), []);
    }

    #[test]
    fn the_overlays_addresses_may_be_let_in_and_what_is_not_understood_is_in_doubt() {
        let input = || chain("ip", "filter", "INPUT", Some("drop"));
        let from = |net: &str, len: u8| {
            let left = json!({"payload": {"protocol": "ip", "field": "saddr"}});
            rule(
                "ip",
                "filter",
                "INPUT",
                json!([is(left, json!({"prefix": {"addr": net, "len": len}})), {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]),
            )
        };
        assert_eq!(of(vec![input(), from("10.77.0.0", 24)]), []);
        let found = of(vec![input(), from("192.168.0.0", 16)]);
        assert_eq!(found[0].remedy("punch0"), "sudo iptables -I INPUT -i punch0 -j ACCEPT");
        let odd = rule("ip", "filter", "INPUT", json!([{"xt": null}, {"accept": null}]));
        assert!(of(vec![input(), odd]).iter().all(|blocked| !blocked.sure));
    }

    #[test]
    fn firewalld_and_ufw_are_known_by_their_chains() {
        let firewalld = |chain: &str, expr| rule("inet", "firewalld", chain, expr);
        let mut rules = vec![
            chain("inet", "firewalld", "filter_INPUT", Some("accept")),
            chain("inet", "firewalld", "filter_INPUT_ZONES", None),
            chain("inet", "firewalld", "filter_IN_public", None),
            firewalld("filter_INPUT", json!([{"jump": {"target": "filter_INPUT_ZONES"}}])),
            firewalld("filter_INPUT", json!([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}])),
            firewalld("filter_INPUT_ZONES", json!([{"goto": {"target": "filter_IN_public"}}])),
        ];
        let found = of(rules.clone());
        assert!(found[0].remedy("punch0").contains("--zone=trusted --add-interface=punch0"), "{found:?}");
        let trusted = firewalld(
            "filter_INPUT_ZONES",
            json!([{"vmap": {"key": {"meta": {"key": "iifname"}},
            "data": {"set": [["eth0", {"goto": {"target": "filter_IN_public"}}], ["punch0", {"accept": null}]]}}}]),
        );
        rules.insert(5, trusted);
        assert_eq!(of(rules), []);
        let found = of(vec![
            chain("ip", "filter", "INPUT", Some("drop")),
            chain("ip", "filter", "ufw-user-input", None),
            rule("ip", "filter", "INPUT", json!([{"jump": {"target": "ufw-user-input"}}])),
        ]);
        assert_eq!(found[0].remedy("punch0"), "sudo ufw allow in on punch0");
    }

    #[test]
    fn chains_that_lead_in_circles_end() {
        let jump = |from: &str, to: &str| rule("inet", "t", from, json!([{"jump": {"target": to}}]));
        let twice = |from: &str, to: &str| [jump(from, to), jump(from, to)];
        let mut rules = vec![chain("inet", "t", "a", Some("drop")), chain("inet", "t", "b", None)];
        rules.extend([twice("a", "b"), twice("b", "a")].into_iter().flatten());
        assert_eq!(of(rules).len(), 1);
        assert!(blocked("{", PACKET).is_err() && blocked("{}", PACKET).is_err());
    }
}
