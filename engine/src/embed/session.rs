//! A model loaded into the runtime.
//!
//! The model is loaded from its file, not from memory. The weights are then copied
//! once less (measured with all-MiniLM-L6-v2: peak 161 MB against 247 MB, and
//! less time), and external data, which has been checked to lie in the model
//! directory, resolves against the model's path and not against whatever the current
//! directory is.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use ndarray::{ArrayView, ArrayViewD, Dimension, Ix2, Ix3};
use ort::ErrorCode;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions};
use ort::value::TensorRef;

use super::batch::Running;
use super::model::{ATTENTION_MASK, INPUT_IDS, Model, Pooling, TOKEN_TYPE_IDS};
use super::pooling;
use super::provider::Device;
use super::runtime::Runtime;
use crate::error::{Error, ErrorKind, Result};

/// A model that can be run, by one caller at a time.
pub(super) struct Session {
    inner: ort::session::Session,
    options: RunOptions<HasSelectedOutputs>,
}

/// How long the threads of a session wait busily for work, in microseconds: they meet after every
/// operator, and to be woken takes longer than most of these.
///
/// Measured with all-MiniLM-L6-v2, two threads and a text of 12 tokens, milliseconds of the clock and
/// of the processor: texts one after the other 1.9 and 3.8, without busy waiting 2.3 and 3.9; texts
/// 20 ms apart about 5.2 and 6.1 (without 3.9 and 4.1; one thread 3.6 and 3.7), where the runtime's
/// own choice takes 2.4 and 25.
const SPIN_DURATION_US: &str = "300";
/// N of the version 1.N of the runtime that is known to take this. Others wait for ever.
const SPIN_DURATION_SINCE: u32 = 27;
/// Different tokens where only the work counts.
const ALONE_IDS: i64 = 64;

impl Session {
    /// Loads `model`.
    ///
    /// Cost: reads the model and optimises its graph, some hundred milliseconds; keeps
    /// about the model file's size in memory.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], [`ErrorKind::Unsupported`] or [`ErrorKind::Invalid`] if
    /// the runtime refuses it; [`ErrorKind::Busy`] if it is not the file that was opened.
    pub(super) fn load(
        runtime: &Runtime,
        model: &Model,
        device: &Device,
        threads_count: NonZeroUsize,
    ) -> Result<Self> {
        let refused = |source| refused_model(model, source);
        let builder = builder(runtime, threads_count).map_err(refused)?;
        let inner = device
            .prepare(builder, runtime)?
            .commit_from_file(model.model_path())
            .map_err(|source| device.explain(refused(source)))?;
        // The fingerprint is of the files that were opened: these must be what was loaded.
        model.require_unchanged()?;
        let outputs = OutputSelector::no_default().with(model.output.as_str());
        let options = RunOptions::new().map_err(refused)?.with_outputs(outputs);
        Ok(Self { inner, options })
    }

    /// Runs the model on so many tokens, and says how long the runtime itself took.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the model refuses them.
    pub(super) fn run_alone(&mut self, model: &Model, tokens_count: usize) -> Result<Duration> {
        let refused = |source| refused_input(model, source);
        // Ids that every vocabulary has; which they are does not change the work.
        let ids: Vec<i64> = (0..tokens_count as i64).map(|place| 1 + place % ALONE_IDS).collect();
        let (ones, zeros) = (vec![1_i64; tokens_count], vec![0_i64; tokens_count]);
        let tensor = |numbers| TensorRef::from_array_view(([1, tokens_count], numbers));
        let mut inputs = vec![
            (INPUT_IDS, tensor(&ids[..]).map_err(refused)?),
            (ATTENTION_MASK, tensor(&ones[..]).map_err(refused)?),
        ];
        if model.takes_token_types {
            inputs.push((TOKEN_TYPE_IDS, tensor(&zeros[..]).map_err(refused)?));
        }
        let started = Instant::now();
        let outputs = self.inner.run_with_options(inputs, &self.options).map_err(refused)?;
        let took = started.elapsed();
        drop(outputs);
        Ok(took)
    }

    /// Runs texts as a batch: one vector for each, in their order, of length 1.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the model refuses the tokens; [`ErrorKind::Corrupt`]
    /// if what it gives is no embedding.
    pub(super) fn run(
        &mut self,
        model: &Model,
        texts: &[Running],
        pad_token_id: u32,
    ) -> Result<Vec<Vec<f32>>> {
        let lens: Vec<usize> = texts.iter().map(|text| text.ids.len()).collect();
        let shape = [lens.len(), lens.iter().copied().max().unwrap_or_default()];
        let rows = texts.iter().map(|text| &text.ids[..]);
        let (ids, mask) = filled_up(rows, shape[1], pad_token_id);
        // One text is one segment, and the first segment is number 0.
        let token_types = vec![0_i64; if model.takes_token_types { ids.len() } else { 0 }];
        let refused = |source| refused_input(model, source);
        let mut inputs = vec![
            (INPUT_IDS, TensorRef::from_array_view((shape, ids.as_slice())).map_err(refused)?),
            (
                ATTENTION_MASK,
                TensorRef::from_array_view((shape, mask.as_slice())).map_err(refused)?,
            ),
        ];
        if model.takes_token_types {
            let token_types = TensorRef::from_array_view((shape, token_types.as_slice()));
            inputs.push((TOKEN_TYPE_IDS, token_types.map_err(refused)?));
        }
        let outputs = self.inner.run_with_options(inputs, &self.options).map_err(refused)?;
        let output = outputs
            .get(&model.output)
            .ok_or_else(|| bad_output(model, "is missing"))?
            .try_extract_array::<f32>()
            .map_err(refused)?;
        let vectors = match model.pooling {
            Pooling::Model => {
                let rows = shaped::<Ix2>(model, output, &shape[..1])?;
                rows.outer_iter().map(|row| row.to_vec()).collect()
            }
            Pooling::Tokens(pooling) => {
                pooling::pool(pooling, shaped::<Ix3>(model, output, &shape)?, &lens)
            }
        };
        let normalised = vectors.into_iter().map(pooling::normalised).collect::<Option<_>>();
        normalised.ok_or_else(|| bad_output(model, "has a vector that is zero or not finite"))
    }
}

/// Returns the token ids and the mask of rows that are filled up with `pad_token_id` to the same
/// length, where the mask is 0.
///
/// Shapes: both are `[rows, row_len]`.
fn filled_up<'r>(
    rows: impl Iterator<Item = &'r [u32]>,
    row_len: usize,
    pad_token_id: u32,
) -> (Vec<i64>, Vec<i64>) {
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for (row, row_ids) in rows.enumerate() {
        ids.extend(row_ids.iter().map(|&id| i64::from(id)));
        mask.resize(ids.len(), 1);
        ids.resize((row + 1) * row_len, i64::from(pad_token_id));
        mask.resize(ids.len(), 0);
    }
    (ids, mask)
}

fn builder(runtime: &Runtime, threads_count: NonZeroUsize) -> ort::Result<SessionBuilder> {
    let may_spin = runtime.library.minor_version >= SPIN_DURATION_SINCE;
    Ok(ort::session::Session::builder(&runtime.environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads_count.get())?
        .with_inter_threads(1)?
        .with_intra_op_spinning(may_spin)?
        .with_config_entry("session.intra_op.spin_duration_us", SPIN_DURATION_US)?
        .with_inter_op_spinning(false)?
        // A plan of its memory for each shape of a batch. Measured with all-MiniLM-L6-v2 and 5,000
        // texts: 30 MB; two threads and 12 tokens take 3 % less time, one thread takes no less.
        .with_memory_pattern(threads_count.get() > 1)?
        // What has been checked is an ONNX file; the runtime would also take its own
        // format, recognised by content.
        .with_config_entry("session.load_model_format", "ONNX")?)
}

/// Checks that `output` has the dimensions of the input, and one more.
fn shaped<'o, D: Dimension>(
    model: &Model,
    output: ArrayViewD<'o, f32>,
    input_shape: &[usize],
) -> Result<ArrayView<'o, f32, D>> {
    let found = output.shape().to_vec();
    let wrong =
        || bad_output(model, &format!("has the shape {found:?} for an input of {input_shape:?}"));
    if !found.starts_with(input_shape) || found.last().is_none_or(|&size| size == 0) {
        return Err(wrong());
    }
    output.into_dimensionality().map_err(|_| wrong())
}

fn bad_output(model: &Model, what: &str) -> Error {
    let path = model.model_path();
    let context = format!("the output {} of {} {what}", model.output, path.display());
    Error::new(ErrorKind::Corrupt, context)
        .with_remedy("fetch the model's files again, or use another model")
}

fn refused_input(model: &Model, source: ort::Error) -> Error {
    let context = format!("{} cannot be run on the tokens of a text", model.model_path().display());
    Error::new(ErrorKind::Invalid, context)
        .with_remedy("take tokenizer.json, config.json and model.onnx from the same model")
        .with_source(source)
}

fn refused_model(model: &Model, source: ort::Error) -> Error {
    let path = model.model_path();
    let (kind, remedy) = match source.code() {
        ErrorCode::InvalidProtobuf | ErrorCode::NoModel => {
            (ErrorKind::Corrupt, "fetch the model's files again")
        }
        ErrorCode::NotImplemented => (
            ErrorKind::Unsupported,
            "install a newer ONNX Runtime, or export the model with standard operators",
        ),
        ErrorCode::NoSuchFile | ErrorCode::NotFound => {
            (ErrorKind::NotFound, "fetch the model's files again")
        }
        _ => (ErrorKind::Invalid, "use a model that this ONNX Runtime accepts"),
    };
    Error::new(kind, format!("ONNX Runtime refuses {}", path.display()))
        .with_remedy(remedy)
        .with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_up_and_masked() {
        let rows: [&[u32]; 2] = [&[3, 3, 3], &[1]];
        let (ids, mask) = filled_up(rows.into_iter(), 3, 7);
        assert_eq!(ids, [3, 3, 3, 1, 7, 7]);
        assert_eq!(mask, [1, 1, 1, 1, 0, 0]);
    }
}
