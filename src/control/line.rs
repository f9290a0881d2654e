//! One line of JSON at a time, never longer than allowed.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The next line, without its end; `None` at the end of the stream. Not cancel-safe.
pub(super) async fn read(stream: &mut (impl AsyncBufRead + Unpin), max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let bytes = stream.fill_buf().await?;
        if bytes.is_empty() {
            return if line.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(bytes.len());
        if line.len() + taken > max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
        line.extend_from_slice(&bytes[..taken]);
        stream.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

/// The meaning of a line.
pub(super) fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(line)
}

/// Writes `value` as one line.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    #[tokio::test]
    async fn lines_are_taken_apart_however_they_arrive() {
        let mut stream = BufReader::with_capacity(2, &b"abcde\n\nfg\nrest"[..]);
        for expected in ["abcde", "", "fg"] {
            assert_eq!(read(&mut stream, 5).await.expect("line"), Some(expected.as_bytes().to_vec()));
        }
        assert_eq!(read(&mut stream, 5).await.map_err(|e| e.kind()), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(read(&mut stream, 5).await.expect("end"), None);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_not_kept() {
        let mut stream = BufReader::with_capacity(4, &b"abcdefgh\n"[..]);
        assert_eq!(read(&mut stream, 7).await.map_err(|e| e.kind()), Err(io::ErrorKind::InvalidData));
    }
}
