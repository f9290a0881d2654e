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
        assert_eq!(of(vec![input(), answers.clone(), of_input(json!([by_interface(lets_in), {"accept": null}]))]), []);
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
    let counted = json!({"set": [{"elem": {"val": "punch0", "counter": {"packets": 0, "bytes": 0}}}]});
    let left = json!({"meta": {"key": "iifname"}});
    assert_eq!(of(vec![input(), rule("ip", "filter", "INPUT", json!([is(left, counted), {"accept": null}]))]), []);
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
