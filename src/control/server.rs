//! The daemon's end: accepts, reads, refuses, and passes on what is left.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{MAX_REQUEST, Refusal, Request, Response, line, os};
use crate::io::store::RunDir;

/// Connections that one user may hold at once. Each user has their own share, so nobody can keep root or
/// the owner out.
const PER_USER: u32 = 16;
/// A client that says nothing for so long, or does not take its answer, is cut off.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest that the daemon may take to answer; a ping that is lost takes this long to be forgotten.
const ANSWER: Duration = Duration::from_secs(10);
/// Pause after the system refused a connection (no file descriptors left, say).
const PAUSE: Duration = Duration::from_millis(100);
/// Questions that wait for the daemon's loop.
const QUEUE: usize = 16;

/// Why there is no control socket. Exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers on it.
    #[error(
        "this network is up already: {} answers{}; `punchlan down` ends it",
        path.display(),
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
        /// Who holds it.
        pid: Option<i32>,
    },
    /// The system's.
    #[error("the control socket {} cannot be made: {source}", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A permitted question, and where its answer goes. Dropping `reply` is an answer too: the client is told
/// that there is none.
#[derive(Debug)]
pub struct Incoming {
    /// The question.
    pub request: Request,
    /// Takes the answer; the client may be gone.
    pub reply: oneshot::Sender<Response>,
}

/// The control socket of a daemon. Dropped, it is gone with its run folder, and all connections end.
#[derive(Debug)]
pub struct Server {
    incoming: mpsc::Receiver<Incoming>,
    task: JoinHandle<()>,
    run_dir: RunDir,
}

impl Server {
    /// Binds in the run folder and begins to accept. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Another daemon is there, or the system's.
    pub fn bind(run_dir: &RunDir) -> Result<Self, BindError> {
        let listener = os::Listener::bind(run_dir)?;
        let (sender, incoming) = mpsc::channel(QUEUE);
        let owners: Arc<[u32]> = os::owners().into();
        let task = tokio::spawn(accept(listener, owners, sender));
        Ok(Self { incoming, task, run_dir: run_dir.clone() })
    }

    /// The next question. Cancel-safe.
    pub async fn next(&mut self) -> Incoming {
        match self.incoming.recv().await {
            Some(incoming) => incoming,
            // The accepting task ends only with this.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        self.run_dir.remove();
    }
}

/// How many connections each user holds.
#[derive(Clone, Debug, Default)]
struct Shares(Arc<Mutex<BTreeMap<u32, u32>>>);

/// One connection of a user's share; given back when dropped.
struct Share {
    shares: Shares,
    user: u32,
}

impl Shares {
    fn take(&self, user: u32) -> Option<Share> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(user).or_default();
        if *count >= PER_USER {
            return None;
        }
        *count += 1;
        Some(Share { shares: self.clone(), user })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&self.user)),
        }
    }
}

async fn accept(mut listener: os::Listener, owners: Arc<[u32]>, daemon: mpsc::Sender<Incoming>) {
    let shares = Shares::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, user)) => {
                let Some(share) = shares.take(user) else { continue };
                let caller = Caller { user, owners: owners.clone() };
                let daemon = daemon.clone();
                connections.spawn(async move {
                    let _share = share;
                    if let Err(error) = serve(stream, &caller, &daemon).await {
                        tracing::debug!(user, %error, "control connection cut off");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "control connection not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Who asks, and who may change something.
struct Caller {
    user: u32,
    owners: Arc<[u32]>,
}

impl Caller {
    fn may(&self, request: &Request) -> bool {
        !request.is_change() || self.user == 0 || self.owners.contains(&self.user)
    }
}

/// Answers one connection's questions until it ends.
async fn serve(stream: os::Stream, caller: &Caller, daemon: &mpsc::Sender<Incoming>) -> io::Result<()> {
    let mut stream = BufStream::with_capacity(MAX_REQUEST, MAX_REQUEST, stream);
    loop {
        let Some(line) = timeout(PATIENCE, line::read(&mut stream, MAX_REQUEST)).await?? else { return Ok(()) };
        let response = match line::parse::<Request>(&line) {
            // A lost ping is not answered; its client leaves, and its share of connections is free again.
            Ok(request @ Request::Ping { .. }) => tokio::select! {
                response = ask(daemon, request) => response,
                () = hung_up(&mut stream) => return Ok(()),
            },
            Ok(request) if caller.may(&request) => ask(daemon, request).await,
            Ok(_) => Response::refused(Refusal::NotPermitted, NOT_PERMITTED),
            Err(error) => {
                Response::refused(Refusal::Malformed, format!("this version does not understand that: {error}"))
            }
        };
        timeout(PATIENCE, line::write(&mut stream, &response)).await??;
    }
}

/// Waits until the client has gone. One that already asks further is there.
async fn hung_up(stream: &mut BufStream<os::Stream>) {
    match stream.fill_buf().await {
        Ok(bytes) if !bytes.is_empty() => std::future::pending().await,
        _ => {}
    }
}

const NOT_PERMITTED: &str = "only root and the user who started this network may do that; put sudo before the command";

async fn ask(daemon: &mpsc::Sender<Incoming>, request: Request) -> Response {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        daemon.send(Incoming { request, reply }).await.ok()?;
        answer.await.ok()
    };
    match timeout(ANSWER, asked).await {
        Ok(Some(response)) => response,
        _ => Response::refused(Refusal::Failed, "there was no answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_for_root_and_the_owner_and_the_rest_for_anybody() {
        let may = |user, request: &Request| Caller { user, owners: [1000].into() }.may(request);
        let forget = Request::Forget { name: "bob".into() };
        for (user, changes) in [(0, true), (1000, true), (1001, false)] {
            assert!(may(user, &Request::Status) && may(user, &Request::Ping { peer: "bob".into(), id: 1 }));
            assert_eq!((may(user, &Request::Down), may(user, &forget)), (changes, changes), "user {user}");
        }
    }

    #[test]
    fn each_user_has_a_share_of_their_own() {
        let shares = Shares::default();
        let greedy: Vec<Share> = std::iter::from_fn(|| shares.take(1001)).collect();
        assert_eq!(greedy.len(), usize::try_from(PER_USER).expect("small"));
        let root = shares.take(0).expect("a share of root's own");
        drop(greedy);
        assert!(shares.take(1001).is_some());
        drop(root);
        assert!(shares.0.lock().expect("unharmed").is_empty());
    }
}
