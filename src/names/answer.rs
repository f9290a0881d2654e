//! A name server's answers, for one [`Zone`] and its reverse zones: a question's bytes in, an answer's bytes out.
//!
//! It knows its own names and nothing else: it asks nobody, and what is not its own it refuses. Whether a name is asked
//! for in capitals makes no difference, and the answer spells it as the question did. Everything may be cached for
//! [`TTL`], that there is no such name too: addresses move. No answer is longer than the 512 bytes that fit without
//! being asked for, so none is ever cut off.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use ipnet::IpNet;

use super::{Host, Zone};

/// Seconds for which an answer may be kept.
const TTL: u32 = 10;
/// The header of a message.
const HEADER: usize = 12;
/// Bytes of an answer that we can take: nobody sends us any.
const PAYLOAD: u16 = 1_232;
/// The labels of an IPv6 address' reverse name.
const LONGEST_REVERSE: usize = 34;

/// What there is under a name.
enum Found {
    /// A member.
    Host(Host),
    /// Whose address it is.
    Whose(String),
    /// Nothing, but it is the zone itself, or there may be names below it.
    Node,
    /// There is no such name.
    Nothing,
}

impl Zone {
    /// The answer to a question; `None`: it is none, and nothing is said.
    pub fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let header: &[u8; HEADER] = question.first_chunk()?;
        let [id_high, id_low, flags, _, questions @ ..] = *header;
        if flags & 0x80 != 0 {
            return None; // An answer.
        }
        let read = Some(question).filter(|_| questions[..2] == [0, 1]).and_then(|bytes| Message::from_vec(bytes).ok());
        let answer = match read {
            Some(question) => self.reply(&question),
            None => {
                let id = u16::from_be_bytes([id_high, id_low]);
                Message::error_msg(id, OpCode::from_u8(flags >> 3 & 0xf), ResponseCode::FormErr)
            }
        };
        answer.to_vec().ok()
    }

    fn reply(&self, question: &Message) -> Message {
        let mut answer = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
        answer.metadata = Metadata::response_from_request(&question.metadata);
        answer.add_queries(question.queries.iter().cloned());
        if question.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD);
            answer.set_edns(edns);
        }
        let asked = question.queries.first().filter(|asked| asked.query_class() == DNSClass::IN);
        let refusal = match asked.map(|asked| (asked, self.find(asked.name()))) {
            _ if question.metadata.op_code != OpCode::Query => Some(ResponseCode::NotImp),
            _ if question.version() > 0 => Some(ResponseCode::BADVERS),
            None | Some((_, None)) => Some(ResponseCode::Refused),
            Some((asked, Some((apex, found)))) => {
                self.fill(&mut answer, asked, apex, &found);
                None
            }
        };
        if let Some(code) = refusal {
            answer.metadata.response_code = code;
        }
        answer
    }

    /// The zone that `name` is in, and what there is; `None`: it is in none of ours.
    fn find(&self, name: &Name) -> Option<(Name, Found)> {
        let domain = self.apex();
        if domain.zone_of(name) {
            let below = usize::from(name.num_labels()) - usize::from(domain.num_labels());
            let label = name.iter().next().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase());
            let host = || self.by_name.get(&label.unwrap_or_default());
            let found = match below {
                0 => Found::Node,
                1 => host().map_or(Found::Nothing, |host| Found::Host(host.clone())),
                _ => Found::Nothing,
            };
            return Some((domain, found));
        }
        // What stands below an address, as in "lb._dns-sd._udp.0.77.10.in-addr.arpa", is not there.
        let labels = usize::from(name.num_labels());
        let mut parts = (2..=labels.min(LONGEST_REVERSE)).rev().map(|labels| (labels, name.trim_to(labels)));
        let (taken, net) = parts.find_map(|(labels, part)| Some((labels, part.parse_arpa_name().ok()?)))?;
        let zone = self.reverse_net(net)?;
        let found = match self.by_address.get(&net.addr()) {
            _ if taken < labels => Found::Nothing,
            _ if net.prefix_len() < net.max_prefix_len() => Found::Node,
            None if zone == net => Found::Node,
            None => Found::Nothing,
            Some(owner) => Found::Whose(owner.clone()),
        };
        Some((reverse_name(zone), found))
    }

    fn fill(&self, answer: &mut Message, asked: &Query, apex: Name, found: &Found) {
        let kind = asked.query_type();
        let wants = |this: RecordType| kind == this || kind == RecordType::ANY;
        let data = match found {
            Found::Host(host) => host.addresses().filter(|addr| wants(kind_of(addr))).map(rdata).collect(),
            Found::Whose(owner) => {
                let owner = self.apex().prepend_label(owner.as_bytes()).ok().filter(|_| wants(RecordType::PTR));
                owner.map(|name| RData::PTR(PTR(name))).into_iter().collect()
            }
            Found::Node if wants(RecordType::SOA) && *asked.name() == apex => vec![self.soa()],
            Found::Node | Found::Nothing => Vec::new(),
        };
        answer.metadata.authoritative = true;
        if matches!(found, Found::Nothing) {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        if data.is_empty() {
            // For how long that may be believed (RFC 2308 §3).
            answer.add_authority(Record::from_rdata(apex, TTL, self.soa()));
        }
        answer.add_answers(data.into_iter().map(|data| Record::from_rdata(asked.name().clone(), TTL, data)));
    }

    fn apex(&self) -> Name {
        let mut name = Name::from_ascii(&self.domain).unwrap_or_default();
        name.set_fqdn(true);
        name
    }

    /// Nobody keeps a copy of the zone: all but the last number means nothing.
    fn soa(&self) -> RData {
        let nobody = Name::from_ascii("nobody.invalid.").unwrap_or_default();
        RData::SOA(SOA::new(self.apex(), nobody, 1, 3_600, 600, 86_400, TTL))
    }

    /// The names of the zones that this network's names and addresses are in, without the dot at the end: first the
    /// domain.
    pub fn zone_names(&self) -> Vec<String> {
        let reverse = self.reverse_nets().into_iter().map(|net| reverse_name(net).to_ascii());
        let names = std::iter::once(self.domain.clone()).chain(reverse);
        names.map(|name| name.trim_end_matches('.').to_owned()).collect()
    }
}

/// `0.77.10.in-addr.arpa.` for 10.77.0.0/24.
fn reverse_name(net: IpNet) -> Name {
    let labels = match net {
        IpNet::V4(net) => net.prefix_len() / 8,
        IpNet::V6(net) => net.prefix_len() / 4,
    };
    Name::from(net.addr()).trim_to(usize::from(labels) + 2)
}

const fn kind_of(addr: &IpAddr) -> RecordType {
    match addr {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::AAAA,
    }
}

const fn rdata(addr: IpAddr) -> RData {
    match addr {
        IpAddr::V4(addr) => RData::A(A(addr)),
        IpAddr::V6(addr) => RData::AAAA(AAAA(addr)),
    }
}

#[cfg(test)]
mod tests;
