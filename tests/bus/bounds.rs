//! What one sender may ask for, and messages that nobody should send: whoever sends them is refused,
//! and all others are served.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use op_dbus_daemon::{BusError, Limits};
use support::bus::{NAME, PATH, Served, connect_to_socket, open_directory};
use support::random::Random;
use tokio::task::JoinSet;
use zbus::{Array, Connection, Message, Signature, Variant};

use crate::life::PATIENCE;
use crate::{INVALID, LIMITS_EXCEEDED, World, call, daemon, put, state, workplace};

/// Odd messages of each kind.
const ODD_COUNT: usize = 200;

/// How answers ended, by the name of their error; `done` for those without.
fn names<T>(answers: impl IntoIterator<Item = Result<T, BusError>>) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for answer in answers {
        let name = answer.map_or_else(|error| error.name().to_owned(), |_| "done".to_owned());
        *names.entry(name).or_default() += 1;
    }
    names
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused() {
    let World { served, bus, place: _place } = World::plain();
    let connection = bus.connect().await;
    let limit = Limits::default().message_len_max_bytes as usize;
    let document = format!("\"{}\"", "a".repeat(limit));
    let put = state(&connection).await.put("long".to_owned(), document).await;
    assert_eq!(put.unwrap_err().name(), LIMITS_EXCEEDED);
    assert!(crate::put(&connection, "short").await.is_ok());
    let _ = served.terminate().succeeded();
}

/// Embedding many texts takes a while, however fast the machine.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_too_many_calls_at_once_is_refused_and_others_are_served() {
    let World { served, bus, place: _place } = World::with_fable(&["--calls-at-once", "3"]);
    let (greedy, modest) = (bus.connect().await, bus.connect().await);
    let mut calls = JoinSet::new();
    for sent in 0..40 {
        let greedy = greedy.clone();
        let texts: Vec<_> =
            (0..200).map(|n| format!("{sent} {n} {}", "word ".repeat(50))).collect();
        calls.spawn(async move { call(&greedy, "Cache1", "Embed", &texts).await });
    }
    // The first refusal shows that three are at work.
    let mut answers = vec![calls.join_next().await.unwrap().unwrap()];
    assert_eq!(names([answers.pop().unwrap()]), [(LIMITS_EXCEEDED.to_owned(), 1)].into());
    put(&modest, "key").await.unwrap();
    answers.extend(calls.join_all().await);
    let names = names(answers);
    assert_eq!(names.keys().collect::<Vec<_>>(), ["done", LIMITS_EXCEEDED]);
    assert!(names["done"] >= 3, "{names:?}");
    // It is served again, too.
    assert!(call(&greedy, "Cache1", "Embed", &vec!["text"]).await.is_ok());
    let _ = served.terminate().succeeded();
}

/// Whoever asks one after the other waits, and is never refused.
#[tokio::test(flavor = "multi_thread")]
async fn changes_and_calls_in_a_second_are_bounded() {
    let World { served, bus, place: _place } = World::with(&["--calls-per-second", "200"]);
    let limits = Limits::default();
    let least = |count: u32, burst: u32, per_second: u32| {
        Duration::from_secs(1) * count.saturating_sub(burst) / per_second
    };
    let connection = bus.connect().await;
    let (began, changes_count) = (Instant::now(), limits.changes_burst_count + 30);
    for _ in 0..changes_count {
        put(&connection, "key").await.unwrap();
    }
    let bound = least(changes_count, limits.changes_burst_count, limits.changes_per_second_count);
    assert!(began.elapsed() >= bound, "{:?} for {changes_count} changes", began.elapsed());

    let other = bus.connect().await;
    let began = Instant::now();
    for _ in 0..10 {
        let mut calls = JoinSet::new();
        for _ in 0..20 {
            let other = other.clone();
            calls.spawn(async move { call(&other, "State1", "Get", &"key").await });
        }
        assert_eq!(names(calls.join_all().await), [("done".to_owned(), 20)].into());
    }
    assert!(began.elapsed() >= least(200, 20, 200), "{:?} for 200 calls", began.elapsed());
    let _ = served.terminate().succeeded();
}

/// A bus lets its members wait for few answers at the same time. Members that nobody knows yet, all
/// of whose first calls come at once, must not use up those of the service.
#[tokio::test(flavor = "multi_thread")]
async fn first_calls_that_come_all_at_once_are_answered_and_let_others_in() {
    let (place, bus) =
        (workplace(), support::bus::PrivateBus::start(support::bus::BusLimits::OfSystem));
    let served = Served::start(daemon(&place).arguments(["--calls-at-once", "1000"]), &bus);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(bus.connect().await);
    }
    let mut calls = JoinSet::new();
    for client in &clients {
        for _ in 0..100 {
            let client = client.clone();
            calls.spawn(async move { call(&client, "State1", "Get", &"nothing").await });
        }
    }
    let names = names(calls.join_all().await);
    assert_eq!(names, [("org.opdbus.Error.NotFound".to_owned(), 2000)].into());
    let _ = served.terminate().succeeded();
}

#[tokio::test]
async fn unknown_options_and_wrong_types_are_refused() {
    let World { served, bus, place: _place } = World::with_vector();
    let connection = bus.connect().await;
    let vector = || Variant::from(vec![1.0, 0.0]);
    let wrong = [
        ("limt", Variant::from(1_u32)),
        ("", Variant::from(1_u32)),
        ("limit", Variant::from(1_i32)),
        ("limit", Variant::from("1")),
        ("limit", nested(1)),
        ("min-score", Variant::from(1_u32)),
        ("recall", Variant::from("0.9")),
        ("recall", Variant::from(f64::NAN)),
        ("recall", Variant::from(2.0)),
        ("exact", Variant::from(1_u32)),
        ("filter", Variant::from(1_u32)),
        ("filter", Variant::from("kind =")),
        ("filter", Variant::from(vec!["kind"])),
        ("collections", Variant::from("state")),
        ("collections", Variant::from(vec![1_u32])),
    ];
    for (name, value) in wrong {
        let shown = format!("{name}: {value:?}");
        let options: HashMap<&str, Variant<'_>> = [(name, value)].into();
        let answer = call(&connection, "Query1", "Similar", &(vector(), &options)).await;
        assert_eq!(answer.expect_err(&shown).name(), INVALID, "{shown}");
    }
    let none: HashMap<&str, Variant<'_>> = [].into();
    for target in [
        Variant::from("text"),
        Variant::from(vec![1_u32]),
        Variant::from(vec![1_u8, 2, 3]),
        Variant::from(vec![f64::NAN, 0.0]),
        Variant::from(("state", 1_u32)),
        Variant::from(("state", "key", "more")),
    ] {
        let shown = format!("{target:?}");
        let answer = call(&connection, "Query1", "Similar", &(target, &none)).await;
        assert_eq!(answer.expect_err(&shown).name(), INVALID, "{shown}");
    }
    let _ = served.terminate().succeeded();
}

/// A value in a value, so often.
fn nested(depth: usize) -> Variant<'static> {
    (0..depth).fold(Variant::from(1_u8), |inner, _| Variant::Variant(Box::new(inner)))
}

/// A value of any type, some of them large.
fn odd(random: &mut Random) -> Variant<'static> {
    match random.below(10) {
        0 => Variant::from(vec![String::new(); random.below(200_000)]),
        1 => nested(random.below(50)),
        2 => Variant::from(vec![0_u8; random.below(1 << 20)]),
        3 => Variant::from("\u{1f9ed}\u{0}".replace('\0', "\n").repeat(random.below(1000))),
        4 => Variant::from(f64::NAN),
        5 => Variant::from(Array::new(&Signature::Variant)),
        6 => Variant::from(u64::MAX),
        7 => Variant::from((nested(3), "", i64::MIN)),
        8 => Variant::from(HashMap::from([("limit", Variant::from(u32::MAX))])),
        _ => Variant::from(vec![nested(2); random.below(1000)]),
    }
}

async fn send_odd(connection: &Connection, random: &mut Random) -> Result<Message, BusError> {
    const METHODS: [(&str, &str); 12] = [
        ("Query1", "Search"),
        ("Query1", "Similar"),
        ("Query1", "Get"),
        ("Query1", "Explain"),
        ("Cache1", "Embed"),
        ("Cache1", "Get"),
        ("Cache1", "Put"),
        ("Cache1", "Evict"),
        ("State1", "Get"),
        ("State1", "Put"),
        ("Snapshot1", "Delete"),
        ("No1", "No"),
    ];
    let (interface, method) = METHODS[random.below(METHODS.len())];
    let options = HashMap::from([("limit", odd(random)), ("collections", odd(random))]);
    match random.below(7) {
        0 => call(connection, interface, method, &odd(random)).await,
        1 => call(connection, interface, method, &(odd(random), odd(random))).await,
        2 => call(connection, interface, method, &("text", options)).await,
        3 => call(connection, interface, method, &(odd(random), options)).await,
        4 => call(connection, interface, method, &vec![""; random.below(100_000)]).await,
        5 => call(connection, interface, method, &()).await,
        _ => call(connection, interface, method, &("a\nb", "[".repeat(100_000))).await,
    }
}

#[tokio::test]
async fn odd_messages_are_answered_and_change_nothing_for_others() {
    let World { mut served, bus, place: _place } = World::with_vector();
    let mut random = Random::new(7);
    let (odd, other) = (bus.connect().await, bus.connect().await);
    for number in 0..ODD_COUNT {
        let sent = tokio::time::timeout(PATIENCE, send_odd(&odd, &mut random)).await;
        // One that cannot even be sent, or that the bus itself refuses, is no more than that.
        let answer = sent.unwrap_or_else(|_| panic!("message {number} has no answer"));
        if let Err(error) = answer {
            assert_ne!(error.name(), "org.opdbus.Error.Io", "{number}: {error:?}");
        }
    }
    assert!(served.is_alive());
    put(&other, "key").await.unwrap();
    let ended = served.terminate().succeeded();
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    let mebibytes = ended.peak_memory_bytes >> 20;
    assert!(mebibytes < 1024, "{mebibytes} MiB");
}

/// A value for each element of an array would take a hundred times its length.
#[tokio::test]
async fn long_values_that_nobody_wants_take_no_room() {
    let World { served, bus, place: _place } = World::with_vector();
    let connection = bus.connect().await;
    let long = || Variant::from(vec![0_u8; 8 << 20]);
    let options = HashMap::from([("long", long())]);
    let search = call(&connection, "Query1", "Search", &("text", options)).await;
    assert_eq!(search.unwrap_err().name(), INVALID);
    let none: HashMap<&str, Variant<'_>> = [].into();
    assert!(call(&connection, "Query1", "Similar", &(long(), none)).await.is_err());
    assert!(call(&connection, "Cache1", "Put", &("text", long())).await.is_err());
    let mebibytes = served.terminate().succeeded().peak_memory_bytes >> 20;
    assert!(mebibytes < 300, "{mebibytes} MiB");
}

/// Says who it is, as a client of D-Bus does before its first message.
fn authenticated(path: &std::path::Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\n").unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n") || !said.windows(3).any(|word| word == b"OK ") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    stream.write_all(b"BEGIN\r\n").unwrap();
    stream
}

/// No bus stands between: these bytes reach the service as they are.
#[test]
fn damaged_bytes_at_a_socket_hurt_nobody_else() {
    let place = workplace();
    let (_directory, path) = open_directory();
    let path = path.join("socket");
    let served = Served::at_socket(daemon(&place), &path);
    let options: HashMap<&str, Variant<'_>> = [("limit", Variant::from(1_u32))].into();
    let message = Message::method_call(PATH, "Similar")
        .destination(NAME)
        .interface("org.opdbus.Query1")
        .build(&(Variant::from(vec![1.0, 2.0]), options))
        .unwrap();
    let whole = message.data().to_vec();
    let mut random = Random::new(11);
    for number in 0..ODD_COUNT {
        let mut bytes = whole.clone();
        match number % 4 {
            0 => bytes.truncate(random.below(bytes.len())),
            1 => bytes.fill_with(|| random.below(256) as u8),
            _ => {
                for _ in 0..=random.below(4) {
                    let at = random.below(bytes.len());
                    bytes[at] = random.below(256) as u8;
                }
            }
        }
        // It may close its end at any time.
        let mut stream = authenticated(&path);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let connection = connect_to_socket(&path).await.unwrap();
        let put = tokio::time::timeout(Duration::from_secs(60), put(&connection, "key"));
        put.await.unwrap().unwrap();
    });
    let ended = served.terminate().succeeded();
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}
