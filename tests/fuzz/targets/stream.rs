//! Bytes of a stream before anybody is known by them: in pieces of any size, as datagrams with their lengths, as a
//! WebSocket's greeting, and as what comes in a WebSocket. What comes out are datagrams of ours or nothing, never more than
//! came in; and whatever a client says of where it comes from, what our own proxy adds is believed.
//!
//! (TLS in front of it is all of rustls', which has fuzzers of its own. Nothing is guessed from first bytes: each port
//! speaks one of the three.)

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use punchlan::io::stream::{LITTLE_ROOM, ROOM, Reader};
use punchlan::io::web::{accept, tunnel};
use punchlan::wire::stream::{LEAD, LONGEST, datagrams};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The first byte says what the rest is, the second in which pieces it comes.
pub(crate) fn run(data: &[u8]) {
    let [which, size, bytes @ ..] = data else { return };
    let pieces = Pieces { bytes, size: usize::from(*size) + 1 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    match which % 3 {
        0 => runtime.block_on(framed(pieces)),
        1 => drop(runtime.block_on(accept(pieces))),
        _ => runtime.block_on(in_a_web_socket(pieces)),
    }
}

/// The other end: what it says comes in pieces, what it is told goes nowhere.
struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (piece, rest) = self.bytes.split_at(self.size.min(room.remaining()).min(self.bytes.len()));
        room.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// All datagrams, and why there are no more.
async fn read(from: impl AsyncRead + Unpin, room: usize) -> (Vec<Vec<u8>>, io::ErrorKind) {
    let (mut reader, mut all) = (Reader::new(from, room), Vec::new());
    loop {
        match reader.next().await {
            Ok(mut bytes) => all.extend(datagrams(&mut bytes).map(|datagram| datagram.to_vec())),
            Err(error) => return (all, error.kind()),
        }
    }
}

async fn framed(pieces: Pieces<'_>) {
    let (mut rest, mut sent, mut end) = (pieces.bytes, Vec::new(), io::ErrorKind::UnexpectedEof);
    while let Some((lead, after)) = rest.split_first_chunk::<LEAD>() {
        let len = usize::from(u16::from_be_bytes(*lead));
        if len == 0 || len > LONGEST {
            end = io::ErrorKind::InvalidData;
            break;
        }
        let Some((datagram, after)) = after.split_at_checked(len) else { break };
        sent.push(datagram.to_vec());
        rest = after;
    }
    let (came, ended) = read(pieces, LITTLE_ROOM).await;
    assert_eq!(ended, end);
    // What came together with garbage may be lost with it.
    let lost = sent.split_off(came.len());
    assert_eq!(came, sent);
    assert!(lost.is_empty() || end == io::ErrorKind::InvalidData);
}

/// A good greeting, in which the first line of the input says for whom it asks; then the rest.
async fn in_a_web_socket(pieces: Pieces<'_>) {
    let mut lines = pieces.bytes.splitn(2, |byte| *byte == b'\n');
    let (claimed, rest) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let greeting = b"GET /punchlan HTTP/1.1\r\nHost: play.example.org\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-For: ";
    // One proxy adds to the line that it was given, another a line.
    let proxy: IpAddr = "203.0.113.7".parse().expect("an address");
    for added in [", ", "\r\nX-Forwarded-For: "] {
        let said = [greeting, claimed, added.as_bytes(), proxy.to_string().as_bytes(), b"\r\n\r\n", rest].concat();
        let Ok((web, forwarded)) = accept(Pieces { bytes: &said, size: pieces.size }).await else { continue };
        assert_eq!(forwarded, Some(proxy));
        let (near, carried) = tunnel(web);
        let ((came, _), _) = tokio::join!(read(near, ROOM), carried);
        assert!(came.iter().map(|datagram| datagram.len() + LEAD).sum::<usize>() <= rest.len());
    }
}
