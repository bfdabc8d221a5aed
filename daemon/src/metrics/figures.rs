//! The figures and their names.
//!
//! README.md has a line for each family; a test compares both.

use std::collections::BTreeMap;
use std::fmt;

use op_dbus_engine::{Activity, QueryStats, RecallStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder,
    NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::count::{Counts, Records};
use super::process::ProcessFigures;
use crate::service::Service;

/// Upper bounds of the histogram of queries, in microseconds: powers of two, which the store's own
/// buckets end at.
const QUERY_BOUNDS_LOG2: std::ops::RangeInclusive<u32> = 4..=25;

/// In what form they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Prometheus's text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Form {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All that is told, as it was at one moment.
#[derive(Debug)]
pub(super) struct Figures {
    activity: Activity,
    process: ProcessFigures,
    calls: Vec<(&'static str, &'static str, u64)>,
    collections_count: usize,
    journal_entries: u64,
    /// None as long as they were never counted.
    records: Option<Records>,
    recall: Vec<(String, RecallStats)>,
    /// Those whose names are told.
    named: Vec<String>,
}

impl Figures {
    /// Asks the store and the gate.
    pub(super) fn measure(service: &Service, counts: &Counts, tells_names: bool) -> Self {
        let Service { store, gate, .. } = service;
        let mut named = if tells_names { service.collection_names() } else { Vec::new() };
        named.retain(|name| gate.is_for_all_readers(name));
        Self {
            activity: store.activity(),
            process: ProcessFigures::measure(),
            calls: gate.counters().by_class().collect(),
            collections_count: store.collections().len(),
            journal_entries: store.journal_len(),
            records: counts.records(store),
            recall: store.recall_stats(),
            named,
        }
    }

    /// Writes them.
    pub(super) fn render(self, form: Form) -> op_dbus_engine::Result<String> {
        let (mut registry, mut rendered) = (Registry::default(), String::new());
        registry.register_collector(Box::new(self));
        let written = match form {
            Form::Prometheus => prometheus_text::encode(&mut rendered, &registry),
            Form::OpenMetrics => text::encode(&mut rendered, &registry),
        };
        written.map(|()| rendered).map_err(|error| {
            op_dbus_engine::Error::new(op_dbus_engine::ErrorKind::Io, "figures cannot be written")
                .with_source(error)
        })
    }

    fn is_named(&self, collection: &str) -> bool {
        self.named.iter().any(|name| name == collection)
    }

    fn store(&self, out: &mut Writer<'_>) -> fmt::Result {
        let Activity { sequence, bytes_memory, bytes_disk, memory, .. } = &self.activity;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        out.family("opdbus_build", "The version of the service.", MetricType::Info)?
            .encode_info(&version)?;
        out.gauge("opdbus_sequence", "The number of the last committed change.", *sequence)?;
        out.gauge("opdbus_journal_entries", "Entries of the journal.", self.journal_entries)?;
        out.gauge("opdbus_disk_bytes", "Bytes on disk that the store uses.", *bytes_disk)?;
        out.gauge("opdbus_memory_bytes", "Memory that the store holds.", *bytes_memory)?;
        let cap = memory.effective_bytes;
        out.gauge("opdbus_memory_cap_bytes", "Memory that the store may take.", cap)?;
        let writes = self.activity.writes;
        let by_operation =
            [("put", writes.puts), ("remove", writes.removals), ("expire", writes.expiries)];
        let help = "Records written since the store was opened, by what was done to them.";
        out.counters("opdbus_writes", help, by_operation.map(|(it, n)| ([("operation", it)], n)))?;
        let calls = self
            .calls
            .iter()
            .map(|(class, ending, count)| ([("class", *class), ("ending", *ending)], *count));
        let help = "Calls by the interface that they are about, and by how they ended.";
        out.counters("opdbus_bus_calls", help, calls)
    }

    fn collections(&self, out: &mut Writer<'_>) -> fmt::Result {
        let count = self.collections_count as u64;
        out.gauge("opdbus_collections", "Collections that there are.", count)?;
        let Some(records) = &self.records else { return Ok(()) };
        let sum: u64 = records.iter().map(|(_, count)| count).sum();
        out.gauge("opdbus_records", "Records in all collections, as counted last.", sum)?;
        let mut named = records.iter().filter(|(name, _)| self.is_named(name)).peekable();
        if named.peek().is_none() {
            return Ok(());
        }
        let help = "Records by collection, of those whose names are told.";
        let mut family = out.family("opdbus_collection_records", help, MetricType::Gauge)?;
        named.try_for_each(|(name, count)| {
            family.encode_family(&[("collection", name.as_str())])?.encode_gauge(count)
        })
    }

    fn tiers(&self, out: &mut Writer<'_>) -> fmt::Result {
        let cache = &self.activity.cache;
        let tier = &cache.tier;
        let lookups = [
            ("hot", "hit", tier.hits),
            ("hot", "miss", tier.misses),
            ("cache", "hit", cache.hits),
            ("cache", "miss", cache.misses),
        ];
        let lookups = lookups.map(|(tier, result, n)| ([("tier", tier), ("result", result)], n));
        let help = "Lookups of vectors in memory (hot), and of embeddings of texts (cache).";
        out.counters("opdbus_tier_lookups", help, lookups)?;
        let help = "Embeddings that the model has computed.";
        out.counter("opdbus_embeddings_computed", help, cache.computed)?;
        let help = "Embeddings removed from the disk because there were too many.";
        out.counter("opdbus_cache_evictions", help, cache.evictions_disk)?;
        let help = "Bytes on disk that embeddings of texts use.";
        out.gauge("opdbus_cache_disk_bytes", help, cache.bytes_disk)?;
        let help = "Memory that their database holds.";
        out.gauge("opdbus_cache_memory_bytes", help, cache.bytes_memory)?;
        out.gauge("opdbus_hot_vectors", "Vectors in memory.", tier.hot_vectors)?;
        out.gauge("opdbus_hot_bytes", "What hot vectors take.", tier.used_bytes)?;
        let help = "What hot vectors may take.";
        out.gauge("opdbus_hot_capacity_bytes", help, tier.capacity_bytes)?;
        out.counter("opdbus_promotions", "Vectors that came into memory.", tier.promotions)?;
        let help = "Vectors that did not, by why: the policy kept them out, or there was no room.";
        let kept_out = [("policy", tier.refusals), ("busy", tier.skipped)];
        let kept_out = kept_out.map(|(reason, n)| ([("reason", reason)], n));
        out.counters("opdbus_promotions_refused", help, kept_out)?;
        let left = tier.evictions;
        let left = [("capacity", left.capacity), ("change", left.change), ("expiry", left.expiry)];
        let help = "Vectors that left memory, by why.";
        out.counters("opdbus_demotions", help, left.map(|(reason, n)| ([("reason", reason)], n)))
    }

    /// As far as the kernel was asked: it tells of some pages of each arena.
    fn arenas(&self, out: &mut Writer<'_>) -> fmt::Result {
        let mut bytes_by_node = BTreeMap::<u32, f64>::new();
        for arena in &self.activity.numa.arenas {
            let asked: u64 = arena.pages_by_node.values().sum();
            for (node, pages) in &arena.pages_by_node {
                let part = *pages as f64 / asked.max(1) as f64;
                *bytes_by_node.entry(*node).or_default() += arena.bytes as f64 * part;
            }
        }
        if bytes_by_node.is_empty() {
            return Ok(());
        }
        let help = "Memory of arenas, graphs and vectors by NUMA node, from a sample of pages.";
        let mut family = out.family("opdbus_arena_bytes", help, MetricType::Gauge)?;
        bytes_by_node.iter().try_for_each(|(node, bytes)| {
            family.encode_family(&[("numa_node", *node)])?.encode_gauge(&(bytes.round() as u64))
        })
    }

    fn queries(&self, out: &mut Writer<'_>) -> fmt::Result {
        let QueryStats { count, total_us, latencies_us, .. } = &self.activity.queries;
        let mut buckets = Vec::new();
        let mut below = 0;
        for bound in QUERY_BOUNDS_LOG2 {
            let bound_us = 1_u64 << bound;
            let until: u64 = counted_below(latencies_us, bound_us);
            buckets.push((bound_us as f64 / 1e6, until - below));
            below = until;
        }
        buckets.push((f64::INFINITY, count - below));
        let help = "Queries that were answered, and how long they took.";
        out.family("opdbus_query_duration_seconds", help, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(*total_us as f64 / 1e6, *count, &buckets, None)
    }

    fn recall(&self, out: &mut Writer<'_>) -> fmt::Result {
        let mut sum = RecallStats::default();
        self.recall.iter().for_each(|(_, recall)| sum += *recall);
        let audits =
            [("done", sum.audited), ("full", sum.dropped_full), ("changed", sum.dropped_changed)];
        let help = "Queries chosen to be answered again exactly, by what became of it.";
        out.counters("opdbus_recall_audits", help, audits.map(|(it, n)| ([("result", it)], n)))?;
        let [expected, found] = [
            "Records that audited queries should have found.",
            "Those of them that they did find: their rates are the recall.",
        ];
        out.counter("opdbus_recall_expected", expected, sum.expected)?;
        out.counter("opdbus_recall_found", found, sum.found)?;
        let is_told =
            |(name, recall): &&(String, RecallStats)| self.is_named(name) && recall.audited > 0;
        let told: Vec<_> = self.recall.iter().filter(is_told).collect();
        if told.is_empty() {
            return Ok(());
        }
        let of = |count: fn(&RecallStats) -> u64| {
            told.iter().map(move |(name, recall)| ([("collection", name.as_str())], count(recall)))
        };
        let (expected, found) =
            ("The same by collection, of those whose names are told.", "Those of them found.");
        out.counters("opdbus_collection_recall_expected", expected, of(|it| it.expected))?;
        out.counters("opdbus_collection_recall_found", found, of(|it| it.found))
    }

    fn process(&self, out: &mut Writer<'_>) -> fmt::Result {
        let it = &self.process;
        if let Some(seconds) = it.cpu_seconds {
            out.counter("process_cpu_seconds", "Time that processors spent on it.", seconds)?;
        }
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory.", it.resident_bytes),
            ("process_virtual_memory_bytes", "Address space.", it.virtual_bytes),
            ("process_open_fds", "Open files.", it.open_files),
            ("process_max_fds", "Files that may be open.", it.open_files_max),
            ("process_threads", "Threads.", it.threads.and_then(|count| count.try_into().ok())),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                out.gauge(name, help, value)?;
            }
        }
        if let Some(seconds) = it.started_unix_seconds {
            let help = "When it began, in seconds since 1970.";
            out.gauge("process_start_time_seconds", help, seconds)?;
        }
        Ok(())
    }
}

/// Queries that took less than a power of two microseconds, at which buckets end.
fn counted_below(latencies_us: &[(u64, u64)], bound_us: u64) -> u64 {
    let below = latencies_us.iter().take_while(|(longest_us, _)| *longest_us < bound_us);
    below.map(|(_, count)| count).sum()
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer { encoder };
        self.store(&mut out)?;
        self.collections(&mut out)?;
        self.queries(&mut out)?;
        self.tiers(&mut out)?;
        self.arenas(&mut out)?;
        self.recall(&mut out)?;
        self.process(&mut out)
    }
}

/// Writes families.
struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Writer<'_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.encoder.encode_descriptor(name, help, None, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.family(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Counter)?;
        values.into_iter().try_for_each(|(labels, value)| {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }
}
