//! Hears at once that nobody reads a stream any more.
//!
//! Nushell says so (`Drop`: `first 3` has its rows), but nu-plugin looks for it only when the stream has its next item,
//! which may be days away; and that the shell itself is gone it does not tell a stream at all. Until then a connection to
//! the daemon, and after the shell's end this whole process, would live on. So the serializer, which every message passes
//! through, listens in:
//!
//! | message | means |
//! | --- | --- |
//! | `CallResponse` | the stream that this thread's command announced, if it did, has this id |
//! | `End` | the stream is over |
//! | `Drop` | its reader is gone |
//! | none any more | Nushell is gone |
//!
//! And it speaks up where nu-plugin would swallow a word: of an error in a byte stream that passes on no more than the
//! `io::ErrorKind`, so the labelled error is put in its place.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use nu_plugin::{MsgPackSerializer, PluginEncoder};
use nu_plugin_core::Encoder;
use nu_plugin_protocol::{PluginCallResponse, PluginInput, PluginOutput, StreamData, StreamId};
use nu_protocol::{LabeledError, ShellError};

use crate::stop::Stop;

/// The streams that Nushell reads.
#[derive(Debug, Clone, Default)]
pub struct Readers(Arc<Mutex<Streams>>);

#[derive(Debug, Default)]
struct Streams {
    /// Announced by a command that has not given its answer yet. nu-plugin sends the answer from the same thread.
    announced: HashMap<ThreadId, Stop>,
    open: HashMap<StreamId, Stop>,
    /// Why the byte stream that a thread sends fails now.
    failing: HashMap<ThreadId, LabeledError>,
    nushell_is_gone: bool,
}

impl Readers {
    /// The answer of the command that this thread runs will be a stream: `stop` is set when its reader is gone.
    pub fn announce(&self, stop: &Stop) {
        let mut streams = self.lock();
        if streams.nushell_is_gone {
            stop.set();
        }
        streams.announced.insert(thread::current().id(), stop.clone());
    }

    /// The error that the byte stream of this thread ends in.
    pub fn explain(&self, error: LabeledError) {
        self.lock().failing.insert(thread::current().id(), error);
    }

    fn explained(&self) -> Option<LabeledError> {
        self.lock().failing.remove(&thread::current().id())
    }

    fn answered(&self, stream: Option<StreamId>) {
        let mut streams = self.lock();
        let announced = streams.announced.remove(&thread::current().id());
        if let (Some(id), Some(stop)) = (stream, announced) {
            streams.open.insert(id, stop);
        }
    }

    fn over(&self, stream: StreamId) {
        self.lock().open.remove(&stream);
    }

    fn dropped(&self, stream: StreamId) {
        if let Some(stop) = self.lock().open.remove(&stream) {
            stop.set();
        }
    }

    fn nushell_is_gone(&self) {
        let mut streams = self.lock();
        streams.nushell_is_gone = true;
        streams.open.values().chain(streams.announced.values()).for_each(Stop::set);
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The serializer that listens in.
#[derive(Debug, Clone)]
pub struct Listening {
    readers: Readers,
    serializer: MsgPackSerializer,
}

impl Listening {
    /// One that tells `readers` what it hears.
    pub fn new(readers: Readers) -> Listening {
        Listening { readers, serializer: MsgPackSerializer }
    }
}

impl PluginEncoder for Listening {
    fn name(&self) -> &str {
        self.serializer.name()
    }
}

impl Encoder<PluginInput> for Listening {
    fn encode(&self, message: &PluginInput, writer: &mut impl Write) -> Result<(), ShellError> {
        self.serializer.encode(message, writer)
    }

    fn decode(&self, reader: &mut impl BufRead) -> Result<Option<PluginInput>, ShellError> {
        let message = self.serializer.decode(reader);
        match &message {
            Ok(Some(PluginInput::Drop(stream))) => self.readers.dropped(*stream),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => self.readers.nushell_is_gone(),
        }
        message
    }
}

impl Encoder<PluginOutput> for Listening {
    fn encode(&self, message: &PluginOutput, writer: &mut impl Write) -> Result<(), ShellError> {
        // Before it is sent: the reader may go as soon as it is.
        match message {
            PluginOutput::CallResponse(_, PluginCallResponse::PipelineData(header)) => {
                self.readers.answered(header.stream_id());
            }
            PluginOutput::CallResponse(..) => self.readers.answered(None),
            PluginOutput::End(stream) => self.readers.over(*stream),
            PluginOutput::Data(stream, StreamData::Raw(Err(_))) => {
                if let Some(error) = self.readers.explained() {
                    let message = PluginOutput::Data(*stream, StreamData::Raw(Err(error)));
                    return self.serializer.encode(&message, writer);
                }
            }
            _ => {}
        }
        self.serializer.encode(message, writer)
    }

    fn decode(&self, reader: &mut impl BufRead) -> Result<Option<PluginOutput>, ShellError> {
        self.serializer.decode(reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nu_plugin_protocol::{ListStreamInfo, PipelineDataHeader};
    use nu_protocol::Span;

    /// What `answer` tells when it is sent.
    fn send(listening: &Listening, answer: PluginCallResponse<PipelineDataHeader>) {
        let message = PluginOutput::CallResponse(0, answer);
        Encoder::<PluginOutput>::encode(listening, &message, &mut Vec::new()).unwrap();
    }

    fn stream(id: StreamId) -> PluginCallResponse<PipelineDataHeader> {
        let info = ListStreamInfo::new(id, Span::test_data());
        PluginCallResponse::PipelineData(PipelineDataHeader::ListStream(info))
    }

    /// Takes in what the engine says; nothing stands for the end of it.
    fn hear(listening: &Listening, message: Option<PluginInput>) {
        let mut bytes = Vec::new();
        if let Some(message) = message {
            Encoder::<PluginInput>::encode(listening, &message, &mut bytes).unwrap();
        }
        let _: Option<PluginInput> = listening.decode(&mut bytes.as_slice()).unwrap();
    }

    fn announced(listening: &Listening, id: StreamId) -> Stop {
        let stop = Stop::default();
        listening.readers.announce(&stop);
        send(listening, stream(id));
        stop
    }

    #[test]
    fn the_stream_that_lost_its_reader_is_told() {
        let listening = Listening::new(Readers::default());
        let (one, two) = (announced(&listening, 1), announced(&listening, 2));
        hear(&listening, Some(PluginInput::Ack(2)));
        hear(&listening, Some(PluginInput::Drop(1)));
        assert!(one.is_set() && !two.is_set());
    }

    #[test]
    fn an_answer_that_is_no_stream_takes_its_announcement_along() {
        let listening = Listening::new(Readers::default());
        let failed = Stop::default();
        listening.readers.announce(&failed);
        send(&listening, PluginCallResponse::Ok);
        send(&listening, stream(1));
        hear(&listening, Some(PluginInput::Drop(1)));
        assert!(!failed.is_set(), "the stream is another command's");
    }

    #[test]
    fn a_stream_that_is_over_is_forgotten() {
        let listening = Listening::new(Readers::default());
        let stop = announced(&listening, 1);
        Encoder::<PluginOutput>::encode(&listening, &PluginOutput::End(1), &mut Vec::new()).unwrap();
        hear(&listening, Some(PluginInput::Drop(1)));
        assert!(!stop.is_set() && listening.readers.lock().open.is_empty());
    }

    #[test]
    fn when_nushell_is_gone_all_streams_end() {
        let listening = Listening::new(Readers::default());
        let open = announced(&listening, 1);
        hear(&listening, None);
        let late = Stop::default();
        listening.readers.announce(&late);
        assert!(open.is_set() && late.is_set());
    }
}
