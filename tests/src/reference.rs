//! Texts with the vectors that their embeddings must equal; `data/README.md` says whose they are.

use op_dbus_formats::exchange::npy::NpyHeader;

use crate::scratch::data;

/// A text and its vector.
pub struct Reference {
    /// The text.
    pub text: String,
    /// Its embedding by an independent implementation of the model.
    pub vector: Vec<f32>,
}

/// Reads `data/NAME-texts.txt` and `data/NAME-fp32.npy`.
///
/// # Panics
/// If they cannot be read or do not belong together.
pub fn read(name: &str) -> Vec<Reference> {
    let texts =
        std::fs::read_to_string(data(&format!("{name}-texts.txt"))).expect("the texts can be read");
    let array = std::fs::read(data(&format!("{name}-fp32.npy"))).expect("the array can be read");
    let header = NpyHeader::parse(&array).expect("the array is one of vectors");
    assert_eq!(header.file_len_bytes(), array.len() as u64);
    assert_eq!(header.rows, texts.lines().count() as u64);
    let rows = array[header.data_offset_bytes as usize..].chunks_exact(header.row_len_bytes());
    texts
        .lines()
        .zip(rows)
        .map(|(text, row)| {
            let mut vector = vec![0.0; header.dimensions];
            header.decode_row(row, &mut vector).expect("a row has finite numbers");
            Reference { text: text.to_owned(), vector }
        })
        .collect()
}

/// Returns the cosine of the angle between two vectors, in double precision.
///
/// # Panics
/// If their lengths differ.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_those_of_the_angle() {
        assert_eq!(cosine(&[2.0, 0.0], &[3.0, 0.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 5.0]), 0.0);
        assert_eq!(cosine(&[1.0, 1.0], &[-2.0, -2.0]), -1.0);
    }
}
