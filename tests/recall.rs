//! The embeddings are those of the model, whoever computes them and in whatever company.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use op_dbus_engine::{Embedder, Embedding};
use support::reference::{self, Reference, cosine};
use support::{model, random::Random};

/// What single precision may cost, and no more: other pooling or truncation costs far more.
const COSINE_MIN: f64 = 0.9999;
/// A text in a batch against the same text alone.
const COSINE_MIN_IN_BATCH: f64 = 0.99999;
/// Of all-MiniLM-L6-v2, with its two special tokens.
const TOKENS_MAX: usize = 256;

fn embedder() -> Embedder {
    Embedder::open(&model::config(), None).unwrap()
}

fn embed(embedder: &Embedder, references: &[Reference]) -> Vec<Embedding> {
    let texts: Vec<&str> = references.iter().map(|reference| &reference.text[..]).collect();
    embedder.embed(&texts).unwrap()
}

fn assert_reference(name: &str) {
    let references = reference::read(name);
    let embeddings = embed(&embedder(), &references);
    assert_eq!(embeddings.len(), references.len());
    let worst = references
        .iter()
        .zip(&embeddings)
        .map(|(reference, embedding)| {
            (cosine(&reference.vector, &embedding.vector), &reference.text[..])
        })
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap();
    println!("{name}: {} texts, smallest cosine {:.9}", references.len(), worst.0);
    assert!(worst.0 >= COSINE_MIN, "{name}: cosine {} for {}", worst.0, worst.1);
}

#[test]
fn embeddings_equal_those_of_sentence_transformers() {
    assert_reference("reference");
}

#[test]
fn embeddings_equal_the_reference_in_ten_languages_up_to_500_words() {
    let references = reference::read("language");
    let words = |reference: &Reference| reference.text.split_whitespace().count();
    assert_eq!(references.iter().map(words).min(), Some(1));
    assert!(references.iter().map(words).max() > Some(400), "the test needs long texts");
    assert_reference("language");
}

/// The vectors of the reference differ from each other, so that agreement with it says something.
#[test]
fn the_reference_tells_texts_apart() {
    let references = reference::read("reference");
    let strangers = references.iter().zip(&references[1..]);
    let mean = strangers.clone().map(|(a, b)| cosine(&a.vector, &b.vector)).sum::<f64>()
        / strangers.len() as f64;
    assert!(mean < 0.5, "neighbours in the list have a mean cosine of {mean}");
}

#[test]
fn a_text_beyond_the_limit_is_reported_and_cut() {
    let embedder = embedder();
    assert_eq!(embedder.max_tokens(), TOKENS_MAX);
    // Each of these words is one token; the special tokens take two places.
    let fits = vec!["tree"; TOKENS_MAX - 2].join(" ");
    let longer = format!("{fits} mountain river ocean");
    let short = "tree";
    let embeddings = embedder.embed(&[&fits, &longer, short]).unwrap();
    let counts: Vec<_> =
        embeddings.iter().map(|embedding| (embedding.tokens_count, embedding.truncated)).collect();
    assert_eq!(counts, [(TOKENS_MAX, false), (TOKENS_MAX, true), (3, false)]);
    assert!(cosine(&embeddings[0].vector, &embeddings[1].vector) > COSINE_MIN_IN_BATCH);
    // And what is within the limit does count.
    let other = fits.replacen("tree", "mountain", TOKENS_MAX);
    let other = embedder.embed(&[&other]).unwrap();
    assert!(cosine(&embeddings[0].vector, &other[0].vector) < 0.9);
}

#[test]
fn a_text_alone_has_the_vector_it_has_in_a_batch() {
    const TEXTS_COUNT: usize = 24;
    let embedder = embedder();
    let mut random = Random::new(5);
    let mixed: Vec<String> = (0..TEXTS_COUNT)
        .map(|number| {
            // From one word to beyond the limit, in no order.
            let words = 1 + (number * 7 % TEXTS_COUNT).pow(2);
            random.words(words)
        })
        .collect();
    let texts: Vec<&str> = mixed.iter().map(String::as_str).collect();
    let together = embedder.embed(&texts).unwrap();
    assert!(together.iter().any(|embedding| embedding.truncated), "the test needs a long text");
    for (text, together) in texts.iter().zip(&together) {
        let alone = embedder.embed(&[text]).unwrap().remove(0);
        assert_eq!(
            (alone.tokens_count, alone.truncated),
            (together.tokens_count, together.truncated)
        );
        let cosine = cosine(&alone.vector, &together.vector);
        assert!(cosine >= COSINE_MIN_IN_BATCH, "cosine {cosine} for {text:?}");
    }
}

#[test]
fn vectors_have_length_one() {
    let embeddings = embed(&embedder(), &reference::read("language"));
    for embedding in embeddings {
        let square: f64 = embedding.vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        assert!((square.sqrt() - 1.0).abs() < 1e-6, "length {}", square.sqrt());
    }
}
