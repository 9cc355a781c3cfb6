//! What the store adds to a restart: the writes for which a clean restart waits, as the supervisor submits them, and what
//! its answer waits for. Beside it what a write costs that is only in memory: the same store's answer to a flush.

use crate::in_world;
use crate::samples::Samples;
use crate::table::{Aim, Amount, Line, Section};
use scenarios::fault::Context;
use scenarios::{Result, World};
use shimd::core::machine::{Durable, Rest, Restart, Want};
use shimd::store::{EventRecord, InstanceRecord, Store, Write};
use shimd::sys::identity::Identity;
use shimd_api::event::{EventDetail, EventKind};
use std::time::{Duration, Instant};

const RUNS: u64 = 1_000;
const AIM: Duration = Duration::from_micros(200);
const SERVICE: &str = "web";

pub fn measure() -> Result<Vec<Section>> {
    in_world("intents", |world| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(figures(world))
    })
}

async fn figures(world: &World) -> Result<Vec<Section>> {
    let (store, _) = Store::open(&world.file("state.db")).context("the store")?;
    let spec_json = r#"{"name":"web","exec":["/bin/web"],"sockets":["rpc.sock"]}"#.to_owned();
    written(&store, Write::Spec { name: SERVICE.into(), spec_json: spec_json.clone() }).await?;
    let identity = Identity::of(std::process::id().cast_signed())?;
    let (mut floor, mut one, mut all, mut history) = <[Samples; 4]>::default().into();
    for generation in 1..=RUNS {
        let start = Instant::now();
        store.flush().done().await?;
        floor.add(start.elapsed());

        let start = Instant::now();
        written(&store, intent(true, generation)).await?;
        one.add(start.elapsed());

        let mut waited = Duration::ZERO;
        // Before the stop signal.
        waited += timed(&store, intent(true, generation)).await?;
        // That the old one is gone, and what follows: nobody waits for it, and it is there when the way is free.
        drop(store.submit(Write::InstanceGone { name: SERVICE.into(), generation: generation - 1 }));
        drop(store.submit(intent(false, generation)));
        store.flush().done().await?;
        // Before the exec.
        let record = InstanceRecord {
            generation,
            identity: identity.clone(),
            cgroup: None,
            spec_json: spec_json.clone(),
            started: 0,
            begun: false,
        };
        let record = Box::new(record);
        waited += timed(&store, Write::Instance { name: SERVICE.into(), record, beside: false }).await?;
        all.add(waited);
        // Before the answer: that it runs.
        drop(store.submit(event(generation)));
        let start = Instant::now();
        store.settled().await;
        history.add(start.elapsed());
    }
    let aim = Aim::Most(Amount::Time(AIM));
    Ok(vec![Section {
        title: "what intents add to a restart".into(),
        floor: Some(Line::timed("to the store's thread and back", &floor)),
        lines: vec![
            Line::timed("one intent: submitted → in the store", &one),
            Line::timed("all that a clean restart waits for", &all).aim(aim),
            Line::timed("and its answer: the last event", &history),
        ],
    }])
}

async fn written(store: &Store, write: Write) -> Result {
    Ok(store.submit(write).done().await?)
}

async fn timed(store: &Store, write: Write) -> Result<Duration> {
    let start = Instant::now();
    written(store, write).await?;
    Ok(start.elapsed())
}

fn event(id: u64) -> Write {
    Write::Event(Box::new(EventRecord {
        id,
        time: 0,
        service: Some(SERVICE.into()),
        kind: EventKind::State,
        detail: EventDetail::default(),
    }))
}

fn intent(leaving: bool, current: u64) -> Write {
    let restart = Restart { clean: true, attempt: 1, leaving, gapless: false };
    let durable = Durable { want: Want::Up, restart: Some(restart), rest: None::<Rest> };
    Write::Intent { name: SERVICE.into(), durable, rest_reason: None, current }
}
