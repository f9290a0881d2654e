//! Streams of datagrams as a web server has them: a WebSocket (RFC 6455), by TLS or behind a reverse proxy that speaks it.
//! Each datagram is a binary message. What carries the stream looks like what browsers do, so networks that let nothing
//! else out let it out, and ordinary reverse proxies pass it on.

mod reason;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

use super::stream::{LITTLE_ROOM, ROOM, Reader};
use crate::wire::stream::{LONGEST, datagrams, push};

/// TLS and the WebSocket's own greeting get so long each.
const GREETING: Duration = Duration::from_secs(5);
/// Whoever takes nothing for so long is gone.
const STALL: Duration = Duration::from_secs(15);
/// Proxies ask now and then whether somebody is there, but not so often without a datagram in between.
const PINGS: u32 = 16;
/// Bytes that wait for who takes nothing: answers to pings, beside the one datagram.
const UNSENT: usize = 4 * LONGEST;
/// What browsers say that they speak.
const HTTP: &[u8] = b"http/1.1";

fn limits() -> WebSocketConfig {
    let sized = WebSocketConfig::default().max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
    sized.read_buffer_size(LITTLE_ROOM).write_buffer_size(0).max_write_buffer_size(UNSENT)
}

/// Greets the rendezvous at the other end as a web server, whom the system's certificates must vouch for (`SSL_CERT_FILE`
/// takes their place).
///
/// # Errors
/// A sentence for people.
pub async fn greet(tcp: TcpStream, to: SocketAddr, host: &str, path: &str) -> Result<Web, String> {
    let roots = tokio::task::spawn_blocking(system_roots).await.map_err(|error| error.to_string())??;
    greet_trusting(roots, tcp, to, host, path).await
}

/// What [`greet`] makes.
pub type Web = WebSocketStream<client::TlsStream<TcpStream>>;

/// As [`greet`], with other authorities.
///
/// # Errors
/// A sentence for people.
pub async fn greet_trusting(
    roots: RootCertStore,
    tcp: TcpStream,
    to: SocketAddr,
    host: &str,
    path: &str,
) -> Result<Web, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
    let trusted = client_config(roots)?;
    let connecting = TlsConnector::from(Arc::new(trusted)).connect(name, tcp);
    let tls = greeted(to, connecting, |error| reason::of_tls(&error, host)).await?;
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let url = format!("wss://{bracketed}:{}{path}", to.port());
    let asking = client_async_with_config(url, tls, Some(limits()));
    let (web, _) = greeted(to, asking, |error| reason::of_web_socket(&error, path)).await?;
    Ok(web)
}

async fn greeted<T, E>(
    to: SocketAddr,
    greeting: impl Future<Output = Result<T, E>>,
    reason: impl FnOnce(E) -> String,
) -> Result<T, String> {
    let greeted = timeout(GREETING, greeting).await.map_err(|_| format!("{to} does not answer"))?;
    greeted.map_err(|error| format!("{to}: {}", reason(error)))
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(found.certs) {
        (0, _) => {
            let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
            Err(format!("this system has no certificates of authorities to trust {}", why.join(", ")))
        }
        _ => Ok(roots),
    }
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, String> {
    let builder =
        ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let mut config = builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(config)
}

/// Greets whoever connected. Any path will do: a reverse proxy may have any.
///
/// # Errors
/// It speaks no WebSocket, or takes too long.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> io::Result<(WebSocketStream<S>, Option<IpAddr>)> {
    let mut forwarded = None;
    #[allow(clippy::result_large_err, reason = "the crate's own signature")]
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        forwarded = forwarded_for(request);
        Ok(response)
    };
    let accepted = timeout(GREETING, accept_hdr_async_with_config(stream, look, Some(limits()))).await;
    let web = accepted.map_err(|_| io::ErrorKind::TimedOut)?.map_err(io::Error::other)?;
    Ok((web, forwarded))
}

/// For whom a proxy says that it asks. It may have added a line of its own to those that it was given.
fn forwarded_for(request: &Request) -> Option<IpAddr> {
    let line = request.headers().get_all("x-forwarded-for").iter().next_back()?;
    last_address(line.as_bytes())
}

/// Of those that a chain of proxies names the last, which our own wrote. What stands before it may be anything.
fn last_address(list: &[u8]) -> Option<IpAddr> {
    let last = std::str::from_utf8(list.rsplit(|byte| *byte == b',').next()?).ok()?.trim();
    last.parse().ok().or_else(|| Some(last.parse::<SocketAddr>().ok()?.ip()))
}

/// A certificate and its key, from files that may be renewed while this runs.
#[derive(Debug)]
pub struct Certificate {
    files: [PathBuf; 2],
    written: [Option<SystemTime>; 2],
    acceptor: ServerConfigHandle,
}

/// Says nothing of the key.
struct ServerConfigHandle(Arc<ServerConfig>);

impl std::fmt::Debug for ServerConfigHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerConfig(…)")
    }
}

impl Certificate {
    /// Reads both.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, String> {
        let files = [certificate.to_owned(), key.to_owned()];
        let written = files.each_ref().map(|file| written(file));
        let acceptor = ServerConfigHandle(Arc::new(server_config(certificate, key)?));
        Ok(Self { files, written, acceptor })
    }

    /// Reads them again if they were renewed; those that cannot be read leave everything as it is.
    fn renew(&mut self) {
        let now = self.files.each_ref().map(|file| written(file));
        if now == self.written {
            return;
        }
        self.written = now;
        match server_config(&self.files[0], &self.files[1]) {
            Ok(config) => self.acceptor = ServerConfigHandle(Arc::new(config)),
            Err(error) => tracing::warn!("{error}; the certificate stays the one that was read before"),
        }
    }

    /// What greets by TLS.
    pub fn acceptor(&mut self) -> TlsAcceptor {
        self.renew();
        TlsAcceptor::from(self.acceptor.0.clone())
    }
}

/// Greets by TLS.
///
/// # Errors
/// It does not speak TLS, or takes too long.
pub async fn accept_tls(acceptor: TlsAcceptor, tcp: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
    timeout(GREETING, acceptor.accept(tcp)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

fn written(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|metadata| metadata.modified()).ok()
}

fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) });
    let chain = chain.map_err(|error| reason::of_file(certificate, "[tls] certificate", &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| reason::of_file(key, "[tls] key", &error))?;
    let builder =
        ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let with_key = builder.and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret));
    let mut config = with_key.map_err(|error| reason::of_both(certificate, key, &error))?;
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(config)
}

/// A WebSocket as a stream of datagrams with their lengths, for as long as the future runs that carries them.
pub fn tunnel<S>(web: WebSocketStream<S>) -> (DuplexStream, impl Future<Output = io::Result<()>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (near, far) = duplex(ROOM);
    (near, pump(web, far))
}

async fn pump<S>(web: WebSocketStream<S>, far: DuplexStream) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut messages_out, mut messages_in) = web.split();
    let (reader, mut writer) = tokio::io::split(far);
    let mut reader = Reader::new(reader, ROOM);
    let out = async {
        while let Ok(mut bytes) = reader.next().await {
            let sent = async {
                for datagram in datagrams(&mut bytes) {
                    messages_out.feed(Message::Binary(Bytes::copy_from_slice(datagram))).await?;
                }
                messages_out.flush().await
            };
            timeout(STALL, sent).await.map_err(|_| io::ErrorKind::TimedOut)?.map_err(io::Error::other)?;
        }
        // A goodbye that nobody takes is none.
        let _ = timeout(STALL, messages_out.close()).await;
        Ok(())
    };
    let into = async {
        let (mut framed, mut pings) = (Vec::new(), 0);
        while let Some(message) = messages_in.next().await {
            match message.map_err(io::Error::other)? {
                Message::Binary(datagram) if push(&mut framed, &datagram) => {
                    writer.write_all(&framed).await?;
                    framed.clear();
                    pings = 0;
                }
                // It is answered by itself.
                Message::Ping(_) | Message::Pong(_) if pings < PINGS => pings += 1,
                Message::Close(_) => return Ok(()),
                _ => return Err(io::Error::other(Error::AttackAttempt)),
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = out => ended,
        ended = into => ended,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio_tungstenite::tungstenite::http::request::Builder;

    use super::*;

    #[test]
    fn of_a_chain_of_proxies_the_last_is_believed() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        assert_eq!(last_address(b"192.0.2.1, 198.51.100.7"), ip("198.51.100.7"));
        assert_eq!(last_address(b"2001:db8::1"), ip("2001:db8::1"));
        assert_eq!(last_address(b"[2001:db8::1]:4000"), ip("2001:db8::1"));
        assert_eq!(last_address(b"unknown"), None);
        assert_eq!(last_address(b"\xff\xfe, 198.51.100.7"), ip("198.51.100.7"), "what a client made up spoils nothing");
        let asked = |lines: &[&str]| {
            let with = |request: Builder, line: &&str| request.header("X-Forwarded-For", *line);
            forwarded_for(&lines.iter().fold(Request::builder(), with).body(()).expect("a request"))
        };
        assert_eq!(asked(&["192.0.2.1", "203.0.113.5, 198.51.100.7"]), ip("198.51.100.7"));
        assert_eq!(asked(&["192.0.2.1", "unknown"]), None);
        assert_eq!(asked(&[]), None);
    }

    /// Both ends of a WebSocket in this process.
    async fn pair() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (near, far) = duplex(ROOM);
        let greet = client_async_with_config("ws://play.example.org/", near, Some(limits()));
        let (near, far) = tokio::join!(greet, accept(far));
        (near.expect("greeted").0, far.expect("greeted").0)
    }

    #[tokio::test]
    async fn who_pings_without_end_and_says_nothing_else_is_ended_though_it_takes_no_answer() {
        let (mut near, far) = pair().await;
        let (mut datagrams, pump) = tunnel(far);
        let ping = async {
            for _ in 0..PINGS {
                near.feed(Message::Ping(Bytes::from_static(&[7; 125]))).await.expect("taken");
            }
            near.feed(Message::Binary(Bytes::from_static(b"x"))).await.expect("taken");
            near.flush().await.expect("taken");
            let mut came = [0; 3];
            datagrams.read_exact(&mut came).await.expect("pings now and then are answered");
            // From now on nothing is read.
            while near.send(Message::Ping(Bytes::from_static(&[7; 125]))).await.is_ok() {}
        };
        let ((), ended) = timeout(STALL, async { tokio::join!(ping, pump) }).await.expect("it is ended");
        assert!(ended.is_err());
    }

    #[test]
    fn files_that_are_no_certificate_are_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().expect("folder");
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        let complains = |parts: &[&str]| {
            let said = Certificate::load(&certificate, &key).expect_err("not good");
            assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
        };
        let make = || rcgen::generate_simple_self_signed(["play.example.org".to_owned()]).expect("made");
        let (made, another) = (make(), make());
        complains(&["[tls] certificate", "cert.pem", "no such file"]);
        std::fs::write(&certificate, "rubbish").expect("written");
        complains(&["[tls] certificate", "cert.pem", "PEM"]);
        std::fs::write(&certificate, made.cert.pem()).expect("written");
        complains(&["[tls] key", "key.pem", "no such file"]);
        std::fs::write(&key, made.cert.pem()).expect("written");
        complains(&["[tls] key", "key.pem", "there is none in it"]);
        std::fs::write(&key, another.signing_key.serialize_pem()).expect("written");
        complains(&["key.pem", "cert.pem", "is not that of the certificate"]);
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        Certificate::load(&certificate, &key).expect("they go together");
    }
}
