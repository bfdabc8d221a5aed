//! A part of a keyword index: one segment of tantivy in memory, which does not change, and which of
//! its documents still count.

use std::io;
use std::sync::{Arc, LazyLock};

use tantivy::directory::{OwnedBytes, RamDirectory};
use tantivy::fastfield::{AliveBitSet, write_alive_bitset};
use tantivy::fieldnorm::FieldNormReader;
use tantivy::indexer::merge_filtered_segments;
use tantivy::postings::Postings;
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::TokenizerManager;
use tantivy::{
    BitSet, DocId, DocSet, Index, IndexSettings, InvertedIndexReader, Segment, SegmentReader,
    SingleSegmentIndexWriter, TERMINATED, TantivyDocument, TantivyError, Term,
};

use super::words::WordTokenizer;

/// What tantivy calls this tokenizer.
const TOKENIZER: &str = "words";
/// Sizes the first tables of a writer, which grow as they have to.
const WRITER_TABLES_BYTES: usize = 1 << 20;
const FREQUENCIES: IndexRecordOption = IndexRecordOption::WithFreqs;

static SCHEMA: LazyLock<(Schema, Field)> = LazyLock::new(|| {
    let mut schema = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(TOKENIZER)
        .set_index_option(FREQUENCIES)
        .set_fieldnorms(true);
    let words = TextOptions::default().set_indexing_options(indexing);
    let words = schema.add_text_field("words", words);
    (schema.build(), words)
});

fn settings() -> IndexSettings {
    // Nothing is stored, so there is nothing to compress beside.
    IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() }
}

/// Documents on their way into a part.
pub(super) struct PartWriter {
    directory: RamDirectory,
    writer: SingleSegmentIndexWriter,
    keys: Vec<Box<[u8]>>,
}

impl PartWriter {
    pub(super) fn new() -> Result<Self, TantivyError> {
        let tokenizers = TokenizerManager::default();
        tokenizers.register(TOKENIZER, WordTokenizer);
        let directory = RamDirectory::create();
        let writer = Index::builder()
            .schema(SCHEMA.0.clone())
            .settings(settings())
            .tokenizers(tokenizers)
            .single_segment_index_writer(directory.clone(), WRITER_TABLES_BYTES)?;
        Ok(Self { directory, writer, keys: Vec::new() })
    }

    /// Adds a document of this key and text; each key once.
    pub(super) fn add(&mut self, key: &[u8], text: &str) -> Result<(), TantivyError> {
        let mut document = TantivyDocument::default();
        document.add_text(SCHEMA.1, String::from_utf8_lossy(key));
        document.add_text(SCHEMA.1, text);
        self.writer.add_document(document)?;
        self.keys.push(key.into());
        Ok(())
    }

    /// The part, unless it has no documents.
    pub(super) fn finish(self) -> Result<Option<Part>, TantivyError> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let index = self.writer.finalize()?;
        Part::open(self.directory, &index, self.keys).map(Some)
    }
}

/// Some documents.
pub(super) struct Part {
    directory: RamDirectory,
    segment: Segment,
    postings: Arc<InvertedIndexReader>,
    lengths: FieldNormReader,
    keys: Vec<Box<[u8]>>,
    /// Documents in the order of their keys.
    by_key: Vec<DocId>,
    /// Those that have neither been changed since nor removed.
    counting: BitSet,
    words_count: u64,
}

/// How often a word is in a document.
#[derive(Clone, Copy)]
pub(super) struct Occurrence {
    pub(super) document: DocId,
    pub(super) frequency: u32,
    /// Stands for how long the document is, as tantivy keeps it.
    pub(super) length_id: u8,
}

impl Part {
    fn open(
        directory: RamDirectory,
        index: &Index,
        keys: Vec<Box<[u8]>>,
    ) -> Result<Self, TantivyError> {
        let segments = index.searchable_segments()?;
        let [segment] = <[Segment; 1]>::try_from(segments)
            .map_err(|_| TantivyError::InternalError("a part has one segment".to_owned()))?;
        let reader = SegmentReader::open(&segment)?;
        let documents_count = reader.max_doc();
        if documents_count as usize != keys.len() {
            let problem = format!("{documents_count} documents have {} keys", keys.len());
            return Err(TantivyError::InternalError(problem));
        }
        let lengths = reader.get_fieldnorms_reader(SCHEMA.1)?;
        let mut by_key: Vec<DocId> = (0..documents_count).collect();
        by_key.sort_unstable_by_key(|document| &keys[*document as usize]);
        let mut part = Self {
            directory,
            segment,
            postings: reader.inverted_index(SCHEMA.1)?,
            lengths,
            keys,
            by_key,
            counting: BitSet::with_max_value_and_full(documents_count),
            words_count: 0,
        };
        let words = (0..documents_count).map(|document| part.words_of(document));
        part.words_count = words.sum();
        Ok(part)
    }

    /// Makes one part of several: of what counts in them.
    pub(super) fn merged(parts: &[&Self]) -> Result<Self, TantivyError> {
        let segments: Vec<Segment> = parts.iter().map(|part| part.segment.clone()).collect();
        let counting = parts.iter().map(|part| part.alive().map(Some)).collect::<Result<_, _>>()?;
        let directory = RamDirectory::create();
        let index = merge_filtered_segments(&segments, settings(), counting, directory.clone())?;
        // In the order in which the documents of segments follow each other.
        let keys = parts.iter().flat_map(|part| {
            let counts = |(document, _): &(usize, _)| part.counting.contains(*document as DocId);
            part.keys.iter().enumerate().filter(counts).map(|(_, key)| key.clone())
        });
        Self::open(directory, &index, keys.collect())
    }

    fn alive(&self) -> io::Result<AliveBitSet> {
        let mut bytes = Vec::new();
        write_alive_bitset(&self.counting, &mut bytes)?;
        Ok(AliveBitSet::open(OwnedBytes::new(bytes)))
    }

    /// How long a document is: exactly up to 40 words, and about beyond.
    fn words_of(&self, document: DocId) -> u64 {
        u64::from(self.lengths.fieldnorm(document))
    }

    /// Lets the document of a key count no longer.
    pub(super) fn forget(&mut self, key: &[u8]) {
        let found = self.by_key.binary_search_by_key(&key, |document| self.key(*document));
        let Ok(at) = found else { return };
        let document = self.by_key[at];
        if self.counting.contains(document) {
            self.counting.remove(document);
            self.words_count -= self.words_of(document);
        }
    }

    /// Where a word occurs.
    pub(super) fn occurrences(&self, word: &str) -> io::Result<Vec<Occurrence>> {
        let word = Term::from_field_text(SCHEMA.1, word);
        let mut found = Vec::new();
        let Some(mut postings) = self.postings.read_postings(&word, FREQUENCIES)? else {
            return Ok(found);
        };
        while postings.doc() != TERMINATED {
            let document = postings.doc();
            if self.counting.contains(document) {
                let length_id = self.lengths.fieldnorm_id(document);
                found.push(Occurrence { document, frequency: postings.term_freq(), length_id });
            }
            postings.advance();
        }
        Ok(found)
    }

    pub(super) fn key(&self, document: DocId) -> &[u8] {
        &self.keys[document as usize]
    }

    /// Documents, those that no longer count included.
    pub(super) fn documents_count(&self) -> usize {
        self.keys.len()
    }

    /// Documents that count.
    pub(super) fn counting_count(&self) -> usize {
        self.counting.len()
    }

    /// Words of the documents that count.
    pub(super) fn words_count(&self) -> u64 {
        self.words_count
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let keys: usize = self.keys.iter().map(|key| size_of_val(key) + key.len()).sum();
        keys + size_of_val(&self.by_key[..])
            + self.keys.len() / 8
            + self.directory.total_mem_usage()
    }
}
