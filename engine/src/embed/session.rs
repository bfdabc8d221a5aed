//! A model loaded into the runtime.
//!
//! The model is loaded from its file, not from memory: both take the same time
//! (measured, all-MiniLM-L6-v2), the file needs no second copy of the weights while
//! loading, and references to external data, which have been checked to stay in the
//! model directory, resolve against the model's path rather than against whatever
//! the current directory is.
//!
//! The session has threads of its own, so it does not survive `fork`: a use in a
//! child process is an error instead of a wait for threads that are not there.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use ndarray::{ArrayView, ArrayViewD, Dimension, Ix2, Ix3};
use ort::ErrorCode;
use ort::session::builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions};
use ort::value::TensorRef;

use super::batch::Batch;
use super::model::{ATTENTION_MASK, INPUT_IDS, Model, Pooling, TOKEN_TYPE_IDS};
use super::pool;
use super::runtime::Runtime;
use super::tokenize::Tokens;
use crate::error::{Error, ErrorKind, Result};

/// A model that can be run.
pub(super) struct Session {
    /// Taken before `running` and held until that is taken: whoever waits runs next.
    /// Without it a caller with many batches would take `running` again and again
    /// before a woken waiter gets to it.
    turn: Mutex<()>,
    running: Mutex<Running>,
    process_id: u32,
    model: Model,
    pad_token_id: u32,
}

struct Running {
    session: ort::session::Session,
    options: RunOptions<HasSelectedOutputs>,
}

impl Session {
    /// Loads `model`.
    ///
    /// Cost: reads the model and optimises its graph, some hundred milliseconds.
    pub(super) fn load(
        runtime: &Runtime,
        model: &Model,
        threads_count: NonZeroUsize,
        pad_token_id: u32,
    ) -> Result<Self> {
        let refused = |source| refused_model(model, source);
        let session = builder(runtime, threads_count)
            .map_err(refused)?
            .commit_from_file(model.model_path())
            .map_err(refused)?;
        let outputs = OutputSelector::no_default().with(model.output.as_str());
        let options = RunOptions::new().map_err(refused)?.with_outputs(outputs);
        Ok(Self {
            turn: Mutex::new(()),
            running: Mutex::new(Running { session, options }),
            process_id: std::process::id(),
            model: model.clone(),
            pad_token_id,
        })
    }

    /// Runs a batch: one vector per text, in the batch's order, of length 1.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the model refuses the tokens; [`ErrorKind::Corrupt`]
    /// if what it gives is no embedding; [`ErrorKind::Unsupported`] after a `fork`.
    pub(super) fn run(&self, batch: &Batch<'_>, tokens: &[Tokens]) -> Result<Vec<Vec<f32>>> {
        if std::process::id() != self.process_id {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the embedding model was loaded before this process was forked",
            )
            .with_remedy("open the model in the process that uses it"));
        }
        let (ids, mask) = batch.inputs(tokens, self.pad_token_id);
        let lens: Vec<_> = batch.texts.iter().map(|&text| tokens[text].ids.len()).collect();
        let vectors = self.infer(&ids, &mask, &lens, batch.row_len)?;
        let normalised = vectors.into_iter().map(pool::normalised);
        normalised
            .collect::<Option<_>>()
            .ok_or_else(|| self.bad_output("gives a vector that is zero or not finite".to_owned()))
    }

    fn infer(
        &self,
        ids: &[i64],
        mask: &[i64],
        lens: &[usize],
        row_len: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let shape = [lens.len(), row_len];
        // One text is one segment, and the first segment is number 0.
        let token_types = vec![0_i64; if self.model.takes_token_types { ids.len() } else { 0 }];
        let refused = |source| self.refused_input(source);
        let mut inputs = vec![
            (INPUT_IDS, TensorRef::from_array_view((shape, ids)).map_err(refused)?),
            (ATTENTION_MASK, TensorRef::from_array_view((shape, mask)).map_err(refused)?),
        ];
        if self.model.takes_token_types {
            let token_types = TensorRef::from_array_view((shape, token_types.as_slice()));
            inputs.push((TOKEN_TYPE_IDS, token_types.map_err(refused)?));
        }

        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        drop(turn);
        let Running { session, options } = &mut *running;
        let outputs = session.run_with_options(inputs, options).map_err(refused)?;
        let output = outputs
            .get(&self.model.output)
            .ok_or_else(|| self.bad_output("does not give it".to_owned()))?
            .try_extract_array::<f32>()
            .map_err(refused)?;
        match self.model.pooling {
            Pooling::Model => {
                let rows = self.shaped::<Ix2>(output, &shape[..1])?;
                Ok(rows.outer_iter().map(|row| row.to_vec()).collect())
            }
            Pooling::Tokens(pooling) => {
                Ok(pool::pool(pooling, self.shaped::<Ix3>(output, &shape)?, lens))
            }
        }
    }

    /// Checks that `output` has the dimensions of the input, and one more.
    fn shaped<'o, D: Dimension>(
        &self,
        output: ArrayViewD<'o, f32>,
        input_shape: &[usize],
    ) -> Result<ArrayView<'o, f32, D>> {
        let found = output.shape().to_vec();
        let wrong = || self.bad_output(format!("has the shape {found:?} for {input_shape:?}"));
        if !found.starts_with(input_shape) || found.last().is_none_or(|&size| size == 0) {
            return Err(wrong());
        }
        output.into_dimensionality().map_err(|_| wrong())
    }

    fn bad_output(&self, what: String) -> Error {
        let model = self.model.model_path();
        Error::new(
            ErrorKind::Corrupt,
            format!("the output {} of {} {what}", self.model.output, model.display()),
        )
        .with_remedy("fetch the model's files again, or use another model")
    }

    fn refused_input(&self, source: ort::Error) -> Error {
        let model = self.model.model_path();
        Error::new(ErrorKind::Invalid, format!("{} refuses the tokens of a text", model.display()))
            .with_remedy("take tokenizer.json, config.json and model.onnx from the same model")
            .with_source(source)
    }
}

fn builder(runtime: &Runtime, threads_count: NonZeroUsize) -> ort::Result<SessionBuilder> {
    Ok(ort::session::Session::builder(&runtime.environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        // The binding crate's default lets the runtime choose an accelerator by itself.
        .with_auto_device(AutoDevicePolicy::PreferCPU)?
        .with_intra_threads(threads_count.get())?
        .with_inter_threads(1)?
        // Spinning threads would take the processor from searches between batches.
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        // Patterns are planned per input shape, and every batch has another one.
        .with_memory_pattern(false)?
        // What has been checked is an ONNX file; the runtime would also take its own
        // format, recognised by content.
        .with_config_entry("session.load_model_format", "ONNX")?)
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
