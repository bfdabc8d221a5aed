//! Collections as a whole: listed, shown, made and dropped.

use std::fmt::Write;
use std::fs;
use std::ops::ControlFlow;

use op_dbus_engine::{
    CollectionOptions, Encoding, ErrorKind, LinkOptions, Metric, Payload, Profile, Query, Record,
    ScrubOptions, Store, StoreConfig,
};
use serde_json::json;
use support::program::Workplace;
use support::scratch;

fn workplace() -> Workplace {
    Workplace::new(env!("CARGO_BIN_EXE_op-dbus"))
}

#[test]
fn what_is_made_is_listed_and_shown() {
    let place = workplace();
    let _ = place.op(["collection", "list", "--json"]).run().refused(3, &["no store"]);
    let images =
        ["collection", "create", "images", "--dimensions", "3", "--metric", "dot", "--encoding"];
    let create = |encoding| [&images[..], &[encoding, "--json"]].concat();
    let none = ["collection", "create", "none", "--dimensions", "0", "--json"];
    let _ = place.op(none).run().refused(4, &["none cannot have vectors of 0"]);
    let made = |is_new: bool| json!({ "collection": "images", "created": is_new });
    assert_eq!(place.done(create("i8")).json(), made(true));
    assert_eq!(place.done(create("i8")).json(), made(false));
    let _ = place.op(create("f32")).run().refused(4, &["images"]);
    place.done(["collection", "create", "hosts", "--versions", "3"]);
    let listed = place.done(["collection", "list", "--json"]).json();
    let [hosts, images] = [0, 1].map(|index| listed["collections"][index].clone());
    assert_eq!((&hosts["name"], &hosts["versions_kept"]), (&json!("hosts"), &json!(3)));
    assert_eq!((&hosts["dimensions"], &hosts["records"]), (&json!(0), &json!(0)));
    assert_eq!((&images["metric"], &images["encoding"]), (&json!("dot"), &json!("i8")));
    assert_eq!(place.done(["collection", "show", "images", "--json"]).json(), images);
    let shown = place.done(["collection", "show", "images"]).text();
    assert!(shown.contains("\nvectors      3 dimensions, given, as i8\n"), "{shown}");
    assert!(shown.lines().all(|line| line.len() <= 80), "{shown}");
    let lines = place.done(["collection", "list"]).text();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    let _ = place.op(["collection", "show", "no", "--json"]).run().refused(3, &["collection no"]);
    for wrong in
        [&["--dimensions", "x"][..], &["--metric", "dot"], &["--of-model", "--dimensions", "3"]]
    {
        let command = [&["collection", "create", "wrong", "--json"], wrong].concat();
        let _ = place.op(command).run().exited(2);
    }
}

#[test]
fn a_collection_is_dropped_when_that_is_confirmed() {
    let place = workplace();
    let mut lines = String::new();
    for number in 0..3_000 {
        let vector = [number as f32, 1.0];
        writeln!(lines, "{}", json!({ "key": number.to_string(), "vector": vector })).unwrap();
    }
    place.file("vectors.jsonl", lines);
    place.done(["index", "vectors.jsonl", "--collection", "vectors"]);
    let drop = ["collection", "drop", "vectors", "--json"];
    let told = place.op(drop).run().refused(2, &["all its records"]);
    assert!(told.contains("--confirm"), "{told}");
    assert_eq!(place.done(["collection", "show", "vectors", "--json"]).json()["records"], 3_000);
    let confirmed = [&drop[..], &["--confirm"]].concat();
    let dropped = place.done(&confirmed).json();
    assert_eq!(dropped, json!({ "collection": "vectors", "records": 3_000 }));
    assert_eq!(place.op(["collection", "list"]).run().exited(1).text(), "");
    let _ = place.op(&confirmed).run().refused(3, &["no collection vectors"]);
    // The name is free, and nothing of what it had comes back.
    place.file("vectors.jsonl", "{\"key\":\"1\",\"vector\":[1,2,3]}\n");
    place.done(["index", "vectors.jsonl", "--collection", "vectors"]);
    assert_eq!(place.done(["collection", "show", "vectors", "--json"]).json()["records"], 1);
    let _ = place.done(["scrub"]);
}

#[test]
fn nothing_of_a_dropped_collection_comes_back() {
    let directory = scratch::on_disk();
    let open = || Store::open(StoreConfig::new(directory.path())).unwrap();
    let store = open();
    let given =
        CollectionOptions::Given { dimensions: 2, metric: Metric::Cosine, encoding: Encoding::F32 };
    store.create_collection_with_versions("dropped", given, 5).unwrap();
    for number in 0..500 {
        let record = Record {
            payload: Payload::Json(format!("{{\"n\":{number}}}").into()),
            expires_at_unix_ms: (number % 2 == 0).then_some(4_000_000_000_000),
            ..Record::new(format!("{number}")).with_vector(vec![number as f32, 1.0])
        };
        store.put("dropped", &record).unwrap();
        store.put("kept", &Record::new(format!("{number}"))).unwrap();
    }
    let options = LinkOptions { profile: Profile::Compact, threads: 1.try_into().unwrap() };
    store.link("dropped", options, &mut |_, _| Ok(())).unwrap();
    let before = store.last_sequence();
    // One that is ended has removed a part, and is gone on with.
    let mut parts = 0;
    let ended = store.drop_collection("dropped", &mut |_| {
        parts += 1;
        let ended = op_dbus_engine::Error::new(ErrorKind::Busy, "ended");
        if parts == 2 { Err(ended) } else { Ok(()) }
    });
    assert_eq!(ended.unwrap_err().to_string(), "ended");
    assert_eq!(store.drop_collection("dropped", &mut |_| Ok(())).unwrap(), 0);
    assert_eq!(store.last_sequence(), before + 500);
    let check = |store: &Store| {
        let error = store.get("dropped", b"1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let names: Vec<_> = store.collections().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["kept"]);
        let report =
            store.scrub(&ScrubOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(report.faults, []);
    };
    check(&store);
    store.close();
    let graphs = fs::read_dir(directory.path().join("@vectors")).unwrap();
    let names = graphs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.ends_with(".graph")));
    let store = open();
    check(&store);
    // Its id does not come back either: the next one has no history that was another's.
    store.create_collection_with_versions("next", given, 5).unwrap();
    assert!(store.history("next", b"1").unwrap().is_empty());
    store.put("next", &Record::new("1").with_vector(vec![1.0, 0.0])).unwrap();
    assert_eq!(store.history("next", b"1").unwrap().len(), 1);
    let found = store.search(&Query::vector([1.0, 0.0]).limit(9)).unwrap();
    assert_eq!(found.hits.len(), 1);
    store.close();
}
