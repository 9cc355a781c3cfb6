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
    let text = Text { lines, left: Cursor::default(), readers: readers.clone() };
    // Ctrl-C is seen to by the lines.
    let stream = ByteStream::read(text, span, Signals::empty(), ByteStreamType::String);
    PipelineData::byte_stream(stream, None)
}

struct Text<Lines> {
    lines: Lines,
    left: Cursor<Vec<u8>>,
    readers: Readers,
}

impl<Lines: Iterator<Item = std::result::Result<String, LabeledError>>> Read for Text<Lines> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let length = self.left.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            match self.lines.next() {
                Some(Ok(line)) => self.left = Cursor::new(line.into_bytes()),
                Some(Err(problem)) => {
                    self.readers.explain(problem);
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                None => return Ok(0),
            }
        }
    }
}
