//! `op-dbus model`: which embedding models there are, whether they are whole, and more of them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use op_dbus_engine::{Embedder, EmbedderConfig, ErrorKind, ModelFile, QuantizedModel};
use serde::Serialize;
use serde_json::json;

use crate::args::{Model, ModelInstall, ModelNamed, ModelQuantize};
use crate::config::{Config, has_model};
use crate::error::Result;
use crate::exit::Exit;
use crate::input;
use crate::output::{Output, bytes, grouped};
use crate::progress::Progress;
use crate::sample;

/// What a model that was verified embeds.
const TEXT: &str = "restart the network";

#[derive(Serialize)]
struct Listed {
    name: String,
    directory: PathBuf,
    is_in_use: bool,
    /// Why it cannot be used.
    problem: Option<String>,
    dimensions: Option<u32>,
    max_tokens: Option<usize>,
}

pub(super) fn run(config: &Config, output: &Output, command: Model) -> Result<Exit> {
    match command {
        Model::List => list(config, output),
        Model::Show(named) => show(config, output, &named),
        Model::Verify(named) => verify(config, output, &named),
        Model::Install(arguments) => install(config, output, &arguments),
        Model::Quantize(arguments) => quantize(config, output, &arguments),
    }
}

fn list(config: &Config, output: &Output) -> Result<Exit> {
    let mut models = Vec::new();
    for place in config.model_places() {
        let Ok(entries) = std::fs::read_dir(place) else { continue };
        let mut directories: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| has_model(path)).collect();
        directories.sort_unstable();
        models.extend(directories.into_iter().map(|directory| listed(config, directory)));
    }
    output.answer(&json!({ "models": models }), |out| render_list(out, &models))?;
    Ok(if models.is_empty() { Exit::NothingFound } else { Exit::Success })
}

fn listed(config: &Config, directory: PathBuf) -> Listed {
    let opened = open(config, &directory);
    let outline = opened.as_ref().ok().map(Embedder::outline);
    Listed {
        name: directory.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        is_in_use: directory == config.embedder().model_dir,
        problem: opened.err().map(|error| error.message()),
        dimensions: outline.as_ref().and_then(|outline| outline.dimensions),
        max_tokens: outline.map(|outline| outline.max_tokens),
        directory,
    }
}

fn render_list(out: &mut dyn Write, models: &[Listed]) -> io::Result<()> {
    if models.is_empty() {
        return writeln!(out, "no models; op-dbus model install copies one from a directory");
    }
    let width = models.iter().map(|model| model.name.len()).max().unwrap_or_default();
    for model in models {
        let mark = if model.is_in_use { "*" } else { " " };
        write!(out, "{mark} {:width$}", model.name)?;
        match (&model.problem, model.dimensions, model.max_tokens) {
            (Some(problem), ..) => write!(out, "  {problem}")?,
            (None, Some(dimensions), Some(tokens)) => {
                write!(out, "  {dimensions:>5} dimensions  {tokens:>5} tokens")?;
            }
            _ => write!(out, "{:34}", "")?,
        }
        writeln!(out, "  {}", model.directory.display())?;
    }
    Ok(())
}

fn show(config: &Config, output: &Output, named: &ModelNamed) -> Result<Exit> {
    let embedder = open(config, &directory(config, named.named.as_deref()))?;
    let outline = embedder.outline();
    let (name, fingerprint) = (embedder.name(), embedder.fingerprint().to_string());
    let answer = json!({ "name": name, "fingerprint": fingerprint, "outline": outline });
    output.answer(&answer, |out| {
        writeln!(out, "model        {name}")?;
        writeln!(out, "directory    {}", outline.directory.display())?;
        writeln!(out, "fingerprint  {fingerprint}")?;
        let dimensions = outline.dimensions.map(|dimensions| dimensions.to_string());
        writeln!(out, "dimensions   {}", dimensions.as_deref().unwrap_or("known once it has run"))?;
        writeln!(out, "tokens       {} at most", outline.max_tokens)?;
        writeln!(out, "token types  {}", if outline.takes_token_types { "yes" } else { "no" })?;
        writeln!(out, "output       {}", outline.output)?;
        writeln!(out, "pooling      {}, then length 1", outline.pooling)
    })?;
    Ok(Exit::Success)
}

fn verify(config: &Config, output: &Output, named: &ModelNamed) -> Result<Exit> {
    let embedder = open(config, &directory(config, named.named.as_deref()))?;
    let files = embedder.files()?;
    let are_damaged = files.iter().any(|file| file.is_as_pinned == Some(false));
    // What is not as it was pinned is not run.
    let dimensions = if are_damaged { None } else { Some(embedded_dimensions(&embedder)?) };
    let answer = json!({
        "name": embedder.name(),
        "fingerprint": embedder.fingerprint().to_string(),
        "files": files,
        "dimensions": dimensions,
    });
    output.answer(&answer, |out| render_files(out, &files, dimensions))?;
    Ok(if are_damaged { Exit::Failed(ErrorKind::Corrupt) } else { Exit::Success })
}

/// Length of the vector that a text gets.
fn embedded_dimensions(embedder: &Embedder) -> Result<usize> {
    let embeddings = embedder.embed(&[TEXT])?;
    Ok(embeddings.first().map_or(0, |embedding| embedding.vector.len()))
}

fn render_files(
    out: &mut dyn Write,
    files: &[ModelFile],
    dimensions: Option<usize>,
) -> io::Result<()> {
    let width = files.iter().map(|file| file.path.as_os_str().len()).max().unwrap_or_default();
    for file in files {
        let state = match file.is_as_pinned {
            Some(true) => "as pinned",
            Some(false) => "NOT as pinned",
            None => "not pinned",
        };
        let (path, len) = (file.path.display().to_string(), bytes(file.len_bytes));
        writeln!(out, "{path:width$}  {len:>10}  {}…  {state}", &file.sha256[..16])?;
    }
    match dimensions {
        Some(dimensions) => writeln!(out, "it embeds a text: {dimensions} dimensions"),
        None => writeln!(out, "it is not run"),
    }
}

fn install(config: &Config, output: &Output, arguments: &ModelInstall) -> Result<Exit> {
    let embedder = open(config, &arguments.directory)?;
    let name = arguments.name.as_deref().unwrap_or(embedder.name());
    let target = target(config, name)?;
    embedder.install(&target, arguments.sums.as_deref())?;
    output.answer(&json!({ "name": name, "directory": target }), |out| {
        writeln!(out, "{name}: installed in {}", target.display())
    })?;
    Ok(Exit::Success)
}

fn quantize(config: &Config, output: &Output, arguments: &ModelQuantize) -> Result<Exit> {
    let embedder = open(config, &directory(config, arguments.named.as_deref()))?;
    let default_name = format!("{}-int8", embedder.name());
    let name = arguments.name.as_deref().unwrap_or(&default_name);
    let target = target(config, name)?;
    let texts = match &arguments.texts {
        Some(path) => input::texts(path)?,
        None => sample::lines(),
    };
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let progress = Progress::start(None);
    progress.say("both models embed the texts");
    let compared = embedder.quantize(&target, &texts)?;
    drop(progress);
    let answer = json!({ "name": name, "directory": target, "compared": compared });
    output.answer(&answer, |out| {
        writeln!(out, "{name}: made in {}", target.display())?;
        render_compared(out, &compared)
    })?;
    Ok(Exit::Success)
}

fn render_compared(out: &mut dyn Write, compared: &QuantizedModel) -> io::Result<()> {
    let QuantizedModel { cosine_mean, cosine_min, .. } = compared;
    let (before, after) = (compared.original_texts_per_second, compared.texts_per_second);
    let [len, original_len] = [compared.len_bytes, compared.original_len_bytes].map(bytes);
    writeln!(out, "size     {len} instead of {original_len}")?;
    let texts = grouped(compared.texts_count as u64);
    writeln!(out, "vectors  of {texts} texts: cosine {cosine_mean:.4}, least {cosine_min:.4}")?;
    writeln!(out, "nearest  {:.1} % of the ten are the same", compared.overlap_at_10 * 100.0)?;
    writeln!(out, "speed    {after:.0} texts a second instead of {before:.0}")
}

/// Where a model of this name is installed.
fn target(config: &Config, name: &str) -> Result<PathBuf> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        let problem = format!("{name:?} is no name for a model");
        return Err(op_dbus_engine::Error::new(ErrorKind::Invalid, problem)
            .with_remedy("give it a name without slashes with --name")
            .into());
    }
    Ok(config.user_models().join(name))
}

fn open(config: &Config, directory: &Path) -> Result<Embedder> {
    let config = EmbedderConfig { model_dir: directory.to_owned(), ..config.embedder().clone() };
    Ok(Embedder::open(&config, None)?)
}

/// The directory of a model: what is no name of an installed one is a directory itself.
fn directory(config: &Config, name: Option<&str>) -> PathBuf {
    let Some(name) = name else { return config.embedder().model_dir.clone() };
    let places = config.model_places();
    let installed = places.iter().map(|place| place.join(name)).find(|path| has_model(path));
    installed.unwrap_or_else(|| PathBuf::from(name))
}
