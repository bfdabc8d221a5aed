//! Which hardware runs the model.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// The execution provider of the model's session.
///
/// What is asked for is what runs: there is no fall back from one to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Provider {
    /// The processor.
    #[default]
    Cpu,
    /// CUDA on an NVIDIA card.
    Cuda,
    /// TensorRT on an NVIDIA card.
    TensorRt,
}

impl Provider {
    /// Checks that this version can run models there.
    pub(super) fn require_supported(self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda | Self::TensorRt => Err(Error::new(
                ErrorKind::Unsupported,
                format!("the execution provider {self} is not supported by this version"),
            )
            .with_remedy("choose the provider cpu")),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        })
    }
}

impl FromStr for Provider {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            "tensorrt" => Ok(Self::TensorRt),
            _ => Err(Error::new(
                ErrorKind::Invalid,
                format!("there is no execution provider {text:?}"),
            )
            .with_remedy("use one of cpu, cuda, tensorrt")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_others_are_refused() {
        for provider in [Provider::Cpu, Provider::Cuda, Provider::TensorRt] {
            assert_eq!(provider.to_string().parse::<Provider>().unwrap(), provider);
        }
        for text in ["", "CPU", "gpu", "cpu "] {
            assert_eq!(text.parse::<Provider>().unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn only_the_processor_is_supported() {
        assert!(Provider::Cpu.require_supported().is_ok());
        for provider in [Provider::Cuda, Provider::TensorRt] {
            let error = provider.require_supported().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(&provider.to_string()));
        }
    }
}
