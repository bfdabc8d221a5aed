//! The corpus of the fuzz targets, and bytes of any kind, through the same functions
//! on the stable compiler.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use support::fuzz::TARGETS;

/// The corpus is copied with every clone.
const CORPUS_LEN_MAX_BYTES: u64 = 200 << 10;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

#[test]
fn every_input_of_the_corpus_holds() {
    let mut corpus_len_bytes = 0;
    for (name, target) in TARGETS {
        let inputs: Vec<_> =
            fs::read_dir(corpus().join(name)).unwrap().map(Result::unwrap).collect();
        assert!(inputs.len() > 2, "the corpus of {name} has {} inputs", inputs.len());
        for input in inputs {
            // Shown only if the target panics.
            println!("{}", input.path().display());
            let data = fs::read(input.path()).unwrap();
            corpus_len_bytes += data.len() as u64;
            target(&data);
        }
    }
    assert!(corpus_len_bytes <= CORPUS_LEN_MAX_BYTES, "{corpus_len_bytes} bytes");
}

#[test]
fn every_folder_of_the_corpus_and_every_fuzz_target_is_known() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |folder: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(corpus()), known);
    assert_eq!(names(corpus().join("../../fuzz/fuzz_targets")), known);
}

#[test]
fn every_prefix_of_every_input_holds() {
    for (name, target) in TARGETS {
        for input in fs::read_dir(corpus().join(name)).unwrap() {
            let data = fs::read(input.unwrap().path()).unwrap();
            // Long inputs are cut at some places only: the cost is quadratic.
            let step = 1 + data.len() / 500;
            for len in (0..data.len()).step_by(step) {
                target(&data[..len]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn bytes_of_any_kind_hold(data in prop::collection::vec(any::<u8>(), 0..300)) {
        for (_, target) in TARGETS {
            target(&data);
        }
    }

    #[test]
    fn inputs_with_altered_bytes_hold(
        input in any::<prop::sample::Index>(),
        alterations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        for (name, target) in TARGETS {
            let mut inputs: Vec<PathBuf> =
                fs::read_dir(corpus().join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
            inputs.sort();
            let mut data = fs::read(&inputs[input.index(inputs.len())]).unwrap();
            for (place, byte) in &alterations {
                if !data.is_empty() {
                    let place = place.index(data.len());
                    data[place] = *byte;
                }
            }
            target(&data);
        }
    }
}
