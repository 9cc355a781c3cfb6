//! What the daemon's history has of a service: a false alarm that nobody saw is still in there.

use crate::{Json, Result, World, ensure};
use serde_json::{Value, json};

impl World {
    /// The verdicts that a declared socket was given, the first one first.
    pub fn verdicts(&self, service: &str, socket: &str) -> Result<Vec<String>> {
        let rows = self.rpc("event.list", json!({"name": service, "kinds": ["verdict"]}))?;
        let of_socket = rows.rows()?.iter().map(|row| row.field("detail"));
        let of_socket = of_socket.filter(|detail| detail.field("socket") == socket);
        of_socket.map(|detail| Ok(detail.text("verdict")?.to_owned())).collect()
    }

    /// Holds that a service that came up once was never called anything but well since: neither its state nor the
    /// verdict on its socket has changed.
    pub fn stayed_well(&self, service: &str, socket: &str) -> Result {
        let rows = self.rpc("event.list", json!({"name": service, "kinds": ["verdict", "state"]}))?;
        let well = |row: &Value| {
            let detail = row.field("detail");
            detail.field("verdict") == "ok" || detail.field("status") == "running"
        };
        let mut since = rows.rows()?.iter().skip_while(|row| row.field("detail").field("verdict") != "ok");
        ensure!(since.next().is_some(), "{service}'s {socket} was never ok: {rows}");
        let ill = since.find(|row| !well(row));
        ensure!(ill.is_none(), "a false alarm: {ill:?}");
        Ok(())
    }
}
