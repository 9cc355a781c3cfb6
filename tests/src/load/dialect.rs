//! What real clients say: one question and its whole answer, on a connection of its own or on one that stays open.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longer than any server here takes to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The protocol of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// RESP: `PING`.
    Redis,
    /// HTTP/1.1: `GET /`.
    Http,
    /// PostgreSQL's, version 3.0: a start-up message and `select 1`.
    Postgres,
}

/// A connection on which questions are asked.
pub struct Talk {
    stream: BufReader<UnixStream>,
    dialect: Dialect,
    stays: bool,
}

impl Talk {
    /// Connects. The error is that of connect(2).
    pub fn open(path: &Path, dialect: Dialect, stays: bool) -> Result<Talk> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Talk { stream: BufReader::new(stream), dialect, stays })
    }

    /// What has to be said first.
    ///
    /// # Errors
    /// The connection ended, or the answer is none.
    pub fn greet(&mut self) -> Result<()> {
        if self.dialect != Dialect::Postgres {
            return Ok(());
        }
        let parameters = b"user\0postgres\0database\0postgres\0\0";
        let length = u32::try_from(parameters.len() + 8).unwrap_or_default();
        let mut message = length.to_be_bytes().to_vec();
        message.extend(196_608_u32.to_be_bytes());
        message.extend(parameters);
        self.stream.get_mut().write_all(&message)?;
        self.postgres_ready()
    }

    /// Asks once; gives whether the connection stays open.
    ///
    /// # Errors
    /// The connection ended before the whole answer was there, or the answer is another.
    pub fn ask(&mut self) -> Result<bool> {
        match self.dialect {
            Dialect::Redis => {
                self.stream.get_mut().write_all(b"PING\r\n")?;
                let line = self.line()?;
                if line == "+PONG" { Ok(true) } else { Err(odd(&line)) }
            }
            Dialect::Http => self.http(),
            Dialect::Postgres => {
                self.stream.get_mut().write_all(b"Q\0\0\0\x0dselect 1\0")?;
                self.postgres_ready().map(|()| true)
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn http(&mut self) -> Result<bool> {
        let connection = if self.stays { "keep-alive" } else { "close" };
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?;
        if !status.contains(" 200 ") {
            return Err(odd(&status));
        }
        let (mut length, mut open) = (None, true);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().ok(),
                Some(("connection", value)) => open = value.trim() != "close",
                Some(_) => {}
                None => break,
            }
        }
        match length {
            Some(length) => self.stream.read_exact(&mut vec![0; length])?,
            None => {
                open = false;
                self.stream.read_to_end(&mut Vec::new())?;
            }
        }
        Ok(open)
    }

    /// Reads messages up to ReadyForQuery.
    fn postgres_ready(&mut self) -> Result<()> {
        loop {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head)?;
            let [kind, length @ ..] = head;
            let length = u32::from_be_bytes(length).saturating_sub(4) as usize;
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body)?;
            match kind {
                b'Z' => return Ok(()),
                b'E' => return Err(odd(&String::from_utf8_lossy(&body))),
                _ => {}
            }
        }
    }
}

fn odd(answer: &str) -> Error {
    Error::other(format!("not the answer: {answer}"))
}
