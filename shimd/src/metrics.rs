//! `/metrics`: states, sockets and restarts in OpenMetrics' text form.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::value::RawValue;
use shimd_api::wire::{ServiceRow, Status};

use crate::supervisor::Handle;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfService {
    service: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfStatus {
    service: String,
    status: &'static str,
}

/// The text, ending in `# EOF`.
pub async fn encode(handle: &Handle) -> String {
    let answer = handle.ask("service.list", RawValue::NULL, None).await.ok();
    let rows: Vec<ServiceRow> = answer.and_then(|v| serde_json::from_str(v.get()).ok()).unwrap_or_default();
    let mut registry = Registry::default();
    let status = Family::<OfStatus, Gauge<i64, AtomicI64>>::default();
    let declared = Family::<OfService, Gauge<i64, AtomicI64>>::default();
    let ok = Family::<OfService, Gauge<i64, AtomicI64>>::default();
    let restarts = Family::<OfService, Counter<u64, AtomicU64>>::default();
    registry.register("shimd_service_status", "1 for the state that the service is in", status.clone());
    registry.register("shimd_sockets_declared", "Sockets that the service declares", declared.clone());
    registry.register("shimd_sockets_ok", "Sockets that clients can reach", ok.clone());
    registry.register("shimd_restarts", "Starts that nobody asked for", restarts.clone());
    for row in rows {
        for state in [
            Status::Inactive,
            Status::Starting,
            Status::Running,
            Status::Stopping,
            Status::Backoff,
            Status::Failed,
        ] {
            let label = OfStatus { service: row.name.clone(), status: state.as_str() };
            status.get_or_create(&label).set(i64::from(state == row.status));
        }
        let label = OfService { service: row.name };
        declared.get_or_create(&label).set(i64::from(row.sockets));
        ok.get_or_create(&label).set(i64::from(row.sockets_ok));
        restarts.get_or_create(&label).inc_by(row.restarts);
    }
    let mut text = String::new();
    if let Err(e) = encode_text(&mut text, &registry) {
        let _ = write!(text, "# the metrics cannot be written: {e}");
    }
    text
}
