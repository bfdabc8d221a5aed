//! Which name was meant by one that nobody knows.

/// Longest name that is compared: the cost is quadratic, and a longer one is no slip.
const NAME_LEN_MAX_BYTES: usize = 64;

/// Returns the known name nearest to `name`, if a third of its characters or less differ; two that
/// changed places count as one.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    if name.len() > NAME_LEN_MAX_BYTES {
        return None;
    }
    let distances = known.iter().map(|&known| (strsim::osa_distance(name, known), known));
    let (distance, known) = distances.min()?;
    (distance <= known.len() / 3).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_name_is_meant() {
        let known = ["key", "text", "vector"];
        assert_eq!(nearest("vectors", &known), Some("vector"));
        assert_eq!(nearest("tex", &known), Some("text"));
        assert_eq!(nearest("kye", &known), Some("key"));
        assert_eq!(nearest("embedding", &known), None);
        assert_eq!(nearest(&"text".repeat(1000), &known), None);
    }
}
