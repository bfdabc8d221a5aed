//! Which hardware runs the model.
//!
//! What is asked for is what runs: a provider that cannot be used is an error that names what is
//! missing. Only [`Provider::Auto`] chooses, and the log says what.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::builder::{AutoDevicePolicy, SessionBuilder};

use super::model::{ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS};
use super::runtime::Runtime;
use crate::error::{Error, ErrorKind, Result};

/// Positions, padding included, that a batch may have on the processor.
///
/// Measured with all-MiniLM-L6-v2 on 500 package descriptions (17 tokens on average) on a machine
/// that had other work, CPU milliseconds a text in a session of one thread, best of four: 6.2 with
/// 64 positions, 5.7 with 128, 5.4 with 192, 5.6 with 256, 5.8 with 512, 6.4 with 1,024. From 128 to
/// 512 is within the noise. With 512, 32 short texts are one batch; a query does not wait for one, as
/// the express session is not used by those who have more.
const CPU_BUDGET_TOKENS: usize = 512;
/// The same on an accelerator, which has enough to do with so many.
const ACCELERATOR_BUDGET_TOKENS: usize = 16_384;
/// The same for TensorRT, whose engine needs memory for the most texts of the most tokens.
const TENSORRT_BUDGET_TOKENS: usize = 2048;
/// Tokens of the shortest text, with those that begin and end it.
const TOKENS_MIN: usize = 2;
/// The driver's library, which a machine without a card does not have.
const DRIVER_LIBRARY: &str = "libcuda.so.1";

/// The execution provider of the model's session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Provider {
    /// The processor.
    #[default]
    Cpu,
    /// CUDA on an NVIDIA card.
    Cuda,
    /// TensorRT on an NVIDIA card. Its engine is built when a model is first loaded, which takes
    /// minutes, and kept.
    TensorRt,
    /// CUDA if it can be used, the processor otherwise; the log says which and why.
    Auto,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Cuda, Self::TensorRt, Self::Auto];

    /// The name that people read and write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Provider {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(ErrorKind::Invalid, format!("there is no execution provider {text:?}"))
                .with_remedy(format!("use one of {names}"))
        })
    }
}

/// What runs a model, and with how much memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// Never [`Provider::Auto`].
    pub(super) provider: Provider,
    pub(super) id: u32,
    pub(super) memory_max_bytes: Option<usize>,
    /// Where TensorRT keeps what it builds.
    pub(super) engine_cache_dir: Option<PathBuf>,
    /// The longest text, in tokens.
    pub(super) max_tokens: usize,
    pub(super) takes_token_types: bool,
}

impl Device {
    /// Positions, padding included, that a batch may have.
    pub(super) fn budget_tokens(&self) -> usize {
        match self.provider {
            Provider::Cpu | Provider::Auto => CPU_BUDGET_TOKENS,
            Provider::Cuda => ACCELERATOR_BUDGET_TOKENS,
            Provider::TensorRt => TENSORRT_BUDGET_TOKENS,
        }
    }

    pub(super) fn is_accelerator(&self) -> bool {
        self.provider != Provider::Cpu
    }

    /// Has sessions run there.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the runtime library has no such provider, or something that it
    /// needs is missing; [`ErrorKind::Io`] if the directory for engines cannot be made.
    pub(super) fn prepare(
        &self,
        builder: SessionBuilder,
        runtime: &Runtime,
    ) -> Result<SessionBuilder> {
        let refused = |source: ort::Error| unusable(self.provider, source);
        if !self.is_accelerator() {
            // The binding crate's default lets the runtime choose an accelerator by itself.
            let chosen = builder.with_auto_device(AutoDevicePolicy::PreferCPU);
            return chosen.map_err(|source| refused(source.into()));
        }
        let is_there = match self.provider {
            Provider::TensorRt => ep::TensorRT::is_available(),
            _ => ep::CUDA::is_available(),
        };
        if !is_there.map_err(refused)? {
            return Err(not_built_in(self.provider, &runtime.library.path));
        }
        ort::util::preload_dylib(DRIVER_LIBRARY).map_err(|source| {
            let context = format!(
                "the execution provider {} needs the NVIDIA driver, whose library {DRIVER_LIBRARY} \
                 cannot be loaded",
                self.provider
            );
            Error::new(ErrorKind::Unavailable, context)
                .with_remedy("install the driver of the card, or choose the provider cpu")
                .with_source(source)
        })?;
        let providers = self.providers()?;
        builder.with_execution_providers(providers).map_err(|source| refused(source.into()))
    }

    /// The providers that are asked in turn for each operator.
    fn providers(&self) -> Result<Vec<ExecutionProviderDispatch>> {
        let id = i32::try_from(self.id).map_err(|_| {
            Error::new(ErrorKind::Invalid, format!("there is no device {}", self.id))
                .with_remedy("name a device by the number that nvidia-smi shows")
        })?;
        // Single precision as everywhere, so that vectors are those of the processor.
        let mut cuda = ep::CUDA::default().with_device_id(id).with_tf32(false);
        if let Some(bytes) = self.memory_max_bytes {
            cuda = cuda.with_memory_limit(bytes);
        }
        let cuda = cuda.build().error_on_failure();
        Ok(match self.provider {
            Provider::TensorRt => vec![self.tensorrt(id)?.build().error_on_failure(), cuda],
            _ => vec![cuda],
        })
    }

    fn tensorrt(&self, id: i32) -> Result<ep::TensorRT> {
        let mut tensorrt = ep::TensorRT::default().with_device_id(id).with_fp16(false);
        if let Some(bytes) = self.memory_max_bytes {
            tensorrt = tensorrt.with_max_workspace_size(bytes);
        }
        // One engine for all batches: without these each new shape would have another built.
        let inputs = [INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS];
        let inputs = &inputs[..if self.takes_token_types { 3 } else { 2 }];
        let shape = |texts: usize, tokens: usize| {
            let of = |input: &&str| format!("{input}:{texts}x{tokens}");
            inputs.iter().map(of).collect::<Vec<_>>().join(",")
        };
        let texts_max = TENSORRT_BUDGET_TOKENS / TOKENS_MIN;
        tensorrt = tensorrt
            .with_profile_min_shapes(shape(1, 1))
            .with_profile_opt_shapes(shape(32, self.max_tokens.min(64)))
            .with_profile_max_shapes(shape(texts_max, self.max_tokens));
        let Some(directory) = &self.engine_cache_dir else { return Ok(tensorrt) };
        std::fs::create_dir_all(directory)
            .map_err(|source| Error::io("create", directory, source))?;
        let path = directory.display().to_string();
        Ok(tensorrt
            .with_engine_cache(true)
            .with_engine_cache_path(&path)
            .with_timing_cache(true)
            .with_timing_cache_path(path))
    }

    /// Says of an error of loading a model what it has to do with the device.
    pub(super) fn explain(&self, error: Error) -> Error {
        if !self.is_accelerator() {
            return error;
        }
        let context = format!(
            "the model cannot be loaded on the execution provider {}, device {}",
            self.provider, self.id
        );
        let explained = Error::new(error.kind(), context).with_remedy(
            "see whether nvidia-smi shows the device and free memory, raise the limit of its memory if \
             there is one, or choose the provider cpu",
        );
        explained.with_source(error)
    }
}

fn not_built_in(provider: Provider, library: &Path) -> Error {
    let context = format!(
        "the execution provider {provider} is not in the ONNX Runtime library {}",
        library.display()
    );
    Error::new(ErrorKind::Unavailable, context).with_remedy(
        "take the library of a GPU build of ONNX Runtime (onnxruntime-gpu) and name it in \
         ORT_DYLIB_PATH, or choose the provider cpu",
    )
}

fn unusable(provider: Provider, source: ort::Error) -> Error {
    let missing = missing_library(&source.to_string());
    let (context, remedy) = match missing {
        Some(library) => (
            format!("the execution provider {provider} needs {library}, which cannot be loaded"),
            "install it or name its directory in LD_LIBRARY_PATH, or choose the provider cpu",
        ),
        None => (
            format!("the execution provider {provider} cannot be used"),
            "see what the runtime says, or choose the provider cpu",
        ),
    };
    Error::new(ErrorKind::Unavailable, context).with_remedy(remedy).with_source(source)
}

/// The library that a loader's message says is missing: `libcudnn.so.9` of "…: libcudnn.so.9: cannot
/// open shared object file".
fn missing_library(message: &str) -> Option<String> {
    let (before, _) = message.split_once(": cannot open shared object file")?;
    let name = before.rsplit([' ', ':']).next()?.trim();
    name.contains(".so").then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_others_are_refused() {
        for provider in Provider::ALL {
            assert_eq!(provider.to_string().parse::<Provider>().unwrap(), provider);
        }
        for text in ["", "CPU", "gpu", "cpu "] {
            assert_eq!(text.parse::<Provider>().unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn what_a_loader_misses_is_named() {
        let message = "Failed to load library /x/libonnxruntime_providers_cuda.so with error: \
                       libcudnn.so.9: cannot open shared object file: No such file or directory";
        assert_eq!(missing_library(message).unwrap(), "libcudnn.so.9");
        assert_eq!(missing_library("CUDA failure 100: no device"), None);
        assert_eq!(missing_library("what: cannot open shared object file"), None);
    }
}
