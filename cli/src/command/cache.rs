//! `op-dbus cache`: the embedding cache. Import and export are in files of their own.

use std::io::Write;
use std::path::Path;

use op_dbus_daemon::CacheProxy;
use op_dbus_daemon::vector::Vectors;
use op_dbus_engine::{CacheStats, Error as EngineError};
use serde_json::json;

use super::{export, import, simulate, snapshot, trace};
use crate::args::{At, Cache, CacheClean, CacheGet, CachePut};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::input;
use crate::output::{Output, bytes, grouped, growing};
use crate::rates::Rates;
use crate::source::{Embedded, Source, parsed};

/// A vector of the greatest length, written without care, is shorter.
const VECTOR_FILE_BYTES_MAX: u64 = 4 << 20;

pub(super) fn run(config: &Config, output: &Output, command: Cache) -> Result<Exit> {
    match command {
        Cache::Stats => stats(config, output),
        Cache::Get(arguments) => get(config, output, &arguments),
        Cache::Put(arguments) => put(config, output, &arguments),
        Cache::Import(arguments) => import::run(config, output, &arguments),
        Cache::Export(arguments) => export::run(config, output, &arguments),
        Cache::Simulate(arguments) => simulate::run(output, &arguments),
        Cache::Trace { command } => trace::run(config, output, &command),
        Cache::Clean(arguments) => clean(config, output, &arguments),
        Cache::Snapshot(arguments) => snapshot::create(config, output, &arguments),
        Cache::Snapshots => snapshot::list(config, output),
        Cache::DeleteSnapshots(arguments) => snapshot::delete(config, output, &arguments),
        Cache::Clear => clear(config, output),
    }
}

fn stats(config: &Config, output: &Output) -> Result<Exit> {
    let source = config.open_or_ask(&At { at: None })?;
    let stats = match &source {
        Source::Store(store) => store.cache_stats()?,
        Source::Service(client) => {
            let ask = async |cache: CacheProxy<'_>| Ok(cache.statistics().await?);
            parsed(&client.ask(CacheProxy::builder, ask)?)?
        }
    };
    output.answer(&stats, |out| render_stats(out, "", &stats, None))?;
    source.close();
    Ok(Exit::Success)
}

/// Writes the figures of the cache, each on a line that begins with `indent`.
pub(super) fn render_stats(
    out: &mut dyn Write,
    indent: &str,
    stats: &CacheStats,
    rates: Option<&Rates>,
) -> std::io::Result<()> {
    let counted = |count: u64, rate: fn(&Rates) -> f64| growing(count, rates.map(rate));
    let or_dash = |figure: Option<String>| figure.unwrap_or_else(|| "–".to_owned());
    let hit_rate = or_dash(stats.hit_rate.map(|rate| format!("{:.1} %", rate * 100.0)));
    let ratio = or_dash(stats.compression_ratio.map(|ratio| format!("{ratio:.2}x")));
    writeln!(out, "{indent}embeddings       {}", grouped(stats.embeddings))?;
    writeln!(out, "{indent}in memory        {}", bytes(stats.bytes_memory))?;
    let cap = stats.bytes_disk_max.map(|cap| format!(", of {} at most", bytes(cap)));
    let cap = cap.unwrap_or_default();
    writeln!(out, "{indent}on disk          {}{cap}", bytes(stats.bytes_disk))?;
    writeln!(
        out,
        "{indent}evicted, disk    {}",
        counted(stats.evictions_disk, |rates| rates.evictions_disk)
    )?;
    writeln!(out, "{indent}hits             {}", counted(stats.hits, |rates| rates.hits))?;
    writeln!(out, "{indent}misses           {}", counted(stats.misses, |rates| rates.misses))?;
    writeln!(out, "{indent}hit rate         {hit_rate}")?;
    writeln!(out, "{indent}compression      {ratio}")?;
    writeln!(out, "{indent}embed time saved {:.1} s", stats.embed_seconds_saved)?;
    let tier = &stats.tier;
    let percent = |rate: f64| format!("{:.1} %", rate * 100.0);
    writeln!(out, "{indent}hot vectors      {}", grouped(tier.hot_vectors))?;
    let (used, capacity) = (bytes(tier.used_bytes), bytes(tier.capacity_bytes));
    writeln!(out, "{indent}hot in memory    {used} of {capacity} ({})", tier.policy)?;
    writeln!(out, "{indent}hit rate, hot    {}", or_dash(stats.tier_hit_rate.map(percent)))?;
    writeln!(
        out,
        "{indent}promoted         {} ({} not admitted)",
        counted(tier.promotions, |rates| rates.promotions),
        grouped(tier.refusals)
    )?;
    writeln!(
        out,
        "{indent}evicted          {} for room, {} changed, {} expired",
        counted(tier.evictions.capacity, |rates| rates.evictions),
        grouped(tier.evictions.change),
        grouped(tier.evictions.expiry)
    )
}

fn get(config: &Config, output: &Output, arguments: &CacheGet) -> Result<Exit> {
    const SHOWN_COUNT: usize = 6;
    let source = config.create_or_ask()?;
    let Embedded { model: (model, fingerprint), vector, hit, truncated } =
        source.embed(&arguments.text)?;
    let dimensions = vector.len();
    let answer = json!({
        "model": fingerprint, "dimensions": dimensions, "vector": vector, "hit": hit,
    });
    output.answer(&answer, |out| {
        let shown = vector.iter().take(SHOWN_COUNT).map(|x| format!("{x:.4}"));
        let shown = shown.collect::<Vec<_>>().join(", ");
        writeln!(out, "model       {model} ({fingerprint})")?;
        writeln!(out, "dimensions  {dimensions}")?;
        writeln!(out, "vector      [{shown}, …]  (--json shows all)")?;
        writeln!(out, "from        {}", if hit { "the cache" } else { "the model" })
    })?;
    warn_of_truncation(output, u64::from(truncated));
    source.close();
    Ok(Exit::Success)
}

fn put(config: &Config, output: &Output, arguments: &CachePut) -> Result<Exit> {
    let given = arguments.vector.as_deref().map(read_vector).transpose()?;
    let source = config.create_or_ask()?;
    let computed = match (given, &source) {
        (None, source) => {
            let embedded = source.embed(&arguments.text)?;
            warn_of_truncation(output, u64::from(embedded.truncated));
            !embedded.hit
        }
        (Some(vector), Source::Store(store)) => {
            store.put_embedding(&arguments.text, &vector)?;
            false
        }
        (Some(vector), Source::Service(client)) => {
            let vector = Vectors::new(&vector).map_err(EngineError::from)?;
            let text = arguments.text.clone();
            client.ask(CacheProxy::builder, async |cache| cache.put(text, vector).await)?;
            false
        }
    };
    output.answer(&json!({ "stored": true, "computed": computed }), |out| {
        writeln!(out, "{}", if computed { "computed and stored" } else { "stored" })
    })?;
    source.close();
    Ok(Exit::Success)
}

/// Reads a vector that lies in a file as a JSON array.
pub(super) fn read_vector(path: &Path) -> Result<Vec<f32>> {
    let text = input::read_bounded(path, VECTOR_FILE_BYTES_MAX)?;
    serde_json::from_slice(&text).map_err(|error| Error::input(path, &error))
}

fn clear(config: &Config, output: &Output) -> Result<Exit> {
    let source = config.change_or_ask()?;
    let (removed, freed_bytes) = match &source {
        Source::Store(store) => {
            let before = store.cache_stats()?;
            store.clear_cache()?;
            let after = store.cache_stats()?;
            (before.embeddings, before.bytes_disk.saturating_sub(after.bytes_disk))
        }
        Source::Service(client) => {
            client.ask(CacheProxy::builder, async |cache| cache.clear().await)?
        }
    };
    source.close();
    let answer = json!({ "removed": removed, "bytes_freed": freed_bytes });
    output.answer(&answer, |out| {
        let (count, freed) = (grouped(removed), bytes(freed_bytes));
        writeln!(
            out,
            "removed {count} embeddings, freed {freed}; records stay, and texts are embedded again \
             when needed"
        )
    })?;
    Ok(Exit::Success)
}

fn clean(config: &Config, output: &Output, arguments: &CacheClean) -> Result<Exit> {
    let source = config.change_or_ask()?;
    let (removed, freed_bytes) = match &source {
        Source::Store(store) => {
            let removed = store.clean_cache(arguments.older_than)?;
            (removed.embeddings, removed.bytes)
        }
        Source::Service(client) => {
            let older_than_s = arguments.older_than.as_secs();
            client.ask(CacheProxy::builder, async |cache| cache.evict(older_than_s).await)?
        }
    };
    source.close();
    let answer = json!({ "removed": removed, "bytes_freed": freed_bytes });
    output.answer(&answer, |out| {
        let (count, freed) = (grouped(removed), bytes(freed_bytes));
        writeln!(out, "removed {count} embeddings of {freed}; texts are embedded again when needed")
    })?;
    Ok(Exit::Success)
}

/// Says that the model read only the beginning of some texts.
pub(super) fn warn_of_truncation(output: &Output, texts_count: u64) {
    if texts_count > 0 {
        output.note(&format!(
            "{} of the texts embedded now are longer than the model reads; their ends count for nothing",
            grouped(texts_count)
        ));
    }
}
