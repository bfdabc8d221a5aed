//! Whatever is encoded comes back, whatever it is.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::borrow::Cow;

use op_dbus_formats::embedding::{self, EncodedEmbedding, Encoding, Packing};
use op_dbus_formats::exchange::jsonl::{self, ExchangeRecord};
use op_dbus_formats::{
    Change, CollectionId, CollectionSpec, EmbeddingSource, ModelFingerprint, Operation, Payload,
    Record, StoreFile, change, document,
};
use proptest::prelude::*;

fn any_payload() -> impl Strategy<Value = Payload<'static>> {
    prop_oneof![
        Just(Payload::None),
        any_json().prop_map(|json| Payload::Json(json.into())),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Payload::Bytes(bytes.into())),
    ]
}

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<f64>()
            .prop_filter("JSON has no infinity", |number| number.is_finite())
            .prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop::collection::vec(inner, 0..3).prop_map(|values| format!("[{}]", values.join(" , ")))
    })
}

fn any_finite() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |number| number.is_finite())
}

prop_compose! {
    fn any_record()(
        payload in any_payload(),
        text in any::<Option<String>>(),
        embedding in prop_oneof![
            Just(EmbeddingSource::None),
            Just(EmbeddingSource::Given),
            Just(EmbeddingSource::Text),
        ],
        expires_at_unix_ms in any::<Option<u64>>(),
    ) -> Record<'static> {
        Record { payload, text: text.map(Cow::Owned), embedding, expires_at_unix_ms }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn records_come_back(record in any_record()) {
        let bytes = record.encode().unwrap();
        prop_assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn documents_come_back(json in any_json()) {
        // Regular white space, and something to save.
        let ballast = ",\"0123456789abcdefghij\"".repeat(4 + json.len() / 8);
        let json = format!("[{}{ballast}]", json.replace(" , ", ","));
        let bytes = document::encode(&json).unwrap();
        prop_assert_eq!(document::decode(&bytes, json.len()), Ok(json));
    }

    #[test]
    fn changes_come_back(
        changes in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 1..50), any::<u32>(), any::<bool>()),
            1..20,
        ),
    ) {
        let changes: Vec<Change<'_>> = changes
            .iter()
            .map(|(key, collection, put)| Change {
                operation: if *put { Operation::Put } else { Operation::Remove },
                collection: CollectionId(*collection),
                key,
            })
            .collect();
        let bytes = change::encode(&changes).unwrap();
        prop_assert_eq!(change::decode(&bytes), Ok(changes));
    }

    #[test]
    fn collections_come_back(
        id in any::<u32>(),
        dimensions in 1_u32..=65_536,
        metric in 1_u8..=3,
        encoding in 1_u8..=3,
        model in any::<Option<[u8; 16]>>(),
        created_unix_ms in any::<u64>(),
        versions_kept in any::<u16>(),
    ) {
        let spec = CollectionSpec {
            id: CollectionId(id),
            dimensions,
            metric: metric.try_into().unwrap(),
            encoding: encoding.try_into().unwrap(),
            model: model.map(ModelFingerprint),
            created_unix_ms,
            versions_kept,
        };
        prop_assert_eq!(CollectionSpec::decode(&spec.encode().unwrap()), Ok(spec));
    }

    #[test]
    fn store_files_come_back(
        store_id in any::<[u8; 16]>().prop_filter("filled in", |id| *id != [0; 16]),
        hash_seed in any::<u64>(),
        created_unix_ms in any::<u64>(),
    ) {
        let store = StoreFile { store_id, hash_seed, created_unix_ms };
        prop_assert_eq!(StoreFile::decode(&store.encode().unwrap()), Ok(store));
    }

    #[test]
    fn vectors_come_back_with_every_bit(vector in prop::collection::vec(any_finite(), 1..600)) {
        for packing in [Packing::Plain, Packing::Planes] {
            let bytes = embedding::encode(&vector, Encoding::F32, packing).unwrap();
            let decoded = EncodedEmbedding::parse(&bytes).unwrap().to_vec().unwrap();
            let bits = |vector: &[f32]| vector.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&decoded), bits(&vector));
        }
    }

    #[test]
    fn exchanged_records_come_back(
        key in prop_oneof![
            any::<String>().prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 1..20),
        ].prop_filter("a key", |key| !key.is_empty()),
        text in any::<Option<String>>(),
        vector in prop::option::of(prop::collection::vec(any_finite(), 1..40)),
        payload in any_payload(),
        expires_at_unix_ms in any::<Option<u64>>(),
    ) {
        prop_assume!(text.is_some() || vector.is_some() || payload != Payload::None);
        let record = ExchangeRecord {
            key: Cow::Owned(key),
            text: text.map(Cow::Owned),
            vector,
            payload,
            expires_at_unix_ms,
        };
        let mut line = Vec::new();
        jsonl::render_line(&record, &mut line).unwrap();
        let parsed = jsonl::parse_line(&line, 1).unwrap();
        let bits = |record: &ExchangeRecord<'_>| {
            let vector = record.vector.as_ref()?;
            Some(vector.iter().map(|number| number.to_bits()).collect::<Vec<_>>())
        };
        prop_assert_eq!(bits(&parsed), bits(&record));
        prop_assert_eq!(parsed, record);
    }
}
