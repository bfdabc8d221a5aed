//! Everything that can be asked for, by everybody, with every answer of whoever decides.

use std::collections::{BTreeMap, BTreeSet};

use op_dbus_daemon::StateProxy;
use op_dbus_engine::JournalRecord;
use support::crash::campaign::skip;
use support::program::is_root;
use zbus::Connection;

use crate::cases::{self, Case, Observer, Right};
use crate::judge::{self, Row, Seen};
use crate::polkit::Answer;
use crate::world::{Decides, Entry, JournalReader, Who, World, name_of};

/// All but those that take their time.
const ANSWERS: [Answer; 7] = [
    Answer::Yes,
    Answer::No,
    Answer::Challenge,
    Answer::Error,
    Answer::Garbage,
    Answer::YesOfAnotherType,
    Answer::Absent,
];

/// Complaints that are shown; a service that fails open has hundreds.
const SHOWN_COUNT: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn every_method_for_everybody_whatever_polkit_answers() {
    let rows = run(Decides::StandIn, &ANSWERS).await;
    judge::assert_sees_a_planted_allow(&rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_another_bus_its_own_user_alone_may_change_anything() {
    let rows = run(Decides::Owner, &[Answer::Absent]).await;
    if is_root() {
        judge::assert_sees_a_planted_allow(&rows);
    }
}

/// Asks for everything and judges it; returns what happened.
pub(crate) async fn run(decides: Decides, answers: &[Answer]) -> Vec<Row> {
    if !is_root() {
        skip("the matrix of rights", &"only root can be somebody else: one caller alone is asked");
    }
    let world = World::start(decides).await;
    run_in(world, decides, answers).await
}

pub(crate) async fn run_in(world: World, decides: Decides, answers: &[Answer]) -> Vec<Row> {
    let first = world.connect_with(observer_of(decides), Answer::Yes).await;
    cases::assert_complete(&first).await;
    let observer = Observer { connection: first.clone() };
    observer.declare("declared-color").await;
    cases::journal_is_found(&first).await;
    let state = StateProxy::new(&first).await.unwrap();
    state.put("known".to_owned(), "{}".to_owned()).await.unwrap();
    let mut matrix = Matrix {
        decides,
        journal: JournalReader::new(first.clone()).await,
        reading_denied: BTreeMap::new(),
        clients: BTreeSet::from([name_of(&first)]),
        rows: Vec::new(),
        world,
    };
    for answer in answers {
        for who in Who::all() {
            matrix.round(*who, *answer).await;
        }
    }
    matrix.finish()
}

/// Who may change everything, whoever decides.
fn observer_of(decides: Decides) -> Who {
    if decides == Decides::Polkit { Who::Root } else { Who::Own }
}

struct Matrix {
    decides: Decides,
    world: World,
    journal: JournalReader,
    /// How often the journal says that somebody may not read.
    reading_denied: BTreeMap<String, usize>,
    /// All who were ever on the bus.
    clients: BTreeSet<String>,
    rows: Vec<Row>,
}

impl Matrix {
    /// Everything that can be asked for, once, by connections of its own: each may change so much in a
    /// second.
    async fn round(&mut self, who: Who, answer: Answer) {
        let caller = self.world.connect_with(who, answer).await;
        let observer = self.world.connect_with(observer_of(self.decides), Answer::Yes).await;
        self.clients.extend([name_of(&caller), name_of(&observer)]);
        let observer = Observer { connection: observer };
        for case in cases::cases(self.decides) {
            let is_change = matches!(case.right, Right::Change(_));
            // What polkit is not asked about does not depend on its answer.
            if is_change || matches!(answer, Answer::Yes | Answer::Error | Answer::Absent) {
                self.row(who, answer, &caller, &observer, case).await;
            }
        }
    }

    async fn row(
        &mut self,
        who: Who,
        answer: Answer,
        caller: &Connection,
        observer: &Observer,
        case: Case,
    ) {
        let sender = name_of(caller);
        let word = format!("word-{}", self.rows.len());
        let mut prepared = observer.prepare(&self.world, case, word).await;
        if case.variant == "confirmed" {
            self.world.says(caller, Answer::Yes);
            let token = cases::confirm(caller, &prepared.word).await.ok();
            self.world.says(caller, answer);
            prepared = prepared.with_token(token);
        } else if case.variant.contains("forged") {
            prepared = prepared.with_token(None);
        }
        let _ = self.news(&sender).await;
        let asked_before = self.asked_count(&sender);
        let attempted = self.attempt(answer, caller, case, &prepared).await;
        let news = self.news(&sender).await;
        let has_effect = match &attempted {
            Ok(message) if case.interface == "Query1" => cases::leaks(message),
            _ if case.interface == "Plugin1" && case.member != "FinishCall" => {
                news.iter().any(|entry| entry.kind == "intent")
                    || (attempted.is_err() && self.ends_a_call(caller, &news).await)
            }
            _ => observer.has_effect(&self.world, case, &prepared).await,
        };
        if let (Ok(_), "PrepareCall", Some(entry)) = (&attempted, case.member, news.last()) {
            let plugin = cases::plugin(caller).await;
            plugin.finish_call(entry.number, true, "[]".to_owned()).await.unwrap();
        }
        let polkit = self.world.polkit.as_ref();
        let asked = polkit.map(|polkit| polkit.asked_about(&sender).split_off(asked_before));
        let count = |kind: &str| news.iter().filter(|entry| entry.kind == kind).count();
        let seen = Seen {
            refused: attempted.err().map(|error| error.name().to_owned()),
            has_effect,
            asked,
            intents_count: count("intent"),
            outcomes_count: count("outcome"),
            denials_count: count("denial"),
            reading_denied_count: self.reading_denied.get(&sender).copied().unwrap_or(0),
            is_of_user: news.iter().all(|entry| entry.uid == Some(who.uid().into())),
        };
        self.rows.push(Row { case, who, decides: self.decides, answer, sender, seen });
    }

    async fn attempt(
        &self,
        answer: Answer,
        caller: &Connection,
        case: Case,
        prepared: &cases::Prepared,
    ) -> Result<zbus::Message, op_dbus_daemon::BusError> {
        let leaves = self.world.polkit.as_ref().filter(|_| answer == Answer::Absent);
        if let Some(polkit) = leaves {
            polkit.leave().await;
        }
        let attempted = cases::attempt(caller, case, prepared).await;
        if let Some(polkit) = leaves {
            polkit.come_back().await;
        }
        attempted
    }

    /// Whether a call is pending that was denied: its number would be one of the journal's.
    async fn ends_a_call(&self, caller: &Connection, news: &[Entry]) -> bool {
        let plugin = cases::plugin(caller).await;
        let around = |entry: &Entry| entry.number.saturating_sub(1)..=entry.number + 1;
        let numbers: BTreeSet<u64> = news.iter().flat_map(around).collect();
        for number in numbers {
            if plugin.finish_call(number, true, "[]".to_owned()).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// What the journal has of somebody that it had not when it was looked at last.
    async fn news(&mut self, sender: &str) -> Vec<Entry> {
        let news = self.journal.news().await;
        for entry in news.iter().filter(|entry| entry.kind == "denial") {
            if entry.action.starts_with("read") {
                *self.reading_denied.entry(entry.sender.clone()).or_default() += 1;
            }
        }
        news.into_iter().filter(|entry| entry.sender == sender).collect()
    }

    fn asked_count(&self, sender: &str) -> usize {
        self.world.polkit.as_ref().map_or(0, |polkit| polkit.asked_about(sender).len())
    }

    /// Ends the service, looks at all there is, and judges.
    fn finish(self) -> Vec<Row> {
        let Self { world, rows, clients, .. } = self;
        if let Some(polkit) = &world.polkit {
            for asked in polkit.asked() {
                assert!(clients.iter().any(|name| asked.is_about(name)), "{asked:?}");
            }
        }
        let (store, _place) = world.end();
        let mut records: Vec<JournalRecord> = Vec::new();
        store
            .journal(1, |record| {
                records.push(record);
                true
            })
            .unwrap();
        for intent in records.iter().filter(|record| record.kind == "intent") {
            let has_outcome = records.iter().any(|record| record.intent == Some(intent.number));
            assert!(has_outcome, "{intent:?}");
        }
        judge::print_table(&rows);
        let complaints = judge::complaints(&rows);
        let shown = &complaints[..complaints.len().min(SHOWN_COUNT)];
        assert!(complaints.is_empty(), "{} are wrong:\n{}", complaints.len(), shown.join("\n"));
        rows
    }
}
