//! Embedding texts beside the runtime alone, which gets their tokens ready made.
//!
//! `cargo bench -p op-dbus-benches --bench embed -- --model DIR`. The runtime alone runs in another
//! process, as each has one environment of it; both take turns.

use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use op_dbus_engine::{Embedder, EmbedderConfig};
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

/// Words that are a token each to the tokenizers of BERT.
const WORDS: [&str; 8] = ["network", "disk", "time", "service", "system", "user", "power", "file"];
/// Texts, tokens of each, and runs that the median is of.
const CASES: [(usize, usize, usize); 6] =
    [(1, 12, 60), (1, 32, 40), (1, 128, 20), (32, 12, 12), (32, 32, 8), (32, 128, 4)];
const ROUNDS_COUNT: usize = 15;
/// What one waits before the other runs, whose threads go on waiting busily for a while.
const PAUSE: Duration = Duration::from_millis(300);
/// What a line of the other process begins with, which may print others.
const TOOK: &str = "took ";

/// Measures embedding beside the runtime alone.
#[derive(Parser)]
struct Arguments {
    /// Directory of the model
    #[arg(long)]
    model: Option<PathBuf>,
    /// Library of the runtime
    #[arg(long, env = "ORT_DYLIB_PATH")]
    library: Option<PathBuf>,
    /// Threads, several numbers for several runs
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<NonZeroUsize>,
    /// Runs the runtime alone, as lines of standard input say
    #[arg(long, hide = true)]
    floor: bool,
    /// What `cargo bench` says
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let (Some(model), Some(library)) = (&arguments.model, &arguments.library) else {
        println!("embed: give --model DIR and --library LIBRARY to measure");
        return;
    };
    for threads in &arguments.threads {
        if arguments.floor {
            answer_floor(model, library, *threads);
        } else {
            compare(model, library, *threads);
        }
    }
}

fn compare(model: &Path, library: &Path, threads: NonZeroUsize) {
    let config = EmbedderConfig {
        runtime_library: Some(library.to_owned()),
        threads_count: Some(threads),
        ..EmbedderConfig::new(model)
    };
    let embedder = Embedder::open(&config, None).expect("the model can be opened");
    embedder.load().expect("the model can be loaded");
    let mut floor = Floor::start(model, library, threads);
    println!("{threads} threads: median of the best round, milliseconds");
    println!("{:>5} {:>6} {:>9} {:>9} {:>6}", "texts", "tokens", "runtime", "op-dbus", "ratio");
    for (texts_count, tokens_count, runs_count) in CASES {
        let texts: Vec<String> = (0..texts_count)
            .map(|text| {
                let words =
                    (0..tokens_count - 2).map(|word| WORDS[(text + word * 3) % WORDS.len()]);
                words.collect::<Vec<_>>().join(" ")
            })
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let run = || {
            let embeddings = embedder.embed(&texts).expect("texts can be embedded");
            assert!(embeddings.iter().all(|embedding| embedding.tokens_count == tokens_count));
        };
        let (mut alone, mut ours) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS_COUNT {
            alone = alone.min(floor.ask(texts_count, tokens_count, runs_count));
            std::thread::sleep(PAUSE);
            ours = ours.min(median(runs_count, run));
            std::thread::sleep(PAUSE);
        }
        let [alone, ours] = [alone, ours].map(|took| took.as_secs_f64() * 1e3);
        let ratio = ours / alone;
        println!("{texts_count:>5} {tokens_count:>6} {alone:>9.2} {ours:>9.2} {ratio:>6.3}");
    }
    floor.end();
}

fn median(runs_count: usize, mut run: impl FnMut()) -> Duration {
    run();
    let mut took: Vec<Duration> = (0..runs_count)
        .map(|_| {
            let started = Instant::now();
            run();
            started.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[took.len() / 2]
}

/// The process that runs the runtime alone.
struct Floor {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Floor {
    fn start(model: &Path, library: &Path, threads: NonZeroUsize) -> Self {
        let program = std::env::current_exe().expect("the program has a path");
        let mut process = Command::new(program)
            .args(["--floor", "--threads", &threads.to_string()])
            .args([Path::new("--model"), model, Path::new("--library"), library])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        Self { process, answers }
    }

    fn ask(&mut self, texts_count: usize, tokens_count: usize, runs_count: usize) -> Duration {
        let questions = self.process.stdin.as_mut().expect("it is piped");
        writeln!(questions, "{texts_count} {tokens_count} {runs_count}").expect("it listens");
        let lines = self.answers.by_ref().lines().map(|line| line.expect("it answers"));
        let took = lines.filter_map(|line| line.strip_prefix(TOOK)?.parse().ok()).next();
        Duration::from_nanos(took.expect("it answers"))
    }

    fn end(mut self) {
        drop(self.process.stdin.take());
        self.process.wait().expect("it ends");
    }
}

fn answer_floor(model: &Path, library: &Path, threads: NonZeroUsize) {
    let environment = ort::init_from(library).map(|builder| builder.build().expect("it is one"));
    let environment = environment.expect("the library can be loaded");
    let builder = ort::session::Session::builder(&environment).expect("sessions can be built");
    let builder =
        builder.with_optimization_level(GraphOptimizationLevel::All).expect("it is an option");
    let mut builder = builder.with_intra_threads(threads.get()).expect("it is an option");
    let mut session =
        builder.commit_from_file(model.join("model.onnx")).expect("the model can be loaded");
    for line in std::io::stdin().lines() {
        let line = line.expect("questions are text");
        let numbers: Vec<usize> =
            line.split(' ').map(|number| number.parse().expect("it is one")).collect();
        let [texts_count, tokens_count, runs_count] = numbers[..] else { panic!("{line}") };
        let shape = [texts_count, tokens_count];
        let ids: Vec<i64> =
            (0..texts_count * tokens_count).map(|id| 1996 + id as i64 % 97).collect();
        let (ones, zeros) = (vec![1_i64; ids.len()], vec![0_i64; ids.len()]);
        let took = median(runs_count, || {
            let tensor = |numbers| TensorRef::from_array_view((shape, numbers)).expect("it is one");
            let inputs = ort::inputs! {
                "input_ids" => tensor(&ids[..]),
                "attention_mask" => tensor(&ones[..]),
                "token_type_ids" => tensor(&zeros[..]),
            };
            session.run(inputs).expect("the model runs");
        });
        println!("{TOOK}{}", took.as_nanos());
    }
}
