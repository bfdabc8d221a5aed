//! The formats in which vectors and records come from elsewhere and go there.
//!
//! These are text and arrays of others, so they are parsed strictly and their errors
//! say where to look; what this crate writes, it reads back to the same values.

mod base64;
pub mod fvecs;
pub mod jsonl;
pub mod keys;
pub mod npy;
pub mod onnx;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod vec_file;
