//! Plugins as records: one each, found by what it is for and what it can do.

use std::collections::BTreeSet;

use op_dbus_engine::{Payload, PutReport, Record, Result};

use super::writer::{Writer, keys};
use super::{PLUGINS_COLLECTION, beginning};
use crate::plugin::{LoadedPlugin, Plugins, describe};

/// Longer than what a model reads.
const TEXT_LEN_MAX_BYTES: usize = 4096;

/// Makes the collection have the plugins that are right, and no others.
///
/// # Errors
/// Those of the store.
pub(super) async fn index(writer: &Writer, plugins: &Plugins) -> Result<PutReport> {
    let loaded =
        plugins.0.iter().filter_map(|(name, entry)| Some((name, entry.loaded.as_ref().ok()?)));
    let records: Vec<Record> = loaded.map(|(name, loaded)| record(name, loaded)).collect();
    let present: BTreeSet<Vec<u8>> = records.iter().map(|record| record.key.clone()).collect();
    let report = writer.put(PLUGINS_COLLECTION, records).await?;
    let mut gone = writer.with(|store| keys(store, PLUGINS_COLLECTION)).await?;
    gone.retain(|key| !present.contains(key));
    writer.remove(PLUGINS_COLLECTION, gone).await?;
    Ok(report)
}

fn record(name: &str, loaded: &LoadedPlugin) -> Record {
    let payload = Payload::Json(describe(loaded).to_string().into());
    Record::new(name).with_text(text(name, loaded)).with_payload(payload)
}

fn text(name: &str, loaded: &LoadedPlugin) -> String {
    let mut parts = vec![format!("{name} (plugin)")];
    parts.extend(loaded.plugin.description.clone());
    if let Some(service) = loaded.plugin.dbus_service() {
        parts.push(format!("Service {service}"));
    }
    if let Some(service) = &loaded.service {
        let mapping = &service.mapping;
        parts.extend(mapping.service.description.clone());
        for (method, mapped) in &mapping.methods {
            let member = method.rsplit('.').next().unwrap_or(method);
            parts.push(match &mapped.description {
                Some(description) => format!("{member}: {}", description.trim_end_matches('.')),
                None => member.to_owned(),
            });
        }
    }
    let text = parts.iter().map(|part| part.trim_end_matches('.')).collect::<Vec<_>>().join(". ");
    beginning(&text, TEXT_LEN_MAX_BYTES).to_owned()
}
