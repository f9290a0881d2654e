//! Name resolution, as the machine does it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::addr::canonical;

/// How long a lookup may take before it counts as failed; a resolver that is unreachable may take minutes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The addresses of `host` (a name, or an address as text, with or without brackets) in the resolver's
/// order of preference. The caller's runtime must be shut down in the background: a lookup that hangs
/// holds a thread of it.
///
/// # Errors
/// A sentence for `status`.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse() {
        return Ok(vec![canonical(SocketAddr::new(ip, port))]);
    }
    let found = match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((bare, port))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(format!("{host} does not resolve: {}", reason(&error))),
        Err(_) => return Err(format!("{host} does not resolve: no answer within {} s", PATIENCE.as_secs())),
    };
    let mut addresses = Vec::new();
    for addr in found.map(canonical) {
        if !addresses.contains(&addr) {
            addresses.push(addr);
        }
    }
    if addresses.is_empty() { Err(format!("{host} has no address")) } else { Ok(addresses) }
}

/// The resolver's own words, without the standard library's preface.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_as_text_need_no_resolver() {
        assert_eq!(resolve("192.0.2.1", 7).await, Ok(vec!["192.0.2.1:7".parse().expect("v4")]));
        assert_eq!(resolve("[2001:db8::1]", 7).await, Ok(vec!["[2001:db8::1]:7".parse().expect("v6")]));
        assert_eq!(resolve("::ffff:192.0.2.1", 7).await, Ok(vec!["192.0.2.1:7".parse().expect("v4")]));
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_said_in_one_sentence() {
        let error = resolve("no such host!", 7).await.expect_err("not a host name");
        assert!(error.starts_with("no such host! does not resolve: "), "{error}");
        assert!(!error.contains('\n'));
    }

    #[tokio::test]
    async fn localhost_is_found_once_per_address() {
        let found = resolve("localhost", 9).await.expect("localhost");
        let mut unique = found.clone();
        unique.dedup();
        assert!(found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 9));
        assert_eq!(found, unique);
    }
}
