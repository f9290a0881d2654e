//! What a service manager is told (`sd_notify`): that we are ready, read the configuration again, or stop.

#[cfg(unix)]
pub(crate) use sd_notify::NotifyState;

/// Tells it, if there is one that wants to know.
#[cfg(unix)]
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// The configuration is read again, which ends with [`NotifyState::Ready`].
#[cfg(unix)]
pub(crate) fn notify_reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
}

/// Other systems have no such manager.
#[cfg(not(unix))]
#[derive(Debug)]
pub(crate) enum NotifyState<'a> {
    Ready,
    Stopping,
    Status(&'a str),
}

#[cfg(not(unix))]
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    tracing::trace!(?states, "no service manager");
}

#[cfg(not(unix))]
pub(crate) fn notify_reloading() {}
