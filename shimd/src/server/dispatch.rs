//! From messages to answers: each call runs as a task of its own, and its answer goes out when it is there.
//!
//! - Answers go out in order of completion; those of a batch together, once the last is there.
//! - At most `Limits::in_flight` calls of a connection are under way; `submit` waits for room, and so does the client.
//! - A request ends with its connection: dropping [`Calls`] drops it, and so does a client that hangs up. A
//!   notification, which nobody waits for, is carried out whatever its client does.
//! - A handler that panics answers with an internal error, and takes nothing else with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use serde_json::value::{RawValue, to_raw_value};
use shimd_api::rpc::RpcError;
use shimd_api::wire::Progress;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;

use super::clients::{Client, Work};
use super::message::{self, Call, Id, Item, Message};
use super::{Handler, Shared, methods, openrpc, streams};

/// A message to the client.
pub(super) struct Outgoing {
    /// JSON without a newline.
    pub(super) text: String,
    /// Keeps the call under way until this is dropped: after it has been written.
    _work: Option<Work>,
    /// The same for a stream's room.
    room: Option<OwnedSemaphorePermit>,
}

impl Outgoing {
    /// A message that no call is under way for.
    pub(super) fn notice(text: String) -> Self {
        Outgoing { text, _work: None, room: None }
    }

    /// A message of a stream that waits for its reader, however long, with so much room and no more.
    pub(super) fn of_stream(text: String, room: OwnedSemaphorePermit) -> Self {
        Outgoing { text, _work: None, room: Some(room) }
    }

    /// Whether its reader may take its time.
    pub(super) fn is_patient(&self) -> bool {
        self.room.is_some()
    }
}

/// The calls of one connection.
pub(super) struct Calls<'a, H> {
    shared: &'a Arc<Shared<H>>,
    client: &'a Arc<Client>,
    out: mpsc::Sender<Outgoing>,
    /// Whether the connection can carry notifications to the client.
    notices: bool,
    requests: JoinSet<()>,
}

/// The answers of one batch, gathered.
struct Batch {
    gathered: Mutex<(usize, Vec<String>)>,
}

/// The client's seat was given to another: nothing more may begin.
pub(super) struct Evicted;

impl<'a, H: Handler> Calls<'a, H> {
    pub(super) fn new(
        shared: &'a Arc<Shared<H>>,
        client: &'a Arc<Client>,
        out: mpsc::Sender<Outgoing>,
        notices: bool,
    ) -> Self {
        Calls { shared, client, out, notices, requests: JoinSet::new() }
    }

    /// Begins the calls of one message.
    pub(super) async fn submit(&mut self, text: &[u8]) -> Result<(), Evicted> {
        while self.requests.try_join_next().is_some() {}
        match message::parse(text, self.shared.limits.batch) {
            Err(error) => send(&self.out, message::refusal(error), None).await,
            Ok(Message::Single(item)) => self.begin(item, None).await?,
            Ok(Message::Batch(items)) => {
                let answers = items.iter().filter(|item| item.is_answered()).count();
                let batch = Arc::new(Batch { gathered: Mutex::new((answers, Vec::new())) });
                for item in items {
                    self.begin(item, Some(batch.clone())).await?;
                }
            }
        }
        Ok(())
    }

    /// Waits until every request begun has been answered; nothing more can be submitted.
    pub(super) async fn finish(self) {
        let mut requests = self.requests;
        while requests.join_next().await.is_some() {}
    }

    async fn begin(&mut self, item: Item, batch: Option<Arc<Batch>>) -> Result<(), Evicted> {
        let call = match item {
            Item::Invalid(id, error) => {
                deliver(&self.out, batch, message::answer(&id, &Err(error)), None).await;
                return Ok(());
            }
            Item::Call(call) => call,
        };
        let work = self.client.begin().await.ok_or(Evicted)?;
        let shared = self.shared.clone();
        let Call { id, method, params } = call;
        match id {
            Some(id) => {
                let (out, client, notices) = (self.out.clone(), self.client.clone(), self.notices);
                self.requests.spawn(async move {
                    let request = async {
                        if notices && batch.is_none() && methods::streams(&method) {
                            stream(&shared, &id, &method, &params, &out, work).await;
                        } else {
                            let news = notices.then(|| out.clone());
                            let outcome = run(&shared, &method, &params, news).await;
                            deliver(&out, batch, message::answer(&id, &outcome), Some(work)).await;
                        }
                    };
                    tokio::select! {
                        // What was asked for is begun, however soon its client has left.
                        biased;
                        () = request => {}
                        () = client.gone() => {}
                    }
                });
            }
            None => drop(tokio::spawn(async move {
                if let Err(error) = run(&shared, &method, &params, None).await {
                    tracing::debug!(method, %error, "a notification failed");
                }
                drop(work);
            })),
        }
        Ok(())
    }
}

impl Item {
    fn is_answered(&self) -> bool {
        matches!(self, Item::Invalid(..) | Item::Call(Call { id: Some(_), .. }))
    }
}

async fn send(out: &mpsc::Sender<Outgoing>, text: String, work: Option<Work>) {
    // Nobody receives any more: the connection has ended, and the answer with it.
    let _ = out.send(Outgoing { text, _work: work, room: None }).await;
}

async fn deliver(out: &mpsc::Sender<Outgoing>, batch: Option<Arc<Batch>>, text: String, work: Option<Work>) {
    match batch {
        None => send(out, text, work).await,
        Some(batch) => {
            if let Some(text) = batch.add(text) {
                send(out, text, work).await;
            }
        }
    }
}

impl Batch {
    /// Adds an answer; gives the whole once it was the last.
    fn add(&self, text: String) -> Option<String> {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, answers) = &mut *gathered;
        answers.push(text);
        *left -= 1;
        (*left == 0).then(|| format!("[{}]", answers.join(",")))
    }
}

/// A request that streams, from its answer to its end.
async fn stream<H: Handler>(
    shared: &Shared<H>,
    id: &Id,
    name: &str,
    params: &RawValue,
    out: &mpsc::Sender<Outgoing>,
    work: Work,
) {
    match streams::begin(shared, name, params, work).await {
        Ok((past, stream)) => {
            send(out, message::answer(id, &Ok(past)), None).await;
            stream.pump(shared, id, out).await;
        }
        Err(error) => send(out, message::answer(id, &Err(error)), None).await,
    }
}

async fn run<H: Handler>(
    shared: &Shared<H>,
    name: &str,
    params: &RawValue,
    news: Option<mpsc::Sender<Outgoing>>,
) -> Result<Box<RawValue>, RpcError> {
    let method = methods::find(name)?;
    if methods::streams(method.name) {
        return Err(streams::out_of_place(name));
    }
    let wants_progress = method.check(params)?;
    if method.name == methods::DISCOVER {
        return to_raw_value(&openrpc::document()).map_err(|e| RpcError::internal(e.to_string()));
    }
    let Some(news) = news.filter(|_| wants_progress) else {
        return caught(name, shared.handler.call(name, params, None)).await;
    };
    let (sender, mut receiver) = mpsc::channel(1);
    let mut outcome = pin!(caught(name, shared.handler.call(name, params, Some(sender))));
    loop {
        tokio::select! {
            biased;
            outcome = &mut outcome => return outcome,
            Some(progress) = receiver.recv() => tell(&news, progress),
        }
    }
}

/// Sends progress, unless the client has yet to read what was sent before: the next one says more anyway.
fn tell(news: &mpsc::Sender<Outgoing>, progress: Progress) {
    let _ = news.try_send(Outgoing::notice(message::notification("progress", progress)));
}

/// The future, with a panic turned into an error.
pub(super) async fn caught<T>(
    method: &str,
    future: impl Future<Output = Result<T, RpcError>>,
) -> Result<T, RpcError> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))).unwrap_or_else(|_| {
            tracing::error!(method, "a handler panicked");
            Poll::Ready(Err(RpcError::internal(format!("{method}: shimd failed at this call"))))
        })
    })
    .await
}
