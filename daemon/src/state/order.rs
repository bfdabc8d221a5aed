//! In which order plugins are applied: those that others depend on first.

use std::collections::BTreeMap;

use op_dbus_engine::ErrorKind;

use crate::error::{BusError, Result};

/// Orders plugins by what each depends on; those that depend on nothing stay as they were given.
/// Dependencies that are not among them count for nothing: they are there already.
///
/// # Errors
/// [`ErrorKind::Invalid`] if some depend on each other in a circle, which is named.
pub(super) fn ordered(plugins: &[(String, Vec<String>)]) -> Result<Vec<usize>> {
    let numbers: BTreeMap<&str, usize> =
        plugins.iter().enumerate().map(|(number, (name, _))| (name.as_str(), number)).collect();
    let mut order = Vec::with_capacity(plugins.len());
    let mut states = vec![Mark::New; plugins.len()];
    for start in 0..plugins.len() {
        // Each entry: a plugin, and how many of its dependencies were looked at.
        let mut path = vec![(start, 0)];
        while let Some((number, next)) = path.pop() {
            if states[number] == Mark::Done {
                continue;
            }
            states[number] = Mark::Open;
            match plugins[number].1.get(next) {
                None => {
                    states[number] = Mark::Done;
                    order.push(number);
                }
                Some(name) => {
                    path.push((number, next + 1));
                    let Some(&dependency) = numbers.get(name.as_str()) else { continue };
                    match states[dependency] {
                        Mark::Done => {}
                        Mark::Open => return Err(circle(plugins, &path, dependency)),
                        Mark::New => path.push((dependency, 0)),
                    }
                }
            }
        }
    }
    Ok(order)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    Open,
    Done,
}

fn circle(
    plugins: &[(String, Vec<String>)],
    path: &[(usize, usize)],
    dependency: usize,
) -> BusError {
    let start = path.iter().position(|(number, _)| *number == dependency).unwrap_or(0);
    let names: Vec<&str> =
        path[start..].iter().map(|(number, _)| plugins[*number].0.as_str()).collect();
    let problem =
        format!("plugins depend on each other: {}, {}", names.join(", "), plugins[dependency].0);
    BusError::new(ErrorKind::Invalid, problem, "take one of the dependencies out")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(plugins: &[(&str, &[&str])]) -> Result<String> {
        let plugins: Vec<(String, Vec<String>)> = plugins
            .iter()
            .map(|(name, on)| {
                ((*name).to_owned(), on.iter().map(|name| (*name).to_owned()).collect())
            })
            .collect();
        let order = ordered(&plugins)?;
        Ok(order.into_iter().map(|number| plugins[number].0.clone()).collect())
    }

    #[test]
    fn what_others_depend_on_comes_first_and_the_rest_stays() {
        assert_eq!(order(&[("a", &[]), ("b", &[]), ("c", &[])]).unwrap(), "abc");
        assert_eq!(order(&[("a", &["c"]), ("b", &[]), ("c", &["b"])]).unwrap(), "bca");
        assert_eq!(order(&[("a", &["x"]), ("b", &["a", "a"])]).unwrap(), "ab");
        let diamond: &[(&str, &[&str])] =
            &[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])];
        assert_eq!(order(diamond).unwrap(), "dbca");
    }

    #[test]
    fn a_circle_is_named() {
        let error = order(&[("a", &[]), ("b", &["c"]), ("c", &["d"]), ("d", &["b"])]).unwrap_err();
        assert!(error.problem().contains("b, c, d, b"), "{error:?}");
        assert!(order(&[("a", &["a"])]).unwrap_err().problem().contains("a, a"));
    }
}
