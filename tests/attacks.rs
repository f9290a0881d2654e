//! What has been thought of that somebody might do, what stands against it, and the tests that do it. Every test that
//! is named here must exist, so the list stays true.
//!
//! Who might do it: *a stranger*, who reads and writes the wire but has no key; *a member*, who has the network's key;
//! *a user*, who is somebody else on the same machine.

#[path = "common/named.rs"]
mod named;

/// One row.
struct Attack {
    what: &'static str,
    against: &'static str,
    /// `file: test`.
    tests: &'static [&'static str],
}

const fn attack(what: &'static str, against: &'static str, tests: &'static [&'static str]) -> Attack {
    Attack { what, against, tests }
}

const ATTACKS: &[Attack] = &[
    attack(
        "a stranger registers in a member's name",
        "two signatures over cookie, server key and a fresh key; no state before the address is proven",
        &[
            "src/server/tests/attacks/strangers.rs: a_registration_with_a_wrong_signature_is_refused",
            "src/server/tests/attacks/strangers.rs: a_cookie_is_good_for_its_address_its_server_address_and_a_short_time",
        ],
    ),
    attack(
        "a stranger has the rendezvous write to somebody by STUN, from any of its ports and addresses",
        "no answer is longer than its question; it goes to who asked; to another port of theirs only with a cookie from \
         there",
        &[
            "src/server/tests/stun.rs: an_answer_goes_to_another_port_only_with_the_proof_of_who_was_there",
            "src/server/tests/stun.rs: wherever_it_comes_from_an_answer_is_no_longer_than_its_question_and_goes_to_the_asker_alone",
            "src/server/tests/attacks/strangers.rs: no_answer_is_longer_than_its_question_before_the_address_is_proven",
        ],
    ),
    attack(
        "a STUN server has us write into our own house, or lies about the NAT",
        "another address is asked only where a candidate could be; silence counts only beside answers; a check ends",
        &[
            "src/netcheck/tests.rs: a_server_cannot_have_us_write_to_ourselves_or_into_the_house",
            "src/netcheck/tests.rs: a_server_that_stops_to_answer_or_answers_too_few_is_not_taken_for_a_strict_nat",
            "src/netcheck/tests.rs: whatever_servers_answer_a_check_comes_to_its_end",
        ],
    ),
    attack(
        "a registration is overwritten",
        "numbers only grow; frames are sealed under keys of that registration; the older run is asked whether it lives",
        &[
            "src/server/tests/attacks/line.rs: a_number_that_does_not_grow_is_stale",
            "src/server/tests/attacks/members.rs: frames_of_another_registration_are_not_accepted",
            "tests/simulation/events.rs: a_copied_state_folder_is_reported_and_the_first_keeps_working",
        ],
    ),
    attack(
        "a member behind the same router takes another's seat",
        "a seat belongs to a device, not to an address",
        &["src/server/tests/attacks/members.rs: a_member_behind_the_same_router_takes_no_seat"],
    ),
    attack(
        "a flood of registrations",
        "rates by source prefix, by network and in all; seats by prefix, by network and in all",
        &[
            "src/server/tests/attacks/strangers.rs: a_flood_of_registers_costs_few_signatures_and_keeps_nobody_out",
            "src/server/tests/limits.rs: a_flood_from_one_prefix_leaves_room_for_others",
            "src/server/tests/limits.rs: memory_is_bounded_by_registrations_in_all_of_a_network_and_of_a_prefix",
        ],
    ),
    attack(
        "connections without end, that say nothing, never a whole datagram, or what is not ours",
        "few from one prefix, and few a second; ended when nothing whole came for 10 s or nobody registered within 30 s, and \
         at once for what is not ours; 4 kB of memory until then",
        &[
            "src/server/streams.rs: who_connects_without_end_leaves_room_for_others",
            "src/server/tests/streams.rs: connections_beyond_those_of_a_prefix_are_ended_and_udp_is_answered_all_the_same",
            "src/server/tests/streams.rs: who_says_nothing_whole_is_not_waited_for",
            "src/server/tests/streams.rs: what_is_not_ours_ends_a_connection_at_once",
            "src/wire/stream.rs: what_is_no_length_of_ours_ends_the_stream",
        ],
    ),
    attack(
        "pings without end by a WebSocket, whose answers nobody takes",
        "16 without a datagram in between end it; 8 kB of answers wait at most",
        &["src/io/web.rs: who_pings_without_end_and_says_nothing_else_is_ended_though_it_takes_no_answer"],
    ),
    attack(
        "a member by TCP that reads nothing of what is relayed to it",
        "a queue of 256 kB each, and what is beyond it is dropped; nobody waits for anybody",
        &[
            "src/server/tests/streams.rs: a_member_that_takes_nothing_loses_what_is_beyond_its_queue_and_holds_up_nobody",
        ],
    ),
    attack(
        "reflection: answers sent to somebody who asked nothing",
        "before an address is proven no answer is longer than its question, whatever the message",
        &[
            "src/server/tests/attacks/strangers.rs: no_answer_is_longer_than_its_question_before_the_address_is_proven",
            "src/server/tests/attacks/strangers.rs: mutated_datagrams_are_not_reflected",
            "tests/simulation/attacks.rs: every_datagram_replayed_from_anywhere_changes_nothing",
            "tests/simulation/attacks.rs: rubbish_of_every_kind_changes_nothing",
        ],
    ),
    attack(
        "a member announces addresses of others as its own",
        "60 probes a minute and address, 500 a second in all, a pace of each member's own",
        &[
            "src/node/tests/floods.rs: a_member_cannot_have_others_search_new_addresses_all_the_time",
            "src/punch/budget.rs: no_minute_holds_more_than_sixty_probes_to_a_silent_address",
            "src/punch/budget.rs: no_second_holds_more_than_five_hundred_probes_of_the_node",
            "tests/namespaces/rogue.rs: a_member_cannot_turn_the_others_on_somebody",
        ],
    ),
    attack(
        "a member sprays ports over one address",
        "the budget is of the address, whatever the port",
        &["src/node/tests/floods.rs: ports_that_a_member_sprays_over_one_address_share_what_a_stranger_gets"],
    ),
    attack(
        "a member says that it listens by TCP where somebody else does",
        "a SYN counts in the same budget, three for each address; no port below 1,024, where services are, is tried",
        &["src/node/tests/tcp.rs: who_names_somebody_else_has_us_knock_there_within_the_budget_and_never_at_a_service"],
    ),
    attack(
        "a stranger connects to the port on which peers are listened for",
        "64 at once, 16 of one source, 20 a second; it is nobody until a probe verifies, and ended after seconds",
        &[
            "src/daemon/gate.rs: one_source_and_all_together_have_so_many_places_which_come_free",
            "src/daemon/gate.rs: whoever_comes_and_goes_does_so_at_a_pace",
            "src/node/tests/tcp.rs: a_connection_of_nobodys_is_ended_and_the_port_is_closed_when_nobody_wants_it",
            "src/node/tests/tcp.rs: garbage_by_a_connection_is_counted_and_changes_nothing",
        ],
    ),
    attack(
        "a member has another carry to somebody who is no member, or does not want it",
        "carried is only to where a direct way is proven, by this machine and by who asks, and only when both have asked",
        &[
            "src/node/tests/carriers.rs: nothing_is_carried_to_where_nobody_was_proven_to_be_nor_through_a_second_relay",
            "src/node/tests/carriers.rs: a_frame_is_carried_between_two_who_both_asked_and_only_under_its_senders_key_from_its_address",
            "tests/simulation/carriers.rs: who_is_denied_is_neither_carried_for_nor_asked",
        ],
    ),
    attack(
        "a member uses up another's line or memory by what it has carried",
        "a rate of wishes, a number of channels, a rate of bytes of which one address has half; a frame goes out once, as \
         long as it came",
        &[
            "src/node/tests/carriers.rs: who_asks_without_end_is_not_listened_to_without_end_and_cannot_have_another_told_as_often",
            "src/node/tests/carriers.rs: beyond_the_channels_there_may_be_it_is_refused_counted_and_said",
            "src/node/tests/carriers.rs: a_channel_that_nobody_asks_for_any_more_ends",
            "tests/simulation/carriers.rs: who_sends_more_than_is_carried_is_told_and_goes_by_the_rendezvous",
        ],
    ),
    attack(
        "a member says that it carries, and was not asked, or for many",
        "only who was asked, or has the peer ask, is a way; four for each peer; what comes by it is sealed end to end",
        &[
            "src/node/tests/carriers.rs: what_a_member_says_of_carrying_unasked_opens_nothing_and_only_so_many_carry_for_one",
        ],
    ),
    attack(
        "a stranger sends frames in a member's name to one who carries",
        "each has a tag under the key of the pair, and comes from where its sender asked",
        &[
            "src/node/tests/carriers.rs: a_frame_is_carried_between_two_who_both_asked_and_only_under_its_senders_key_from_its_address",
        ],
    ),
    attack(
        "a member's probes name somebody else as their sender",
        "echoes to an address that never answered are in the same budget",
        &[
            "src/punch/budget.rs: echoes_to_an_address_that_never_answered_are_limited_too",
            "tests/namespaces/rogue.rs: a_member_cannot_turn_the_others_on_somebody",
        ],
    ),
    attack(
        "a member invents devices",
        "those who were met first keep their place and their part of the probes; bindings are bounded",
        &[
            "src/node/tests/floods.rs: devices_that_a_member_invents_and_brings_up_one_after_the_other_crowd_nobody_out",
            "src/node/tests/floods.rs: a_member_cannot_shut_newcomers_out_with_invented_devices",
            "src/node/tests/floods.rs: a_friend_who_moves_is_found_while_a_member_has_us_search_for_hundreds_of_devices",
            "src/node/tests/names.rs: an_invented_device_does_not_take_a_bound_name",
            "src/router/bindings.rs: devices_that_come_and_go_without_end_crowd_nobody_out",
        ],
    ),
    attack(
        "a stranger on the LAN repeats what a member said there, invents, or floods",
        "it is sealed for members and numbered; a search begins, within the budget of all searches, and nobody counts as here; \
         a rate",
        &[
            "src/node/tests/lan.rs: a_beacon_that_somebody_repeats_makes_nobody_be_here_and_counts_once",
            "src/node/tests/lan.rs: answers_are_not_answered",
            "src/node/tests/lan.rs: other_networks_beacons_rubbish_and_our_own_are_nothing_and_a_flood_is_cut",
            "src/node/tests/lan.rs: of_devices_that_a_member_invents_on_the_lan_few_are_searched",
        ],
    ),
    attack(
        "a handshake is replayed",
        "one number that only grows; an answer proves nothing until a packet under the new keys is opened",
        &[
            "src/session/tests/attacks.rs: old_handshake_messages_change_nothing",
            "src/session/tests/attacks.rs: an_old_initiation_after_a_restart_unseats_nobody",
            "src/session/tests/attacks.rs: an_initiation_again_gets_the_same_response_until_it_is_proven_and_then_none",
        ],
    ),
    attack(
        "a probe is replayed",
        "a window over its counters; an echo counts only for a nonce that waits, from where it was sent",
        &[
            "src/node/tests/forgeries.rs: replayed_and_random_datagrams_are_counted_and_change_nothing",
            "tests/simulation/attacks.rs: every_datagram_replayed_from_anywhere_changes_nothing",
        ],
    ),
    attack(
        "data is replayed",
        "a window of 32,768 counters",
        &["src/session/tests/attacks.rs: replayed_and_forged_data_is_refused_and_moves_nothing"],
    ),
    attack(
        "a registration is replayed",
        "its number was used; its cookie is of a short time; its keys are not the replayer's",
        &[
            "src/server/tests/attacks/line.rs: a_replayed_registration_changes_nothing",
            "src/server/tests/attacks/line.rs: who_left_is_not_brought_back_by_a_replay",
            "src/server/tests/attacks/line.rs: who_fell_silent_is_not_brought_back_by_a_replay_under_keys_that_were_used",
        ],
    ),
    attack(
        "what a peer sent is sent back to it",
        "keys, tags and indices are of one direction",
        &["src/node/tests/forgeries.rs: what_is_sent_back_to_its_sender_changes_nothing"],
    ),
    attack(
        "a leave or an introduction is forged from the server's address",
        "everything after the registration is sealed in both directions",
        &[
            "src/server/tests/attacks/line.rs: nobody_but_the_server_can_speak_for_it",
            "src/node/tests/forgeries.rs: what_comes_from_a_servers_address_and_proves_nothing_is_counted",
        ],
    ),
    attack(
        "a peer is moved by replayed packets",
        "a path is proven by the echo of a fresh nonce alone",
        &["src/node/tests/forgeries.rs: a_packet_that_was_held_back_and_sent_from_elsewhere_moves_no_path"],
    ),
    attack(
        "a session or a registration is reset without a key",
        "a hint that something is unknown only has us ask, beside what stands",
        &[
            "src/server/tests/attacks/line.rs: an_unknown_from_nobody_resets_nothing_and_costs_little",
            "src/session/tests/attacks.rs: a_forged_response_does_not_cost_the_right_one",
        ],
    ),
    attack(
        "a flood of handshakes",
        "mac1 before any computation; cookies under load; a rate for each member, also by relay",
        &[
            "src/node/tests/floods.rs: garbage_initiations_do_not_put_members_under_load",
            "src/node/tests/floods.rs: a_member_who_floods_a_relay_with_initiations_keeps_no_other_from_a_handshake",
            "src/node/tests/floods.rs: a_member_who_proves_its_address_cannot_have_handshakes_without_end",
            "src/session/tests/attacks.rs: under_load_an_address_is_proven_first",
        ],
    ),
    attack(
        "inner packets with a foreign source or destination",
        "the guard: the source must be the sender's, the destination ours or everybody's",
        &[
            "src/node/tests/packets.rs: inner_packets_from_foreign_sources_are_dropped_on_both_sides",
            "src/router/mod.rs: a_peer_sends_only_from_its_own_addresses",
            "src/router/mod.rs: a_peer_sends_only_to_us_or_to_everyone",
        ],
    ),
    attack(
        "the relay is used by somebody who is no member",
        "channels join registrations of one network; each frame has a tag; bytes are limited by source, network, in all",
        &[
            "src/server/tests/attacks/members.rs: channels_lead_to_members_of_the_own_network_alone",
            "src/server/tests/limits.rs: relayed_traffic_over_the_limit_is_dropped_counted_and_said",
        ],
    ),
    attack(
        "a member has the rendezvous flood others",
        "announcements, introductions, channels and lists each have a pace",
        &[
            "src/server/tests/attacks/members.rs: a_member_cannot_turn_others_into_a_flood",
            "src/server/tests/attacks/members.rs: a_member_that_moves_to_and_fro_tells_others_once_a_second_at_most",
            "src/server/tests/attacks/members.rs: a_channel_that_is_opened_and_closed_all_the_time_is_no_flood",
            "src/server/tests/attacks/members.rs: the_list_is_not_told_as_often_as_somebody_asks",
        ],
    ),
    attack(
        "a member speaks for another, or takes its address",
        "announcements are signed by their device; bindings hold for a week",
        &[
            "src/node/tests/forgeries.rs: a_member_cannot_speak_for_another",
            "src/node/tests/addresses.rs: a_settled_configured_address_is_not_lost_to_one_members_word",
            "src/session/tests/attacks.rs: nobody_speaks_in_anothers_name",
        ],
    ),
    attack(
        "a member asks this machine's name server, or takes a name by which programs find their proxy",
        "an answer goes to this machine's own address alone; such names are nobody's; what is not ours is refused",
        &[
            "tests/namespaces/names.rs: members_are_found_by_name_from_everywhere_while_they_are_known_and_names_follow_them",
            "src/io/dns.rs: who_asks_from_another_address_is_not_answered",
            "src/names/mod.rs: what_would_do_harm_outside_is_left_out",
            "src/names/answer/tests.rs: what_is_not_ours_is_refused_and_nobody_else_is_asked",
            "tests/corpus.rs: of_names",
        ],
    ),
    attack(
        "logs, answers and processes are searched for secrets",
        "secrets have no Debug, and travel in no argument",
        &[
            "tests/namespaces/secrets.rs: at_trace_level_no_log_and_no_answer_contains_a_secret",
            "src/session/tests/attacks.rs: no_secret_is_in_debug",
            "src/cli/args.rs: a_link_is_not_in_debug",
        ],
    ),
    attack(
        "the wire is searched for names and contents",
        "announcements are sealed and padded, data is sealed",
        &[
            "tests/namespaces/life.rs: a_capture_of_a_whole_run_shows_no_name_no_overlay_address_and_no_inner_byte",
            "tests/simulation/attacks.rs: the_wire_shows_no_name_no_overlay_address_and_no_inner_byte",
        ],
    ),
    attack(
        "a member, or a program on its machine, floods all others by broadcast and multicast",
        "500 packets a second at the sender, and of each member at every receiver, before they cost more than to open them; \
         both name it",
        &[
            "src/node/tests/fan_out.rs: a_storm_is_cut_on_both_sides_and_named_while_it_lasts",
            "src/node/tests/fan_out.rs: one_members_storm_does_not_cut_anothers_packets_nor_what_is_for_one",
            "tests/simulation/fan_out.rs: a_storm_is_cut_and_named_and_disturbs_nobody",
        ],
    ),
    attack(
        "a member says without end which multicast groups it wants, or more than anybody can want",
        "1 kB of addresses in ascending order, or nothing; the last word counts, and nobody else is told",
        &[
            "src/node/tests/fan_out.rs: a_member_that_says_its_groups_without_end_is_not_listened_to_without_end",
            "src/wire/groups.rs: more_than_a_message_carries_is_everything",
            "src/wire/groups.rs: groups_hold_in_both_directions",
        ],
    ),
    attack(
        "a member repeats what others ask, so that their questions are taken for echoes; or has echoes go in circles",
        "what a member has said too is still sent once a second, and no more",
        &[
            "src/forward/repeats.rs: who_asks_what_others_ask_too_is_heard",
            "src/forward/repeats.rs: a_circle_comes_to_its_end",
            "tests/simulation/fan_out.rs: nothing_goes_in_circles_though_everybody_says_again_what_comes",
        ],
    ),
    attack(
        "a user of the same machine asks, changes or floods",
        "the system says who asks; only root and the owner change something; a share of connections for each user",
        &[
            "tests/up.rs: another_user_may_look_and_no_more",
            "tests/cli.rs: others_may_look_but_change_nothing",
            "src/control/tests.rs: garbage_and_silent_and_greedy_clients_harm_nobody",
        ],
    ),
    attack(
        "a member, or somebody on the LAN, answers what games ask with bytes that are to harm",
        "readers of few lines, each within bounds; no more is kept than somebody reads; who wants to be asked again is twice",
        &[
            "tests/corpus.rs: of_games_and_machines",
            "src/wire/discovery/mod.rs: somebodys_words_are_one_short_line_that_steers_nothing",
        ],
    ),
    attack(
        "a member has the others write to somebody by asking in his name who hears a broadcast",
        "a member's source is its own; no answer is longer than its question; only members are answered, at a pace",
        &["src/wire/doctor.rs: a_question_is_never_shorter_than_its_answer"],
    ),
    attack(
        "rubbish, a million times",
        "nothing that does not authenticate changes anything, and everything is counted",
        &[
            "tests/namespaces/storm.rs: a_storm_of_mutated_datagrams_of_a_live_session_costs_no_ping",
            "src/server/tests/attacks/line.rs: mutated_datagrams_of_a_live_session_harm_nobody",
            "tests/corpus.rs: of_a_live_node",
            "tests/corpus.rs: of_a_live_rendezvous",
        ],
    ),
];

#[test]
fn every_test_on_the_list_exists() {
    for Attack { what, against, tests } in ATTACKS {
        assert!(!tests.is_empty() && !against.is_empty(), "{what}");
        tests.iter().copied().for_each(named::test_exists);
    }
}
