//! Which name was meant by one that nobody knows.

/// Longest name that is compared: the cost is quadratic, and a longer one is no slip.
const NAME_LEN_MAX_BYTES: usize = 64;

/// Returns the known name nearest to `name`, if a third of its bytes or less differ.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    if name.len() > NAME_LEN_MAX_BYTES {
        return None;
    }
    let distances = known.iter().map(|&known| (distance(name, known), known));
    let (distance, known) = distances.min()?;
    (distance <= known.len() / 3).then_some(known)
}

/// Counts the bytes to insert, remove or replace to make one name the other.
fn distance(name: &str, known: &str) -> usize {
    let mut row: Vec<usize> = (0..=known.len()).collect();
    for (index, byte) in name.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in known.bytes().enumerate() {
            let replaced = diagonal + usize::from(byte != other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[known.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_counted() {
        for (name, known, expected) in [
            ("", "", 0),
            ("text", "text", 0),
            ("txt", "text", 1),
            ("kitten", "sitting", 3),
            ("", "key", 3),
        ] {
            assert_eq!(distance(name, known), expected, "{name} {known}");
        }
    }

    #[test]
    fn only_a_near_name_is_meant() {
        let known = ["key", "text", "vector"];
        assert_eq!(nearest("vectors", &known), Some("vector"));
        assert_eq!(nearest("tex", &known), Some("text"));
        assert_eq!(nearest("embedding", &known), None);
        assert_eq!(nearest(&"text".repeat(1000), &known), None);
    }
}
