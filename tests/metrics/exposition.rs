//! A strict reading of Prometheus's text format 0.0.4: what is not right fails the test.
//!
//! Source: prometheus.io, "Exposition formats" and "Metric and label naming".

use std::collections::{BTreeMap, BTreeSet};

/// A line with a value.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// What has one name, help and type.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) samples: Vec<Sample>,
}

/// All families, by name.
#[derive(Debug)]
pub(crate) struct Exposition(pub(crate) BTreeMap<String, Family>);

fn is_name(text: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(is_first) && text.chars().all(|c| is_first(c) || c.is_ascii_digit())
}

impl Exposition {
    pub(crate) fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n') && !text.contains('\r'), "lines end in a line feed");
        let mut families = BTreeMap::<String, Family>::new();
        let (mut seen, mut open) = (BTreeSet::new(), None::<(String, String)>);
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a help");
                assert!(is_name(name) && help.len() > 5 && help.ends_with('.'), "{line}");
                let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE "));
                let (again, kind) = kind.and_then(|kind| kind.split_once(' ')).expect("a type");
                assert_eq!(again, name);
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                let family = Family { kind: kind.to_owned(), samples: Vec::new() };
                assert!(families.insert(name.to_owned(), family).is_none(), "{name} twice");
                open = Some((name.to_owned(), kind.to_owned()));
                continue;
            }
            let sample = sample(line);
            let (name, kind) = open.as_ref().expect("a family");
            let ends: &[&str] =
                if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            let is_own = ends.iter().any(|end| sample.name == format!("{name}{end}"));
            assert!(is_own, "{line} is none of {name}");
            assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "{line} twice");
            assert!(kind != "counter" || sample.value >= 0.0, "{line}");
            families.get_mut(name).expect("it is open").samples.push(sample);
        }
        let exposition = Self(families);
        exposition.check();
        exposition
    }

    fn check(&self) {
        for (name, family) in &self.0 {
            assert!(!family.samples.is_empty(), "{name} is empty");
            if family.kind == "histogram" {
                self.check_histogram(name);
            }
        }
    }

    fn check_histogram(&self, name: &str) {
        let buckets: Vec<&Sample> = self.samples(name, "_bucket").collect();
        let bound = |sample: &Sample| match sample.labels["le"].as_str() {
            "+Inf" => f64::INFINITY,
            bound => bound.parse().expect("a number"),
        };
        assert!(buckets.is_sorted_by(|a, b| bound(a) < bound(b) && a.value <= b.value), "{name}");
        let last = buckets.last().expect("a bucket");
        let count = self.samples(name, "_count").next().expect("a count");
        assert_eq!((bound(last), last.value), (f64::INFINITY, count.value));
        let sum = self.samples(name, "_sum").next().expect("a sum").value;
        assert!(sum >= 0.0 && (sum == 0.0) == (count.value == 0.0), "{name}: {sum}");
    }

    fn samples<'a>(&'a self, family: &str, end: &str) -> impl Iterator<Item = &'a Sample> {
        let name = format!("{family}{end}");
        self.0[family].samples.iter().filter(move |sample| sample.name == name)
    }

    /// The value of the line with this name and these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let all = self.0.values().flat_map(|family| &family.samples);
        let is_meant = |sample: &&Sample| {
            sample.name == name
                && sample.labels.len() == labels.len()
                && labels.iter().all(|(label, value)| sample.labels[*label] == *value)
        };
        all.into_iter().find(is_meant).unwrap_or_else(|| panic!("{name} {labels:?}")).value
    }
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).expect("a name and a value");
    let name = &line[..end];
    assert!(is_name(name), "{line}");
    let (mut labels, mut rest) = (BTreeMap::new(), &line[end..]);
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").expect("a label");
            assert!(is_name(label), "{line}");
            let (value, after) = quoted(after);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').expect("a space").parse().expect("a number");
    Sample { name: name.to_owned(), labels, value }
}

/// A value up to its quotation mark, and what comes after.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, next)) = characters.next() {
        match next {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match characters.next().expect("what is escaped").1 {
                'n' => '\n',
                known @ ('\\' | '"') => known,
                other => panic!("\\{other}"),
            }),
            other => value.push(other),
        }
    }
    panic!("{text} does not end")
}

#[test]
fn what_is_wrong_is_seen() {
    let family = "# HELP a_total What it is.\n# TYPE a_total counter\n";
    let right = format!("{family}a_total{{b=\"\\\"c\\\\\"}} 1\na_total 2\n");
    let read = Exposition::parse(&right);
    assert_eq!(read.value("a_total", &[("b", "\"c\\")]), 1.0);
    let histogram = |buckets: &str| {
        format!("# HELP h How long.\n# TYPE h histogram\nh_sum 1\nh_count 2\n{buckets}")
    };
    Exposition::parse(&histogram("h_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 2\n"));
    for wrong in [
        format!("{family}a_total -1\n"),
        format!("{family}a_total 1\na_total 1\n"),
        format!("{family}b_total 1\n"),
        format!("{family}a_total 1"),
        family.to_owned(),
        "a_total 1\n".to_owned(),
        "# HELP a What it is.\n# TYPE a counter\na 1\n".to_owned(),
        format!("{family}a_total{{b=\"c}} 1\n"),
        format!("{family}a_total{{b=\"\\c\"}} 1\n"),
        histogram("h_bucket{le=\"0.5\"} 3\nh_bucket{le=\"+Inf\"} 2\n"),
        histogram("h_bucket{le=\"0.5\"} 1\n"),
    ] {
        let read = std::panic::catch_unwind(|| Exposition::parse(&wrong));
        assert!(read.is_err(), "{wrong}");
    }
}
