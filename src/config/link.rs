//! The invite: `punchlan://join?name=…&key=plk1-…&subnet=…&rendezvous=…`, the whole `[network]` section.
//!
//! `rendezvous` and `deny` may be there several times. Parameters that a later version adds are ignored: a
//! newer friend's invite still lets one in.

use form_urlencoded::{Serializer, parse};
use zeroize::Zeroizing;

use super::check::{check_name, parse_key, parse_rendezvous, parse_subnet};
use super::write::rendezvous;
use super::{DEFAULT_NETWORK, NetworkConfig};

const PREFIX: &str = "punchlan://";
const ACTION: &str = "join";

/// Why a text is no invite. None of them shows the link: it is a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// There is no link in it.
    #[error("there is no invite in it: an invite begins with \"punchlan://join?\"")]
    NoLink,
    /// A link for another purpose.
    #[error("this punchlan:// link is no invite: an invite begins with \"punchlan://join?\"")]
    OtherAction,
    /// The key is missing.
    #[error("the link ends before the network's key{}", .cut.then_some(". A shell cuts it at the first &: put it in 'single quotes'").unwrap_or_default())]
    NoKey {
        /// Whether it looks as if a shell had cut it.
        cut: bool,
    },
    /// A part is damaged.
    #[error("the link is damaged: {what}; {help}")]
    Damaged {
        /// What is wrong.
        what: String,
        /// What to do.
        help: String,
    },
}

/// The link that carries `network`.
pub fn to_link(network: &NetworkConfig) -> Zeroizing<String> {
    let room = 512 + 256 * (network.rendezvous.len() + network.deny.len());
    let mut target = String::with_capacity(room);
    target.push_str(PREFIX);
    target.push_str(ACTION);
    target.push('?');
    let start = target.len();
    let mut query = Serializer::for_suffix(target, start);
    query.append_pair("name", &network.name);
    query.append_pair("key", &network.key.to_text());
    query.append_pair("subnet", &network.overlay().v4.to_string());
    for server in &network.rendezvous {
        query.append_pair("rendezvous", &rendezvous(server));
    }
    for id in &network.deny {
        query.append_pair("deny", &id.to_string());
    }
    Zeroizing::new(query.finish())
}

/// The first link in a text: a file may hold the message it came in.
pub fn find_link(text: &str) -> Option<&str> {
    let start = text.char_indices().map(|(i, _)| i).find(|i| has_prefix(&text[*i..]))?;
    let link = &text[start..];
    let ends = |c: char| c.is_whitespace() || c.is_control() || "\"'<>`“”‘’„‚«»".contains(c);
    let end = link.find(ends).unwrap_or(link.len());
    // What ends a sentence or a bracket ends no link of ours.
    Some(link[..end].trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']', '*', '_']))
}

fn has_prefix(text: &str) -> bool {
    text.get(..PREFIX.len()).is_some_and(|head| head.eq_ignore_ascii_case(PREFIX))
}

/// Understands an invite.
///
/// # Errors
/// What is wrong with it.
pub fn from_link(link: &str) -> Result<NetworkConfig, LinkError> {
    let rest = link.get(PREFIX.len()..).filter(|_| has_prefix(link)).ok_or(LinkError::NoLink)?;
    let (action, query) = rest.split_once('?').ok_or(LinkError::NoKey { cut: false })?;
    if action.trim_end_matches('/') != ACTION {
        return Err(LinkError::OtherAction);
    }
    // Mail programs and web pages write & as &amp;.
    let query = Zeroizing::new(query.replace("&amp;", "&"));
    let (mut name, mut key, mut subnet, mut servers, mut deny) = (None, None, None, Vec::new(), Vec::new());
    for (parameter, value) in parse(query.as_bytes()) {
        match &*parameter {
            "name" => name = Some(check_name("a network's name", &value).map_err(damaged)?),
            "key" => key = Some(parse_key(&Zeroizing::new(value.into_owned())).map_err(damaged)?),
            "subnet" => subnet = Some(parse_subnet(&value).map_err(damaged)?),
            "rendezvous" => servers.push(parse_rendezvous(&value).map_err(damaged)?),
            "deny" => deny.push(value.parse().map_err(|error| damaged((format!("{error}"), AGAIN.into())))?),
            _ => {}
        }
    }
    let key = key.ok_or(LinkError::NoKey { cut: !query.contains('&') })?;
    Ok(NetworkConfig {
        name: name.unwrap_or_else(|| DEFAULT_NETWORK.to_owned()),
        key,
        subnet,
        rendezvous: servers,
        deny,
    })
}

const AGAIN: &str = "copy it again as a whole, or ask for a new one";

fn damaged((what, _): super::check::Wrong) -> LinkError {
    LinkError::Damaged { what, help: AGAIN.to_owned() }
}
