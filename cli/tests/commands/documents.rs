//! What stands in the documents that commands print.

use serde_json::Value;

/// Level of the first volume of `disk`.
pub(crate) fn level(disks: &Value) -> &str {
    disks["volumes"][0]["level"].as_str().unwrap_or_default()
}

/// The first event of a kind, of `events`.
pub(crate) fn event<'a>(events: &'a Value, kind: &str) -> Option<&'a Value> {
    events["events"].as_array()?.iter().find(|event| event["kind"] == kind)
}
