//! A model whose weights have eight bits, and what that costs.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::time::Instant;

use op_dbus_formats::exchange::onnx::{self, OnnxError, Quantized};
use serde::Serialize;

use super::model::MODEL_FILE;
use super::pinned::{Sums, publish};
use super::{Embedder, Embedding};
use crate::distance;
use crate::error::{Error, ErrorKind, Result};
use crate::os::file::create_synced;

/// Nearest texts that are compared.
const NEAREST_COUNT: usize = 10;
/// Fewer texts say nothing about the nearest of them.
const TEXTS_COUNT_MIN: usize = 2 * NEAREST_COUNT;
/// A model that does worse is not kept: of all-MiniLM-L6-v2 it is 0.9995.
const COSINE_MEAN_MIN: f64 = 0.99;

/// How a model of eight bits compares with that of 32 bits.
#[derive(Clone, Debug, Serialize)]
pub struct QuantizedModel {
    /// Length of its file.
    pub len_bytes: u64,
    /// Length of the files it was made of.
    pub original_len_bytes: u64,
    /// Products of matrices that were replaced.
    pub products_count: usize,
    /// Tables of embeddings that were replaced.
    pub tables_count: usize,
    /// Texts that were compared.
    pub texts_count: usize,
    /// Mean cosine between the vectors of a text by the two models.
    pub cosine_mean: f64,
    /// The least of these cosines.
    pub cosine_min: f64,
    /// Share of each text's ten nearest texts that are the same by both models.
    pub overlap_at_10: f64,
    /// Texts a second that it embeds.
    pub texts_per_second: f64,
    /// Texts a second that the model of 32 bits embeds.
    pub original_texts_per_second: f64,
}

impl Embedder {
    /// Makes a model of eight bits in a directory that does not exist, and compares it with this one
    /// on texts of which every one should be different.
    ///
    /// It is another model, with another fingerprint.
    /// Cost: about twice the model's size in memory; embeds the texts four times.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the directory exists, there are too few texts, or the vectors
    /// become too different; [`ErrorKind::Unsupported`] if there is nothing to quantize, or the
    /// runtime has not the operators; [`ErrorKind::Corrupt`] if a weight is no number; those of
    /// [`Embedder::embed`] and of a failed write.
    pub fn quantize(&self, target: &Path, texts: &[&str]) -> Result<QuantizedModel> {
        if texts.iter().collect::<HashSet<_>>().len() < TEXTS_COUNT_MIN {
            let context = format!("fewer than {TEXTS_COUNT_MIN} different texts to compare with");
            return Err(Error::new(ErrorKind::Invalid, context).with_remedy("give more texts"));
        }
        publish(target, |unfinished| {
            let (quantized, original_len_bytes) = self.quantized()?;
            create_synced(&unfinished.join(MODEL_FILE), &quantized.model)?;
            let mut sums = Sums::default();
            sums.add_bytes(Path::new(MODEL_FILE), &quantized.model);
            self.copy_files(&self.model.files_beside_weights(), unfinished, None, &mut sums)?;
            sums.write(unfinished)?;
            let other = self.open_beside(unfinished)?;
            let (ours, original_texts_per_second) = self.timed(texts)?;
            let (theirs, texts_per_second) = other.timed(texts)?;
            let compared = QuantizedModel {
                len_bytes: quantized.model.len() as u64,
                original_len_bytes,
                products_count: quantized.products_count,
                tables_count: quantized.tables_count,
                texts_count: texts.len(),
                cosine_mean: cosines(&ours, &theirs).sum::<f64>() / texts.len() as f64,
                cosine_min: cosines(&ours, &theirs).fold(1.0, f64::min),
                overlap_at_10: overlap(&ours, &theirs),
                texts_per_second,
                original_texts_per_second,
            };
            if compared.cosine_mean < COSINE_MEAN_MIN {
                return Err(too_different(&compared));
            }
            Ok(compared)
        })
    }

    /// The file, and the length of what it was made of.
    fn quantized(&self) -> Result<(Quantized, u64)> {
        let path = self.model.model_path();
        let read = |path: &Path| fs::read(path).map_err(|error| Error::io("read", path, error));
        let model = read(&path)?;
        let mut external = HashMap::new();
        for file in &self.model.external_files {
            let bytes = read(&self.model.directory.join(file))?;
            external.insert(file.to_string_lossy().into_owned(), bytes);
        }
        self.model.require_unchanged()?;
        let len_bytes = model.len() + external.values().map(Vec::len).sum::<usize>();
        let unsupported = |what: &str| {
            Error::new(ErrorKind::Unsupported, format!("{} {what}", path.display()))
                .with_remedy("export the model with MatMul operators and float32 weights in them")
        };
        let quantized = onnx::quantize(&model, &external)
            .map_err(|source| malformed(&path, source))?
            .ok_or_else(|| unsupported("has no weights that can be quantized"))?;
        let bytes = &quantized.model;
        let outline = onnx::read_outline(Cursor::new(bytes), bytes.len() as u64)
            .map_err(|source| malformed(&path, source))?;
        if !outline.external_locations.is_empty() {
            return Err(unsupported("has data in other files that are no weights"));
        }
        Ok((quantized, len_bytes as u64))
    }

    /// Embeds texts, and says how many a second.
    fn timed(&self, texts: &[&str]) -> Result<(Vec<Embedding>, f64)> {
        // What the first run pays, others do not.
        self.embed(texts)?;
        let started = Instant::now();
        let embeddings = self.embed(texts)?;
        Ok((embeddings, texts.len() as f64 / started.elapsed().as_secs_f64()))
    }
}

/// The cosines of vectors that have length 1.
fn cosines<'e>(ours: &'e [Embedding], theirs: &'e [Embedding]) -> impl Iterator<Item = f64> + 'e {
    let dot = distance::kernels().dot;
    ours.iter().zip(theirs).map(move |(a, b)| f64::from(dot(&a.vector, &b.vector)))
}

/// The share of each text's nearest texts that are the same by both models.
fn overlap(ours: &[Embedding], theirs: &[Embedding]) -> f64 {
    let same = (0..ours.len()).map(|text| {
        let others = nearest(theirs, text);
        nearest(ours, text).intersection(&others).count()
    });
    same.sum::<usize>() as f64 / (ours.len() * NEAREST_COUNT) as f64
}

/// The nearest other texts of a text.
fn nearest(embeddings: &[Embedding], text: usize) -> HashSet<usize> {
    let dot = distance::kernels().dot;
    let similarity = |other: &usize| dot(&embeddings[text].vector, &embeddings[*other].vector);
    let mut others: Vec<(f32, usize)> = (0..embeddings.len())
        .filter(|&other| other != text)
        .map(|other| (similarity(&other), other))
        .collect();
    others.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    others.into_iter().take(NEAREST_COUNT).map(|(_, other)| other).collect()
}

fn malformed(path: &Path, source: OnnxError) -> Error {
    let context = format!("{} cannot be quantized: {source}", path.display());
    Error::new(ErrorKind::Corrupt, context)
        .with_remedy("fetch the model's files again")
        .with_source(source)
}

fn too_different(compared: &QuantizedModel) -> Error {
    let context = format!(
        "with 8 bits the vectors have a mean cosine of {:.4} to what they were, least {:.4}",
        compared.cosine_mean, compared.cosine_min
    );
    Error::new(ErrorKind::Invalid, context).with_remedy("keep the model of 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeddings(vectors: &[[f32; 2]]) -> Vec<Embedding> {
        let embedding = |vector: &[f32; 2]| Embedding {
            vector: vector.to_vec(),
            tokens_count: 1,
            truncated: false,
        };
        vectors.iter().map(embedding).collect()
    }

    #[test]
    fn the_same_vectors_overlap_and_turned_ones_do_not() {
        let angle = |text: usize| [(text as f32 * 0.05).cos(), (text as f32 * 0.05).sin()];
        let ours: Vec<[f32; 2]> = (0..60).map(angle).collect();
        // Every second one is turned away.
        let turned =
            |(text, &[x, y]): (usize, &[f32; 2])| if text % 2 == 0 { [x, y] } else { [-x, -y] };
        let theirs: Vec<[f32; 2]> = ours.iter().enumerate().map(turned).collect();
        let (ours, theirs) = (embeddings(&ours), embeddings(&theirs));
        assert_eq!(overlap(&ours, &ours), 1.0);
        let share = overlap(&ours, &theirs);
        assert!((0.3..0.7).contains(&share), "{share}");
        assert!((cosines(&ours, &ours).fold(1.0, f64::min) - 1.0).abs() < 1e-6);
        assert!((cosines(&ours, &theirs).fold(1.0, f64::min) + 1.0).abs() < 1e-6);
    }
}
