//! What the service costs on a bus: many clients, one client beside a service that does nothing, and
//! clients beside one that floods.
//!
//! `cargo bench --profile release -p op-dbus-benches --bench bus -- --model DIR [--clients 200]
//! [--seconds 10]`. Bus, services and the one that floods are processes of their own; the clients
//! are this one.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::StreamExt;
use op_dbus_benches::traffic::{DIMENSIONS, Numbers, VALUE_BYTES, fill_vector};
use op_dbus_engine::{EmbedderConfig, Record, Store, StoreConfig};
use support::bus::{BusLimits, NAME, PATH, PrivateBus, Served};
use support::program::{Invocation, beside_this};
use tokio::task::JoinSet;
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream, Variant};

/// Texts that are asked for, all of them in the cache.
const QUERIES_COUNT: u64 = 1000;
/// Texts that are like one another.
const SIMILAR_COUNT: u32 = 20;
const ECHO_NAME: &str = "org.opdbus.bench.Echo";
const ECHO_PATH: &str = "/echo";
/// How often the service and the empty one take turns.
const TURNS_COUNT: u32 = 50;
/// Clients beside one that floods, and what each asks for in a second.
const MODEST_CLIENTS_COUNT: usize = 20;
const MODEST_RATE_HZ: u32 = 20;
/// Calls in a second of one that floods no faster than this: more than twice what it may.
const FLOOD_RATE_HZ: u32 = 5000;
/// How often all that may be beside them takes turns, so that a busy machine disturbs it alike.
const FLOOD_TURNS_COUNT: u32 = 5;
/// What the median of one client may be of that of the empty service.
const ECHO_RATIO_MAX: f64 = 1.5;
/// What the 99th percentile may be beside one that floods, of what it is without.
const FLOOD_RATIO_MAX: f64 = 2.0;

/// Measures the service on a bus.
#[derive(Parser)]
struct Arguments {
    /// Directory of the model, which nothing is computed by
    #[arg(long)]
    model: Option<PathBuf>,
    /// The program op-dbus; by default that which was built beside this
    #[arg(long)]
    executable: Option<PathBuf>,
    /// Clients at the same time
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Records in the store
    #[arg(long, default_value_t = 20_000)]
    records: u32,
    /// Is the empty service, on the bus at this address
    #[arg(long, hide = true)]
    echo: Option<String>,
    /// Is the client that floods, on the bus at this address, and for so many seconds
    #[arg(long, hide = true)]
    flood: Option<String>,
    /// The same, with calls of a name that nobody has
    #[arg(long, hide = true)]
    flood_nobody: Option<String>,
    /// Calls in a second of the client that floods; 0 for as many as it can
    #[arg(long, hide = true, default_value_t = 0)]
    rate: u32,
    /// What `cargo bench` says
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let seconds = Duration::from_secs(arguments.seconds);
    if let Some(address) = &arguments.echo {
        return echo(address).await;
    }
    if let Some(address) = &arguments.flood {
        return flood(address, [Question::Search, Question::Get], arguments.rate, seconds).await;
    }
    if let Some(address) = &arguments.flood_nobody {
        return flood(address, [Question::Nobody; 2], arguments.rate, seconds).await;
    }
    let Some(model) = &arguments.model else {
        println!("bus: give --model DIR to measure");
        return;
    };
    let directory = tempfile::tempdir().expect("a directory can be made");
    let store = directory.path().join("store");
    fill(&store, model, arguments.records);
    let executable = arguments.executable.clone().unwrap_or_else(beside_this);
    let op = |words: &[&str]| {
        let global = ["--store".as_ref(), store.as_os_str(), "--model".as_ref(), model.as_os_str()];
        Invocation::new(&executable).arguments(global).arguments(words)
    };
    let _ = op(&["link", "records"]).run().succeeded();
    // What is on this machine is not what is measured, and is not embedded meanwhile.
    let nothing = directory.path().join("nothing");
    let daemon = |words: &[&str]| {
        op(&["daemon", "--index-live=false", "--interfaces"]).arguments([&nothing]).arguments(words)
    };
    let bus = PrivateBus::start(BusLimits::Raised);
    let unbounded = ["--calls-at-once", "100000", "--calls-per-second", "100000000"];
    let served = Served::start(daemon(&unbounded), &bus);
    many_clients(&bus, arguments.clients, seconds).await;
    let is_cheap = one_client(&bus, seconds).await;
    tokio::task::block_in_place(|| drop(served.terminate().succeeded()));

    // One as the system's: it lets a member wait for 128 answers, and keeps the rest from the service.
    let bus = PrivateBus::start(BusLimits::OfSystem);
    let served = Served::start(daemon(&[]), &bus);
    let is_fair = beside_a_flood(&bus, seconds).await;
    tokio::task::block_in_place(|| drop(served.terminate().succeeded()));
    println!("{}", if is_cheap && is_fair { "all bars hold" } else { "NOT all bars hold" });
}

fn text(index: u64) -> String {
    format!("what is known of number {index}")
}

/// The vector of a text: as those of people's texts, near some others and far from the rest.
fn embedding(index: u32) -> Vec<f32> {
    let (mut vector, mut own) = (vec![0.0; DIMENSIONS], vec![0.0; DIMENSIONS]);
    fill_vector(u32::MAX - index / SIMILAR_COUNT, &mut vector);
    fill_vector(index, &mut own);
    vector.iter_mut().zip(own).for_each(|(element, own)| *element += own);
    let length = vector.iter().map(|element| element * element).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|element| *element /= length);
    vector
}

/// Makes a store of records with texts, whose vectors are given, and no model ever made.
fn fill(base: &Path, model: &Path, records_count: u32) {
    let config = StoreConfig::new(base).with_embedder(EmbedderConfig::new(model.to_owned()));
    let store = Store::open(config).expect("a store can be made");
    let texts_count = records_count.max(QUERIES_COUNT as u32);
    for index in 0..texts_count {
        let vector = embedding(index);
        store.put_embedding(&text(index.into()), &vector).expect("a vector can be put");
    }
    let records: Vec<Record> = (0..records_count)
        .map(|index| Record::new(format!("record/{index}")).with_text(text(index.into())))
        .collect();
    for part in records.chunks(1000) {
        store.put_batch("records", part).expect("records can be put");
    }
    store.close();
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// The ten records nearest to a text whose embedding is in the cache.
    Search,
    /// The embedding of a text, which is in the cache.
    Get,
    /// As many bytes as an embedding has, there and back, of the empty service.
    Echo,
    /// As many bytes for a text, of the empty service.
    Answer,
    /// The same of a name that nobody has: the bus itself refuses it.
    Nobody,
}

impl Question {
    fn name(self) -> &'static str {
        match self {
            Self::Search => "Query1.Search",
            Self::Get => "Cache1.Get",
            Self::Echo => "empty: Echo",
            Self::Answer => "empty: Answer",
            Self::Nobody => "nobody",
        }
    }

    /// Whom it is for: name, path, interface and method.
    fn place(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Search => (NAME, PATH, "org.opdbus.Query1", "Search"),
            Self::Get => (NAME, PATH, "org.opdbus.Cache1", "Get"),
            Self::Echo => (ECHO_NAME, ECHO_PATH, ECHO_NAME, "Echo"),
            Self::Answer => (ECHO_NAME, ECHO_PATH, ECHO_NAME, "Answer"),
            Self::Nobody => ("org.opdbus.bench.Nobody", ECHO_PATH, ECHO_NAME, "Answer"),
        }
    }

    /// Asks for number `index`, and waits for the answer, which is not looked into.
    async fn ask(self, connection: &Connection, index: u64) -> zbus::Result<Message> {
        let (name, path, interface, method) = self.place();
        let (name, interface) = (Some(name), Some(interface));
        let text = text(index % QUERIES_COUNT);
        match self {
            Self::Search => {
                let body = (text, HashMap::<&str, Variant<'_>>::new());
                connection.call_method(name, path, interface, method, &body).await
            }
            Self::Get | Self::Answer | Self::Nobody => {
                connection.call_method(name, path, interface, method, &text).await
            }
            Self::Echo => {
                let text = "a".repeat(VALUE_BYTES);
                connection.call_method(name, path, interface, method, &text).await
            }
        }
    }
}

/// What was measured of a question.
#[derive(Default)]
struct Measured {
    /// Microseconds that each answer took.
    us: Vec<f64>,
    refused_count: u64,
}

impl Measured {
    fn add(&mut self, started: Instant, answer: &zbus::Result<Message>) {
        match answer {
            Ok(_) => self.us.push(started.elapsed().as_secs_f64() * 1e6),
            Err(zbus::Error::MethodError(..)) => self.refused_count += 1,
            Err(error) => panic!("the bus does not work: {error}"),
        }
    }

    fn join(&mut self, other: Self) {
        self.us.extend(other.us);
        self.refused_count += other.refused_count;
    }

    /// Prints it, and returns the median and the 99th percentile.
    fn print(&mut self, name: &str, seconds: f64) -> (f64, f64) {
        let answered = self.us.len();
        let mut at = |per_mille: usize| {
            self.us.sort_unstable_by(f64::total_cmp);
            self.us[(answered * per_mille / 1000).min(answered - 1)]
        };
        let (p50, p99, p999) = (at(500), at(990), at(999));
        let (rate, refused) = (answered as f64 / seconds, self.refused_count);
        println!(
            "{name:<28} {rate:>8.0} req/s  p50 {p50:>8.0} us  p99 {p99:>8.0} us  \
             p99.9 {p999:>8.0} us  {answered} answered, {refused} refused"
        );
        (p50, p99)
    }
}

async fn connect_all(bus: &PrivateBus, count: usize) -> Vec<Connection> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(bus.connect().await);
    }
    connections
}

/// Each connection asks again when it has its answer.
async fn closed_loop(connections: &[Connection], question: Question, time: Duration) -> Measured {
    let deadline = Instant::now() + time;
    let mut clients = JoinSet::new();
    for (seed, connection) in connections.iter().cloned().enumerate() {
        clients.spawn(async move {
            let (mut measured, mut numbers) = (Measured::default(), Numbers::new(seed as u64));
            while Instant::now() < deadline {
                let (index, started) = (numbers.next(), Instant::now());
                let answer = question.ask(&connection, index).await;
                measured.add(started, &answer);
            }
            measured
        });
    }
    joined(clients).await
}

async fn joined(mut clients: JoinSet<Measured>) -> Measured {
    let mut all = Measured::default();
    while let Some(measured) = clients.join_next().await {
        all.join(measured.expect("a client that ends"));
    }
    all
}

async fn many_clients(bus: &PrivateBus, count: usize, time: Duration) {
    let _echo = Echo::start(bus).await;
    let connections = connect_all(bus, count).await;
    println!("{count} clients, each of which waits for its answer:");
    for question in [Question::Search, Question::Get, Question::Echo, Question::Answer] {
        // The first call of each asks the bus who it is.
        closed_loop(&connections, question, Duration::from_millis(500)).await;
        let mut measured = closed_loop(&connections, question, time).await;
        let _ = measured.print(question.name(), time.as_secs_f64());
    }
}

/// The service and the empty one in turns, so that a busy machine disturbs them alike.
async fn one_client(bus: &PrivateBus, time: Duration) -> bool {
    const QUESTIONS: [Question; 4] =
        [Question::Search, Question::Get, Question::Echo, Question::Answer];
    let _echo = Echo::start(bus).await;
    let connections = connect_all(bus, 1).await;
    let mut measured: [Measured; 4] = std::array::from_fn(|_| Measured::default());
    let turn = time / TURNS_COUNT;
    for _ in 0..TURNS_COUNT {
        for (question, measured) in QUESTIONS.into_iter().zip(&mut measured) {
            measured.join(closed_loop(&connections, question, turn).await);
        }
    }
    println!("1 client, in {TURNS_COUNT} turns:");
    let mut medians = [0.0; 4];
    for ((question, measured), median) in QUESTIONS.iter().zip(&mut measured).zip(&mut medians) {
        (*median, _) = measured.print(question.name(), time.as_secs_f64());
    }
    let [_, get, echo, answer] = medians;
    let (ratio, strict) = (get / echo, get / answer);
    println!(
        "Cache1.Get to Echo at p50: {ratio:.2} (at most {ECHO_RATIO_MAX}); to Answer: {strict:.2}"
    );
    ratio <= ECHO_RATIO_MAX
}

/// What is beside clients that ask at a fixed rate.
#[derive(Clone, Copy)]
enum Beside {
    Nothing,
    /// As fast as it can, with calls that never reach the service: what of it is the bus's and the
    /// machine's.
    FloodOfNobody,
    /// As fast as it can.
    Flood,
    FloodAtRate,
}

impl Beside {
    const ALL: [Self; 4] = [Self::Nothing, Self::FloodOfNobody, Self::Flood, Self::FloodAtRate];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "alone",
            Self::FloodOfNobody => "beside a flood of nobody",
            Self::Flood => "beside a flood",
            Self::FloodAtRate => "beside a flood at a rate",
        }
    }

    fn start(self, address: &str, time: Duration) -> Option<Child> {
        let (flag, rate_hz) = match self {
            Self::Nothing => return None,
            Self::FloodOfNobody => ("--flood-nobody", 0),
            Self::Flood => ("--flood", 0),
            Self::FloodAtRate => ("--flood", FLOOD_RATE_HZ),
        };
        Some(this_again(&[flag, address, "--rate", &rate_hz.to_string()], time))
    }
}

/// Clients that ask at a fixed rate, without and beside one that does not wait for answers. Returns
/// whether the bar holds for the median of the turns.
async fn beside_a_flood(bus: &PrivateBus, time: Duration) -> bool {
    println!("{MODEST_CLIENTS_COUNT} clients that ask {MODEST_RATE_HZ} times a second each:");
    let connections = connect_all(bus, MODEST_CLIENTS_COUNT).await;
    let asked = [Question::Search, Question::Get];
    at_a_rate(&connections, asked, Duration::from_secs(1)).await;
    let mut p99s: [Vec<f64>; 4] = Default::default();
    let turn = time / 2;
    for _ in 0..FLOOD_TURNS_COUNT {
        for (beside, p99s) in Beside::ALL.into_iter().zip(&mut p99s) {
            let flood = beside.start(&bus.address(), turn + Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(500)).await;
            let mut measured = at_a_rate(&connections, asked, turn).await;
            if let Some(mut flood) = flood {
                let ended = tokio::task::block_in_place(|| flood.wait());
                let ended = ended.expect("it can be waited for");
                assert!(ended.success(), "the client that floods ended: {ended}");
            }
            let (_, p99) = measured.print(beside.name(), turn.as_secs_f64());
            p99s.push(p99);
        }
    }
    let [alone, of_nobody, flood, at_rate] = p99s;
    let of_bus = median_ratio(&of_nobody, &alone);
    let above_bus = median_ratio(&flood, &of_nobody);
    let fastest = median_ratio(&flood, &alone);
    let paced = median_ratio(&at_rate, &alone);
    println!(
        "p99 to that alone, medians of {FLOOD_TURNS_COUNT} turns (below {FLOOD_RATIO_MAX}): beside \
         {FLOOD_RATE_HZ} calls a second {paced:.2}, beside as many as can be {fastest:.2}; if \
         those are of nobody, {of_bus:.2}, to which ours are {above_bus:.2}"
    );
    fastest.max(paced) < FLOOD_RATIO_MAX
}

fn median_ratio(numbers: &[f64], to: &[f64]) -> f64 {
    let mut ratios: Vec<f64> = numbers.iter().zip(to).map(|(number, to)| number / to).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// An answer's time counts from when it should have been asked for: whoever is held up asks late.
async fn at_a_rate(connections: &[Connection], asked: [Question; 2], time: Duration) -> Measured {
    let period = Duration::from_secs(1) / MODEST_RATE_HZ;
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for (seed, connection) in connections.iter().cloned().enumerate() {
        // One after the other, not all at once.
        let mut due = began + period * seed as u32 / connections.len() as u32;
        clients.spawn(async move {
            let (mut measured, mut numbers) = (Measured::default(), Numbers::new(seed as u64));
            while due < began + time {
                tokio::time::sleep_until(due.into()).await;
                let index = numbers.next();
                let answer = asked[index as usize % 2].ask(&connection, index / 2).await;
                measured.add(due, &answer);
                due += period;
            }
            measured
        });
    }
    joined(clients).await
}

/// This program again, as another process.
fn this_again(arguments: &[&str], time: Duration) -> Child {
    Command::new(std::env::current_exe().expect("this is a program"))
        .args(arguments)
        .args(["--seconds", &time.as_secs().to_string()])
        .stdin(Stdio::null())
        .spawn()
        .expect("this program can be started again")
}

/// Asks without waiting, as fast as the bus takes it, and counts what comes back.
///
/// No faster than `rate_hz`, if that is not 0.
async fn flood(address: &str, asked: [Question; 2], rate_hz: u32, time: Duration) {
    let builder = zbus::connection::Builder::address(address);
    let connection = builder.build().await.expect("the bus can be reached");
    let mut stream = MessageStream::from(&connection);
    let counting = tokio::spawn(async move {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        while let Some(Ok(message)) = stream.next().await {
            let name = match message.message_type() {
                Type::MethodReturn => "answered".to_owned(),
                Type::Error => {
                    let name = message.header().error_name().map(ToString::to_string);
                    name.unwrap_or_default()
                }
                _ => continue,
            };
            *counts.entry(name).or_default() += 1;
        }
        counts
    });
    let began = Instant::now();
    let deadline = began + time;
    let mut sent_count = 0_u64;
    while Instant::now() < deadline {
        let question = asked[sent_count as usize % 2];
        let (name, path, interface, method) = question.place();
        let text = text(sent_count % QUERIES_COUNT);
        let call = Message::method_call(path, method).destination(name).interface(interface);
        let message = match question {
            Question::Search => call.build(&(text, HashMap::<&str, Variant<'_>>::new())),
            _ => call.build(&text),
        };
        connection.send(&message.expect("a message")).await.expect("the bus takes it");
        sent_count += 1;
        if rate_hz > 0 {
            let due = began + Duration::from_secs_f64(sent_count as f64 / f64::from(rate_hz));
            tokio::time::sleep_until(due.into()).await;
        }
    }
    connection.close().await.expect("a connection can be closed");
    let counts = counting.await.expect("it ends with the connection");
    println!("the flood: {sent_count} sent in {} s, {counts:?}", time.as_secs());
}

/// The empty service, which has neither gate nor store.
struct Empty(String);

#[zbus::interface(name = "org.opdbus.bench.Echo")]
impl Empty {
    async fn echo(&self, text: String) -> String {
        text
    }

    async fn answer(&self, _text: String) -> String {
        self.0.clone()
    }
}

async fn echo(address: &str) {
    let empty = Empty("a".repeat(VALUE_BYTES));
    let builder = zbus::connection::Builder::address(address).serve_at(ECHO_PATH, empty);
    let connection = builder.name(ECHO_NAME).build().await.expect("the bus can be reached");
    connection.closed().await;
}

/// The process of the empty service. Dropped, it is ended.
struct Echo(Child);

impl Echo {
    async fn start(bus: &PrivateBus) -> Self {
        let this = Self(this_again(&["--echo", &bus.address()], Duration::ZERO));
        let connection = bus.connect().await;
        while Question::Answer.ask(&connection, 0).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        this
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
