//! The interfaces of everything on the bus, and of what can be started there: from files first, then
//! from each service that runs, and from then on from those that come.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use op_dbus_engine::{PutReport, Record, Result, Store};
use op_dbus_formats::introspection::Interface;
use sd_notify::NotifyState;
use tokio::time::{Instant, sleep, sleep_until};
use zbus::Connection;

use super::catalog::{Catalog, documented};
use super::claim::{Claim, Names, Verdict, judge, rank};
use super::live::{self, Arrivals};
use super::members::{Stored, Update};
use super::walk::Found;
use super::{Indexer, plugins};
use crate::interfaces::{COLLECTION, Origin};
use crate::service::notify;

/// Interfaces of files that are read and written at a time.
const INTERFACES_COUNT: usize = 32;
/// A name is indexed at most once in this time, however often it changes hands.
const NAME_INTERVAL: Duration = Duration::from_secs(30);
/// Until one is asked again who did not answer: most often it was busy with its own start.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const TRIES_COUNT_MAX: u32 = 3;
/// More names than a bus has wait to be indexed: what comes beyond is dropped.
const DUE_COUNT_MAX: usize = 10_000;

/// Indexes what there is, and then follows the bus until its connection ends.
pub(super) async fn follow(indexer: Arc<Indexer>) {
    let connection = match live::connect(&indexer.bus).await {
        Ok(connection) => connection,
        Err(error) => return tracing::warn!(%error, "no interfaces are indexed"),
    };
    // Before the names are asked for, so that none comes unseen in between.
    let stream = match indexer.is_live {
        true => live::owner_changes(&connection)
            .await
            .inspect_err(|error| tracing::warn!(%error, "services that come are not indexed"))
            .ok(),
        false => None,
    };
    let arrivals = Arrivals::default();
    let collecting = async {
        match stream {
            Some(stream) => arrivals.collect(stream).await,
            None => connection.closed().await,
        }
    };
    let mut index = Index {
        indexer: &indexer,
        connection: connection.clone(),
        catalog: Arc::default(),
        schedule: Schedule::default(),
        said_all: BTreeSet::new(),
        totals: BTreeMap::new(),
    };
    tokio::select! {
        () = collecting => {}
        () = index.run(&arrivals) => {}
    }
}

/// What is known while the bus is followed.
struct Index<'i> {
    indexer: &'i Indexer,
    connection: Connection,
    catalog: Arc<Catalog>,
    schedule: Schedule,
    /// Names of those who have said all that they have.
    said_all: BTreeSet<String>,
    /// Interfaces and members of each service; of files without one.
    totals: BTreeMap<Option<String>, (usize, usize)>,
}

/// What one pass has done.
#[derive(Default)]
struct Pass {
    services: u64,
    /// Services that did not answer.
    silent: u64,
    interfaces: usize,
    members: usize,
    removed: u64,
    put: PutReport,
}

/// What is to be written about some interfaces.
#[derive(Default)]
struct Updates {
    records: Vec<Record>,
    gone: Vec<Vec<u8>>,
    interfaces: usize,
    members: usize,
    /// Whether it depends on others who have not been asked yet.
    waits: bool,
}

impl Updates {
    fn add(&mut self, update: Update) {
        self.records.extend(update.records);
        self.gone.extend(update.gone);
        self.interfaces += 1;
        self.members += update.members_count;
    }
}

impl Index<'_> {
    async fn run(&mut self, arrivals: &Arrivals) {
        self.index_files().await;
        loop {
            let due = self.schedule.take_due(Instant::now());
            if !due.is_empty() {
                self.index_services(due).await;
                // What comes meanwhile comes together.
                sleep(self.indexer.delay).await;
                continue;
            }
            let next = async {
                match self.schedule.next() {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.indexer.service.plugins_changed.notified() => {
                    self.indexer.writer.retry_model();
                    self.index_files().await;
                }
                names = arrivals.take() => {
                    let at = Instant::now() + self.indexer.delay;
                    for name in names {
                        self.said_all.remove(&name);
                        self.schedule.add(name, at);
                    }
                }
                () = next => {}
            }
        }
    }

    /// Reads files and plugins anew, and has all services asked again.
    async fn index_files(&mut self) {
        let names = match live::names(&self.connection).await {
            Ok(names) => Arc::new(names),
            Err(error) => {
                tracing::warn!(%error, "the bus does not say which names there are");
                Arc::default()
            }
        };
        let loaded = self.indexer.service.plugins();
        let directories = self.indexer.interfaces.clone();
        let reading = {
            let loaded = Arc::clone(&loaded);
            self.indexer.writer.with(move |_| Ok(Catalog::read(&directories, &loaded)))
        };
        let started = Instant::now();
        let mut pass = Pass::default();
        let done = async {
            self.catalog = Arc::new(reading.await?);
            self.put_files(&names, &mut pass).await?;
            plugins::index(&self.indexer.writer, &loaded).await
        };
        match done.await {
            Ok(put) => tracing::info!(
                PLUGINS = put.records,
                INTERFACES = pass.interfaces,
                MEMBERS = pass.members,
                EMBEDDED = pass.put.embedded + put.embedded,
                UNCHANGED = pass.put.unchanged + put.unchanged,
                SECONDS = started.elapsed().as_secs_f64(),
                "files of interfaces and plugins are indexed"
            ),
            Err(error) => tracing::warn!(%error, "files of interfaces are not indexed"),
        }
        self.totals.insert(None, (pass.interfaces, pass.members));
        self.tell();
        if self.indexer.is_live {
            for name in &names.owned {
                self.schedule.add(name.clone(), Instant::now());
            }
        }
    }

    async fn put_files(&self, names: &Arc<Names>, pass: &mut Pass) -> Result<()> {
        let known: Vec<String> = self.catalog.interfaces.keys().cloned().collect();
        for some in known.chunks(INTERFACES_COUNT) {
            let (some, names) = (some.to_vec(), Arc::clone(names));
            let catalog = Arc::clone(&self.catalog);
            let updates =
                self.indexer.writer.with(move |store| of_files(store, &some, &catalog, &names));
            self.write(updates.await?, pass).await?;
        }
        Ok(())
    }

    /// Asks services, one after the other; those twice whose interfaces may be another's, who comes
    /// later.
    async fn index_services(&mut self, due: Vec<String>) {
        let names = match live::names(&self.connection).await {
            Ok(names) => Arc::new(names),
            Err(error) => {
                tracing::warn!(%error, "the bus does not say which names there are");
                return self.schedule.put_off(due);
            }
        };
        let started = Instant::now();
        let mut pass = Pass::default();
        let mut asked: Vec<String> =
            due.iter().filter(|name| names.owned.contains(*name)).cloned().collect();
        pass.services = asked.len() as u64;
        for round in 0..2 {
            let mut waiting = Vec::new();
            for name in asked {
                match self.index_service(&name, &names, round, &mut pass).await {
                    Ok(true) => waiting.push(name),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%error, name, "services are not indexed now");
                        return self.schedule.put_off(due);
                    }
                }
            }
            asked = waiting;
        }
        self.totals.retain(|name, _| name.as_ref().is_none_or(|name| names.owned.contains(name)));
        tracing::info!(
            SERVICES = pass.services,
            SILENT = pass.silent,
            INTERFACES = pass.interfaces,
            MEMBERS = pass.members,
            EMBEDDED = pass.put.embedded,
            UNCHANGED = pass.put.unchanged,
            REMOVED = pass.removed,
            SECONDS = started.elapsed().as_secs_f64(),
            "services are indexed"
        );
        self.tell();
    }

    /// Asks a service, and writes what it has; says whether some of it waits for others.
    async fn index_service(
        &mut self,
        name: &str,
        names: &Arc<Names>,
        round: u32,
        pass: &mut Pass,
    ) -> Result<bool> {
        let found = live::walk(&self.connection, name).await;
        if !found.has_answered {
            pass.silent += 1;
            self.schedule.try_again(name);
            tracing::debug!(name, "a service does not answer");
            return Ok(false);
        }
        self.schedule.has_answered(name);
        let is_complete = found.is_complete;
        let of_service = OfService {
            name: name.to_owned(),
            names: Arc::clone(names),
            said_all: self.said_all.clone(),
            catalog: Arc::clone(&self.catalog),
        };
        let updates = self.indexer.writer.with(move |store| of_service.updates(store, found));
        let updates = updates.await?;
        let waits = updates.waits && round == 0;
        self.totals.insert(Some(name.to_owned()), (updates.interfaces, updates.members));
        self.write(updates, pass).await?;
        if is_complete {
            self.said_all.insert(name.to_owned());
        }
        Ok(waits)
    }

    async fn write(&self, updates: Updates, pass: &mut Pass) -> Result<()> {
        pass.interfaces += updates.interfaces;
        pass.members += updates.members;
        pass.put += self.indexer.writer.put(COLLECTION, updates.records).await?;
        pass.removed += self.indexer.writer.remove(COLLECTION, updates.gone).await?;
        Ok(())
    }

    fn tell(&self) {
        let services = self.totals.keys().flatten().count();
        let sum = |(a, b): (usize, usize), (c, d): &(usize, usize)| (a + c, b + d);
        let (interfaces, members) = self.totals.values().fold((0, 0), sum);
        notify(&[NotifyState::Status(&format!(
            "answering; indexed {interfaces} interfaces of {services} services and of files, \
             {members} members"
        ))]);
    }
}

/// What files say of some interfaces. What a service has said itself is better, unless it is a
/// stranger's.
fn of_files(store: &Store, some: &[String], catalog: &Catalog, names: &Names) -> Result<Updates> {
    let mut updates = Updates::default();
    for name in some {
        let Some(described) = catalog.interfaces.get(name) else { continue };
        let service = described.service.as_deref().or_else(|| names.best_for(name));
        let stored = Stored::read(store, name)?;
        let rank_of = |service: Option<&str>| service.map_or(0, |service| rank(service, name));
        if stored.is_live && rank_of(stored.service.as_deref()) >= rank_of(service) {
            continue;
        }
        let origin = Origin { service, path: described.path.as_deref(), is_live: false };
        let descriptions = &catalog.descriptions;
        updates.add(Update::new(store, &described.interface, descriptions, origin, &stored)?);
    }
    Ok(updates)
}

/// What is needed to decide about the interfaces of a service.
struct OfService {
    name: String,
    names: Arc<Names>,
    said_all: BTreeSet<String>,
    catalog: Arc<Catalog>,
}

impl OfService {
    fn updates(&self, store: &Store, found: Found) -> Result<Updates> {
        let mut updates = Updates::default();
        for (interface, path) in found.interfaces.into_values() {
            let stored = Stored::read(store, &interface.name)?;
            match self.verdict(&interface, &stored) {
                Verdict::Granted => {}
                Verdict::Waits => {
                    updates.waits = true;
                    continue;
                }
                Verdict::Refused => continue,
            }
            let interface = match self.catalog.interfaces.get(&interface.name) {
                Some(described) => documented(interface, &described.interface),
                None => interface,
            };
            let origin = Origin { service: Some(&self.name), path: Some(&path), is_live: true };
            let descriptions = &self.catalog.descriptions;
            updates.add(Update::new(store, &interface, descriptions, origin, &stored)?);
        }
        Ok(updates)
    }

    fn verdict(&self, interface: &Interface, stored: &Stored) -> Verdict {
        let services = self.catalog.descriptions.services_of(&interface.name);
        let claim = Claim {
            interface: &interface.name,
            service: &self.name,
            incumbent: stored.service.as_deref(),
            described: services.max_by_key(|service| rank(service, &interface.name)),
        };
        judge(&claim, &self.names, |name| self.said_all.contains(name))
    }
}

/// When which name is indexed.
#[derive(Default)]
struct Schedule {
    due: BTreeMap<String, Instant>,
    /// When it was indexed last, as long as that matters.
    last: HashMap<String, Instant>,
    /// How often it was asked without an answer.
    tries: HashMap<String, u32>,
}

impl Schedule {
    /// Has a name indexed at this time, or as soon after it as it may be.
    fn add(&mut self, name: String, at: Instant) {
        let at = self.last.get(&name).map_or(at, |last| at.max(*last + NAME_INTERVAL));
        if self.due.len() < DUE_COUNT_MAX {
            self.due.entry(name).or_insert(at);
        }
    }

    fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// Takes the names whose time has come.
    fn take_due(&mut self, now: Instant) -> Vec<String> {
        self.last.retain(|_, last| now.duration_since(*last) < NAME_INTERVAL);
        let due: Vec<String> =
            self.due.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in &due {
            self.due.remove(name);
            self.last.insert(name.clone(), now);
        }
        due
    }

    /// Tries all of it again, later.
    fn put_off(&mut self, names: Vec<String>) {
        for name in names {
            self.add(name, Instant::now() + RETRY_AFTER);
        }
    }

    /// Tries again one that did not answer, later and not forever.
    fn try_again(&mut self, name: &str) {
        let tries = self.tries.entry(name.to_owned()).or_default();
        *tries += 1;
        if *tries < TRIES_COUNT_MAX {
            self.add(name.to_owned(), Instant::now() + RETRY_AFTER);
        } else {
            self.tries.remove(name);
        }
    }

    fn has_answered(&mut self, name: &str) {
        self.tries.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_indexed_soon_but_not_often() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let soon = now + Duration::from_secs(1);
        schedule.add("a.b".to_owned(), soon);
        schedule.add("a.b".to_owned(), soon + NAME_INTERVAL);
        assert_eq!((schedule.take_due(now), schedule.next()), (vec![], Some(soon)));
        assert_eq!(schedule.take_due(soon), ["a.b"]);
        schedule.add("a.b".to_owned(), soon);
        assert_eq!(schedule.next(), Some(soon + NAME_INTERVAL));
        assert_eq!(schedule.take_due(soon + NAME_INTERVAL), ["a.b"]);
        let later = soon + 3 * NAME_INTERVAL;
        assert!(schedule.take_due(later).is_empty() && schedule.last.is_empty());
        schedule.add("a.b".to_owned(), later);
        assert_eq!(schedule.take_due(later), ["a.b"]);
    }

    #[test]
    fn who_never_answers_is_not_asked_forever() {
        let mut schedule = Schedule::default();
        for is_asked_again in [true, true, false] {
            schedule.try_again("a.b");
            assert_eq!(schedule.next().is_some(), is_asked_again);
            schedule.due.clear();
        }
        assert!(schedule.tries.is_empty());
    }
}
