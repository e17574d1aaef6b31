//! A client of bytes: sends what no library would, reads what comes back.
//!
//! Used where a test is about the wire itself. Reads one answer at a time and
//! keeps what was sent behind it.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};

/// One HTTP/1 answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// Value of a field, whatever the case of its name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// How a connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    Closed,
    Reset,
    /// It isn't, after all patience.
    Open,
}

/// A connection and what was read from it too early.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    ahead: Vec<u8>,
    /// The kernel tells of a reset once, and a write may hear it.
    is_reset: bool,
}

impl Raw {
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
            is_reset: false,
        }
    }

    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// A peer that has gone already is noticed when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        self.is_reset |= self.stream.write_all(bytes).is_err();
    }

    /// Sends and reads the final answer.
    ///
    /// # Errors
    /// How the connection ended instead.
    pub fn ask(&mut self, request: &[u8]) -> Result<Answer, Ended> {
        self.send(request);
        self.answer()
    }

    /// The next final answer.
    ///
    /// # Errors
    /// How the connection ended instead.
    pub fn answer(&mut self) -> Result<Answer, Ended> {
        loop {
            let answer = self.any_answer()?;
            if !(100..200).contains(&answer.status) {
                return Ok(answer);
            }
        }
    }

    /// The next answer's head: all that there is to a HEAD request.
    ///
    /// # Errors
    /// How the connection ended instead.
    pub fn head(&mut self) -> Result<Answer, Ended> {
        let head = loop {
            if let Some(end) = self.ahead.windows(4).position(|it| it == b"\r\n\r\n") {
                break self.split(end + 4);
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|it| it.get(..3)?.parse().ok());
        Ok(Answer {
            status: status.unwrap_or_default(),
            head,
            body: Vec::new(),
        })
    }

    fn any_answer(&mut self) -> Result<Answer, Ended> {
        let mut answer = self.head()?;
        if let Some(length) = answer
            .field("content-length")
            .and_then(|it| it.parse().ok())
        {
            while self.ahead.len() < length {
                self.fill()?;
            }
            answer.body = self.split(length);
        }
        Ok(answer)
    }

    /// Reads until the end; the rest of what came is dropped.
    pub fn ended(&mut self) -> Ended {
        self.everything(&mut Vec::new())
    }

    /// Reads until the end, and keeps it.
    pub fn everything(&mut self, said: &mut Vec<u8>) -> Ended {
        loop {
            if let Err(ended) = self.fill() {
                said.append(&mut self.ahead);
                return ended;
            }
        }
    }

    /// Reads exactly so much.
    ///
    /// # Errors
    /// How the connection ended before.
    pub fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Ended> {
        while self.ahead.len() < length {
            self.fill()?;
        }
        Ok(self.split(length))
    }

    fn split(&mut self, at: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(at);
        std::mem::replace(&mut self.ahead, rest)
    }

    fn fill(&mut self) -> Result<(), Ended> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) if self.is_reset => Err(Ended::Reset),
            Ok(0) => Err(Ended::Closed),
            Ok(read) => {
                self.ahead.extend(buffer.get(..read).unwrap_or_default());
                Ok(())
            }
            Err(error) => Err(match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Ended::Open,
                _ => Ended::Reset,
            }),
        }
    }
}
