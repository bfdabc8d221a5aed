//! `op-dbus cache`: the embedding cache, and records in exchange formats.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use op_dbus_daemon::CacheProxy;
use op_dbus_daemon::vector::Vectors;
use op_dbus_engine::{CacheStats, Error as EngineError, Record, Store};
use op_dbus_formats::exchange::jsonl::{self, ExchangeRecord};
use serde_json::json;

use super::ingest::{self, Ingest};
use super::{simulate, snapshot, trace};
use crate::args::{
    At, Cache, CacheClean, CacheExport, CacheGet, CacheImport, CachePut, ExportFormat,
};
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
        Cache::Import(arguments) => import(config, output, &arguments),
        Cache::Export(arguments) => export(config, output, &arguments),
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
            parsed(&client.ask(CacheProxy::new, ask)?)?
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
            client.ask(CacheProxy::new, async |cache| cache.put(text, vector).await)?;
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

fn import(config: &Config, output: &Output, arguments: &CacheImport) -> Result<Exit> {
    let expires_at_unix_ms = arguments.expiry.at_unix_ms();
    let mut acknowledge = |records: &[Record]| -> Result<()> {
        if !arguments.ack {
            return Ok(());
        }
        let mut stdout = std::io::stdout().lock();
        let mut write = || {
            for record in records {
                writeln!(stdout, "{}", acknowledged_key(&record.key))?;
            }
            stdout.flush()
        };
        // Nobody reads them any more: to go on would store what nobody learns of.
        write().map_err(|error| {
            Error::io("write acknowledgements to", Path::new("standard output"), error)
        })
    };
    let collection = arguments.collection.as_deref();
    let (store, ingest, result) = if let Some(database) = &arguments.from_sqlite {
        let legacy = input::LegacyCache::open(database, arguments.vectors.as_deref())?;
        let store = config.open_or_create()?;
        let mut ingest = Ingest::start(Some(legacy.count), Vec::new(), arguments.encoding);
        let (left_out, result) = legacy.read(|records| {
            let records = records.map(|read| read.map(|read| read.expiring(expires_at_unix_ms)));
            let collection = collection.unwrap_or(input::LEGACY_COLLECTION);
            ingest.run(&store, collection, records, &mut acknowledge)
        });
        ingest.leave_out(output, left_out);
        (store, ingest, result)
    } else {
        let path = arguments.source.as_deref().expect("clap asks for it without --from-sqlite");
        let source = input::exchange(path, arguments.format)?.expiring(expires_at_unix_ms);
        let store = config.open_or_create()?;
        let mut ingest = Ingest::start(source.count, Vec::new(), arguments.encoding);
        let collection = collection.unwrap_or(source.default_collection);
        let result = ingest.run(&store, collection, source.records, &mut acknowledge);
        (store, ingest, result)
    };
    // With --ack, standard output belongs to the keys.
    ingest::finish(store, output, ingest, result, arguments.ack)
}

/// A key on a line of its own: one that would not fit on it is escaped.
fn acknowledged_key(key: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(key) {
        Ok(key) if !key.contains(char::is_control) => Cow::Borrowed(key),
        _ => Cow::Owned(key.escape_ascii().to_string()),
    }
}

fn export(config: &Config, output: &Output, arguments: &CacheExport) -> Result<Exit> {
    let ExportFormat::Jsonl = arguments.format;
    let store = config.open_at(&arguments.at)?;
    let written = match &arguments.output {
        None => write_records(&store, arguments, &mut std::io::stdout().lock(), Error::stdout),
        Some(path) => write_file(&store, arguments, path),
    }?;
    store.close();
    output.note(&format!("{} records written", grouped(written)));
    Ok(Exit::Success)
}

/// Writes under another name first, so that the file is whole or absent.
fn write_file(store: &Store, arguments: &CacheExport, path: &Path) -> Result<u64> {
    if path.exists() {
        let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(Error::io("create", path, exists));
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".part");
    let unfinished = PathBuf::from(unfinished);
    let failed = |error| Error::io("write", &unfinished, error);
    let file = File::create(&unfinished).map_err(failed)?;
    let mut file = BufWriter::new(file);
    let result = write_records(store, arguments, &mut file, failed).and_then(|written| {
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        // Unlike a rename, a link does not take the place of a file that came meanwhile.
        std::fs::hard_link(&unfinished, path).map_err(|error| Error::io("create", path, error))?;
        Ok(written)
    });
    // What the user must hear of is the result.
    let _ = std::fs::remove_file(&unfinished);
    result
}

fn write_records(
    store: &Store,
    arguments: &CacheExport,
    out: &mut dyn Write,
    failed: impl Fn(std::io::Error) -> Error,
) -> Result<u64> {
    let mut line = Vec::new();
    let mut written = 0;
    for record in store.scan(&arguments.collection, b"")? {
        line.clear();
        render(record?, &mut line)?;
        out.write_all(&line).map_err(&failed)?;
        written += 1;
    }
    out.flush().map_err(&failed)?;
    Ok(written)
}

/// Appends a record as a line of JSON.
pub(super) fn render(record: Record, line: &mut Vec<u8>) -> Result<()> {
    let exchanged = ExchangeRecord {
        key: record.key.into(),
        text: record.text.map(Into::into),
        vector: record.vector,
        payload: record.payload,
        expires_at_unix_ms: record.expires_at_unix_ms,
    };
    jsonl::render_line(&exchanged, line).map_err(|error| {
        let key = String::from_utf8_lossy(&exchanged.key);
        let kind = op_dbus_engine::ErrorKind::Unsupported;
        op_dbus_engine::Error::new(kind, format!("record {key} cannot be written as JSON"))
            .with_source(error)
            .into()
    })
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
            client.ask(CacheProxy::new, async |cache| cache.clear().await)?
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
            client.ask(CacheProxy::new, async |cache| cache.evict(older_than_s).await)?
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
