//! How much of the system this process may take.

/// Descriptors that are enough for a peer, with some to spare: some hundred sockets while a way through a hard NAT is looked
/// for, and what others of them have found, beside a dozen for all else. Shells give 256 (macOS) or 1024.
pub const OF_A_PEER: u32 = 4_096;

/// Takes so many descriptors, or as many as are permitted. Where that fails fewer must do.
#[cfg(unix)]
pub fn raise_descriptors(wanted: u32) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(wanted.into());
        if soft < wanted { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open descriptors stays as it is");
    }
}

/// Here there is no such limit.
#[cfg(not(unix))]
pub fn raise_descriptors(_wanted: u32) {}

#[cfg(all(test, unix))]
mod tests {
    use nix::sys::resource::{Resource, getrlimit};

    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_permitted_and_never_lowered() {
        let limit = || getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        let (before, hard) = limit();
        raise_descriptors(OF_A_PEER);
        assert_eq!(limit(), (before.max(hard.min(OF_A_PEER.into())), hard));
    }
}
