//! Everything that somebody could use up, and how much of it there is. Each limit has a counter, by a word that
//! `punchlan status --json` (a peer) or the log after SIGUSR1 (a rendezvous) shows, and a test that goes beyond it. The
//! words and tests that are named here must exist, so the list stays true.

#[path = "common/named.rs"]
mod named;

use std::collections::BTreeSet;

/// One row.
struct Limit {
    of: &'static str,
    most: &'static str,
    /// Under which word what was beyond it is counted.
    counter: &'static str,
    /// `file: test`.
    test: &'static str,
}

const fn limit(of: &'static str, most: &'static str, counter: &'static str, test: &'static str) -> Limit {
    Limit { of, most, counter, test }
}

const AT_A_PEER: &[Limit] = &[
    limit(
        "peers known",
        "1,024; those met first stay",
        "evicted-peer",
        "src/node/tests/floods.rs: devices_that_a_member_invents_and_brings_up_one_after_the_other_crowd_nobody_out",
    ),
    limit(
        "names and addresses of those who are gone",
        "2,048 each",
        "evicted-binding",
        "src/router/bindings.rs: devices_that_come_and_go_without_end_crowd_nobody_out",
    ),
    limit(
        "candidates that nobody may announce",
        "none of loopback, multicast, our own overlays…",
        "candidate",
        "src/node/tests/floods.rs: candidates_that_nobody_may_announce_are_counted_and_not_tried",
    ),
    limit(
        "probes to addresses that never answered",
        "60 a minute for one address, 500 a second in all, 3 a second for one peer (240 at once)",
        "probe-budget",
        "src/node/tests/floods.rs: a_friend_who_moves_is_found_while_a_member_has_us_search_for_hundreds_of_devices",
    ),
    limit(
        "answers to one peer's probes",
        "100 a second, 32 waiting",
        "echo-rate",
        "src/node/tests/floods.rs: requests_beyond_a_peers_pace_are_counted_and_stay_counted_when_it_goes",
    ),
    limit(
        "SYNs to addresses that a peer names",
        "three each, within the same budget; no port below 1,024",
        "probe-budget",
        "src/node/tests/tcp.rs: who_names_somebody_else_has_us_knock_there_within_the_budget_and_never_at_a_service",
    ),
    limit(
        "addresses that one peer's probes came from",
        "16",
        "too-many-paths",
        "src/node/tests/floods.rs: requests_beyond_a_peers_pace_are_counted_and_stay_counted_when_it_goes",
    ),
    limit(
        "one peer's announcements",
        "1 a second, 5 at once",
        "announcement-rate",
        "src/node/tests/floods.rs: a_member_who_talks_without_end_is_not_listened_to_without_end",
    ),
    limit(
        "one peer's words in the session",
        "100 a second, 400 at once",
        "control-rate",
        "src/node/tests/floods.rs: a_member_who_talks_without_end_is_not_listened_to_without_end",
    ),
    limit(
        "beacons that are heard on the LAN",
        "4 a second from an address, 20 at once; 100 a second in all, 200 at once",
        "beacon-rate",
        "src/node/tests/lan.rs: other_networks_beacons_rubbish_and_our_own_are_nothing_and_a_flood_is_cut",
    ),
    limit(
        "peers known by hearsay alone",
        "32",
        "hearsay",
        "src/node/tests/lan.rs: of_devices_that_a_member_invents_on_the_lan_few_are_searched",
    ),
    limit(
        "wishes of one peer that something is carried for it",
        "2 a second, 40 at once",
        "carry-rate",
        "src/node/tests/carriers.rs: who_asks_without_end_is_not_listened_to_without_end_and_cannot_have_another_told_as_often",
    ),
    limit(
        "channels that are carried",
        "32 for each member, 256 ends in all",
        "carry-full",
        "src/node/tests/carriers.rs: a_member_may_have_32_channels_and_all_together_256",
    ),
    limit(
        "bytes that are carried",
        "10 megabits a second (`mbit` under [relay]), half of it from one prefix",
        "carry-over-rate",
        "tests/simulation/carriers.rs: who_sends_more_than_is_carried_is_told_and_goes_by_the_rendezvous",
    ),
    limit(
        "members who carry to one peer",
        "4",
        "too-many-carriers",
        "src/node/tests/carriers.rs: what_a_member_says_of_carrying_unasked_opens_nothing_and_only_so_many_carry_for_one",
    ),
    limit(
        "handshakes from unproven addresses",
        "40 a second, then a cookie has to prove the address: 4 a second for each that did",
        "under-load",
        "src/node/tests/floods.rs: a_member_who_proves_its_address_cannot_have_handshakes_without_end",
    ),
    limit(
        "handshakes that one peer begins",
        "4 a second, 8 at once",
        "too-many-handshakes",
        "src/session/tests/attacks.rs: a_peer_cannot_begin_handshakes_without_end",
    ),
    limit(
        "broadcast and multicast packets of this machine",
        "500 a second",
        "fan-out-rate",
        "src/node/tests/packets.rs: a_storm_of_broadcasts_is_cut_and_counted",
    ),
    limit(
        "broadcast and multicast packets of this machine that are overheard on a LAN",
        "1,000 a second, 64 at once",
        "overheard-lost",
        "tests/namespaces/everybody.rs: a_storm_of_a_program_here_is_lost_before_it_costs_anything",
    ),
    limit(
        "broadcast and multicast packets of one peer",
        "500 a second",
        "fan-in-rate",
        "src/node/tests/fan_out.rs: a_storm_is_cut_on_both_sides_and_named_while_it_lasts",
    ),
    limit(
        "what a peer says of the multicast groups that it wants",
        "1 kB, and no more often than all its words",
        "control-rate",
        "src/node/tests/fan_out.rs: a_member_that_says_its_groups_without_end_is_not_listened_to_without_end",
    ),
    limit(
        "broadcast and multicast packets of ours that a peer has sent word for word within the last second",
        "1 a second, 2 at once",
        "echo",
        "src/node/tests/fan_out.rs: what_a_program_says_on_every_interface_is_heard_once_and_an_echo_comes_to_its_end",
    ),
    limit(
        "packets that wait for a session",
        "64 a peer, 2 s",
        "no-session",
        "src/node/tests/packets.rs: packets_that_wait_too_long_or_are_too_many_are_counted",
    ),
    limit(
        "members and channels that one rendezvous speaks of",
        "4,096 each",
        "too-many-listed",
        "src/rendezvous/client/wishes.rs: channels_that_a_server_invents_are_closed_but_only_so_many",
    ),
    limit(
        "warnings that stand",
        "64",
        "too-many-warnings",
        "src/node/warnings.rs: only_so_many_stand_and_the_rest_is_counted",
    ),
    limit(
        "packets of this machine that wait for their turn",
        "511, and 127 super-packets",
        "queue-full",
        "src/daemon/outward.rs: packets_for_which_there_is_no_slot_are_counted",
    ),
    limit(
        "how long the packets of one flow wait for their turn",
        "5 ms; for 100 ms longer",
        "queue-long",
        "src/daemon/outward.rs: packets_that_are_lost_to_tell_that_the_queue_stands_are_counted",
    ),
    limit(
        "packets and datagrams that only the node can judge and that wait for it",
        "1,024 each",
        "node-busy",
        "src/daemon/handover.rs: neither_packets_nor_datagrams_keep_the_other_out_and_what_is_too_much_is_counted",
    ),
    limit(
        "bytes that wait for a rendezvous by TCP",
        "256 kB",
        "stream-full",
        "src/io/stream.rs: a_queue_that_nobody_empties_has_an_end_and_counts_what_is_lost",
    ),
];

const AT_A_RENDEZVOUS: &[Limit] = &[
    limit(
        "hellos",
        "50 a second from a prefix, 20,000 in all",
        "busy",
        "src/server/tests/attacks/strangers.rs: a_flood_of_registers_costs_few_signatures_and_keeps_nobody_out",
    ),
    limit(
        "registers",
        "20 a second from a prefix, 50 of a network, 2,000 in all",
        "busy",
        "src/server/tests/limits.rs: everybody_gets_in_after_a_restart_though_the_rate_of_registers_is_small",
    ),
    limit(
        "registrations from a prefix",
        "256",
        "prefix-full",
        "src/server/tests/limits.rs: memory_is_bounded_by_registrations_in_all_of_a_network_and_of_a_prefix",
    ),
    limit(
        "members of a network",
        "256",
        "network-full",
        "src/server/tests/limits.rs: memory_is_bounded_by_registrations_in_all_of_a_network_and_of_a_prefix",
    ),
    limit(
        "registrations in all",
        "100,000",
        "full",
        "src/server/tests/limits.rs: memory_is_bounded_by_registrations_in_all_of_a_network_and_of_a_prefix",
    ),
    limit(
        "changes of an announcement",
        "1 a second, 5 at once",
        "announcement-rate",
        "src/server/tests/attacks/members.rs: a_member_cannot_turn_others_into_a_flood",
    ),
    limit(
        "introductions that a member asks for",
        "1 a second, 64 at once",
        "introduction-rate",
        "src/server/tests/attacks/members.rs: a_member_cannot_turn_others_into_a_flood",
    ),
    limit(
        "whole lists that a member asks for",
        "1 a second, 3 at once",
        "list-rate",
        "src/server/tests/attacks/members.rs: the_list_is_not_told_as_often_as_somebody_asks",
    ),
    limit(
        "channels that a member opens and closes",
        "5 a second, 300 at once",
        "channel-rate",
        "src/server/tests/attacks/members.rs: a_channel_that_is_opened_and_closed_all_the_time_is_no_flood",
    ),
    limit(
        "open channels",
        "256 for each member, 200,000 in all",
        "channels-full",
        "src/server/tests/limits.rs: channels_over_the_limit_are_refused_in_words",
    ),
    limit(
        "relayed bytes from a prefix",
        "25 MB a second",
        "relay-over-prefix",
        "src/server/tests/limits.rs: relayed_traffic_over_the_limit_is_dropped_counted_and_said",
    ),
    limit(
        "relayed bytes of a network",
        "50 MB a second",
        "relay-over-network",
        "src/relay/tests.rs: networks_and_the_whole_have_limits_too",
    ),
    limit(
        "relayed bytes in all",
        "125 MB a second",
        "relay-over-total",
        "src/relay/tests.rs: networks_and_the_whole_have_limits_too",
    ),
    limit(
        "STUN answers",
        "20 a second for a prefix, 5,000 in all",
        "stun-rate",
        "src/server/tests/limits.rs: stun_answers_are_limited_by_prefix",
    ),
    limit(
        "STUN answers from another port or address",
        "as any other",
        "stun-rate",
        "src/server/tests/stun.rs: answers_from_elsewhere_count_as_any_other_against_the_limit",
    ),
    limit(
        "connections",
        "64 from a prefix, 2,048 in all",
        "streams-refused",
        "src/server/tests/streams.rs: connections_beyond_those_of_a_prefix_are_ended_and_udp_is_answered_all_the_same",
    ),
    limit(
        "connections that come",
        "10 a second from a prefix, 128 at once; 2 by TLS, 64 at once; 2,000 in all, 200 by TLS",
        "streams-refused",
        "src/server/streams.rs: who_connects_without_end_leaves_room_for_others",
    ),
    limit(
        "bytes that wait for a member by TCP",
        "256 kB",
        "stream-dropped",
        "src/server/tests/streams.rs: a_member_that_takes_nothing_loses_what_is_beyond_its_queue_and_holds_up_nobody",
    ),
];

#[test]
fn every_limit_on_the_list_is_counted_and_tested() {
    let words: BTreeSet<String> =
        ["daemon", "forward", "node", "rendezvous", "server", "wire"].iter().flat_map(|layer| quoted(layer)).collect();
    for Limit { of, most, counter, test } in AT_A_PEER.iter().chain(AT_A_RENDEZVOUS) {
        assert!(!most.is_empty() && words.contains(*counter), "{of}: nothing is counted as {counter}");
        named::test_exists(test);
    }
}

/// All short texts in quotation marks in the source of a layer.
fn quoted(layer: &str) -> BTreeSet<String> {
    let texts = named::sources(&format!("src/{layer}"));
    texts.iter().flat_map(|text| text.split('"').skip(1).step_by(2)).map(str::to_owned).collect()
}
