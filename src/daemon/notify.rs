//! What a service manager is told, if there is one that wants to know (`sd_notify`).

/// What it may be told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice<'a> {
    /// We answer; in a line what we are.
    Ready(&'a str),
    /// The configuration is read again, until [`Notice::Reloaded`].
    Reloading,
    /// It was.
    Reloaded,
    /// We leave.
    Stopping,
}

/// Tells it.
#[cfg(unix)]
pub(crate) fn notify(notice: Notice<'_>) {
    use sd_notify::NotifyState;
    let told = match notice {
        Notice::Ready(line) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(line)]),
        Notice::Reloading => {
            NotifyState::monotonic_usec_now().and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now]))
        }
        Notice::Reloaded => sd_notify::notify(&[NotifyState::Ready]),
        Notice::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
    };
    if let Err(error) = told {
        tracing::debug!(?notice, %error, "the service manager was not told");
    }
}

/// Other systems have no such manager.
#[cfg(not(unix))]
pub(crate) fn notify(notice: Notice<'_>) {
    tracing::trace!(?notice, "no service manager");
    if let Notice::Ready(line) = notice {
        tracing::trace!(line);
    }
}
