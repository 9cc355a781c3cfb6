//! What the store adds to a restart: the writes for which a clean restart waits, one after the other, as the supervisor
//! submits them. Beside it what a write costs that is only in memory: the same store's answer to a flush.

use crate::in_world;
use crate::samples::Samples;
use crate::table::{Aim, Amount, Line, Section};
use scenarios::fault::Context;
use scenarios::{Result, World};
use shimd::core::machine::{Durable, Rest, Restart, Want};
use shimd::store::{InstanceRecord, Store, Write};
use shimd::sys::identity::Identity;
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
    let (mut floor, mut one, mut all) = <[Samples; 3]>::default().into();
    for generation in 1..=RUNS {
        let start = Instant::now();
        store.flush().done().await?;
        floor.add(start.elapsed());

        let start = Instant::now();
        written(&store, intent(true, generation)).await?;
        one.add(start.elapsed());

        let start = Instant::now();
        // Before the stop signal.
        written(&store, intent(true, generation)).await?;
        // Before the way is swept: that the old one is gone, and what follows.
        let gone = store.submit(Write::InstanceGone { name: SERVICE.into(), generation: generation - 1 });
        written(&store, intent(false, generation)).await?;
        gone.done().await?;
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
        written(&store, Write::Instance { name: SERVICE.into(), record, beside: false }).await?;
        all.add(start.elapsed());
    }
    let aim = Aim::Most(Amount::Time(AIM));
    Ok(vec![Section {
        title: "what intents add to a restart".into(),
        floor: Some(Line::timed("to the store's thread and back", &floor)),
        lines: vec![
            Line::timed("one intent: submitted → in the store", &one),
            Line::timed("all that a clean restart waits for", &all).aim(aim),
        ],
    }])
}

async fn written(store: &Store, write: Write) -> Result {
    Ok(store.submit(write).done().await?)
}

fn intent(leaving: bool, current: u64) -> Write {
    let restart = Restart { clean: true, attempt: 1, leaving, gapless: false };
    let durable = Durable { want: Want::Up, restart: Some(restart), rest: None::<Rest> };
    Write::Intent { name: SERVICE.into(), durable, rest_reason: None, current }
}
