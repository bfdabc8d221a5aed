//! From the model's output to embeddings: pooling and normalisation.

use ndarray::{ArrayView1, ArrayView3, Axis, s};

use super::settings::TokenPooling;

/// Reduces the vectors of tokens to one per text.
///
/// Shapes: `hidden` is `[texts, tokens, dimensions]` and `lens` has one length per
/// text, at least 1 and at most `tokens`; what lies beyond a text's length is padding.
/// The answer holds `[dimensions]` per text.
pub(super) fn pool(
    pooling: TokenPooling,
    hidden: ArrayView3<'_, f32>,
    lens: &[usize],
) -> Vec<Vec<f32>> {
    let one = |(rows, &len): (ndarray::ArrayView2<'_, f32>, &usize)| match pooling {
        TokenPooling::First => rows.row(0).to_vec(),
        TokenPooling::Mean => {
            let sum = rows.slice(s![..len, ..]).sum_axis(Axis(0));
            (sum / len as f32).to_vec()
        }
    };
    hidden.outer_iter().zip(lens).map(one).collect()
}

/// Scales `vector` to length 1; `None` if it has no direction or is not finite.
pub(super) fn normalised(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    // In double precision: squares of large components would overflow a float.
    let square = ArrayView1::from(&vector).fold(0.0_f64, |sum, &x| sum + f64::from(x).powi(2));
    let length = square.sqrt();
    if !length.is_finite() || length == 0.0 {
        return None;
    }
    for component in &mut vector {
        *component = (f64::from(*component) / length) as f32;
    }
    Some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn padding_does_not_count() {
        let hidden = array![
            [[1.0, 2.0], [3.0, 4.0], [f32::NAN, 9.0]],
            [[5.0, 6.0], [7.0, 8.0], [9.0, 13.0]]
        ];
        let mean = pool(TokenPooling::Mean, hidden.view(), &[2, 3]);
        assert_eq!(mean, [[2.0, 3.0], [7.0, 9.0]]);
        let first = pool(TokenPooling::First, hidden.view(), &[2, 3]);
        assert_eq!(first, [[1.0, 2.0], [5.0, 6.0]]);
    }

    #[test]
    fn vectors_get_length_one() {
        assert_eq!(normalised(vec![3.0, 0.0, -4.0]).unwrap(), [0.6, 0.0, -0.8]);
        for scale in [1e-30, 1.0, 1e30] {
            let vector = normalised(vec![scale, scale]).unwrap();
            assert!((vector[0] - 0.5_f32.sqrt()).abs() < 1e-6, "{scale}");
        }
    }

    #[test]
    fn what_has_no_direction_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(normalised(vec![1.0, bad]), None);
        }
        assert_eq!(normalised(vec![0.0; 4]), None);
    }
}
