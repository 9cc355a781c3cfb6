//! Text whose lines come as they happen: a byte stream, so that a terminal shows each line at once.

use std::io::{Cursor, ErrorKind, Read, Result};

use nu_protocol::{ByteStream, ByteStreamType, LabeledError, PipelineData, Signals, Span};

use crate::readers::Readers;

/// The lines, each sent by itself. An error is the last of them.
pub fn stream(
    lines: impl Iterator<Item = std::result::Result<String, LabeledError>> + Send + 'static,
    readers: &Readers,
    span: Span,
) -> PipelineData {
    let lines = lines.map(|line| line.map(String::into_bytes));
    of_type(ByteStreamType::String, lines, readers, span)
}

/// The bytes, which may be text or not: as of a program outside of Nushell.
pub fn bytes(
    bytes: impl Iterator<Item = std::result::Result<Vec<u8>, LabeledError>> + Send + 'static,
    readers: &Readers,
    span: Span,
) -> PipelineData {
    of_type(ByteStreamType::Unknown, bytes, readers, span)
}

fn of_type(
    of: ByteStreamType,
    pieces: impl Iterator<Item = std::result::Result<Vec<u8>, LabeledError>> + Send + 'static,
    readers: &Readers,
    span: Span,
) -> PipelineData {
    let text = Text { pieces, left: Cursor::default(), readers: readers.clone() };
    // Ctrl-C is seen to by the pieces.
    PipelineData::byte_stream(ByteStream::read(text, span, Signals::empty(), of), None)
}

struct Text<Pieces> {
    pieces: Pieces,
    left: Cursor<Vec<u8>>,
    readers: Readers,
}

impl<Pieces: Iterator<Item = std::result::Result<Vec<u8>, LabeledError>>> Read for Text<Pieces> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let length = self.left.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            match self.pieces.next() {
                Some(Ok(piece)) => self.left = Cursor::new(piece),
                Some(Err(problem)) => {
                    self.readers.explain(problem);
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                None => return Ok(0),
            }
        }
    }
}
