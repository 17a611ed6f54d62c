//! `cargo xtask compress`: recipes applied to a network.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use dlis_compress::{Checkpoints, Event, Library, Recipe, Report};
use dlis_experiment::compress::{RECIPE_KEY, artefact, text};
use dlis_model::{Artefact, Network, zoo};

use super::CompressArgs;
use super::journal::Journal;
use super::setting::{Setting, checkpoints};
use crate::Failure;
use crate::laboratory::root;
use crate::output::say;

/// Longest recipe file that is read.
const MAX_RECIPE_BYTES: u64 = 1 << 20;

pub(crate) fn run(args: &CompressArgs) -> Result<(), Failure> {
    let (library, names) = library(&args.recipe)?;
    let mut setting = Setting::new(&args.place)?;
    let network = dense(&args.network, &setting.out)?;
    for name in names {
        one(&mut setting, &library, &name, &network)?;
    }
    Ok(())
}

/// Applies one recipe and writes its artefact, unless that is there already.
fn one(setting: &mut Setting, library: &Library, name: &str, network: &Network) -> Result<(), Failure> {
    let Setting { trainer, journal, out } = setting;
    let of_network = network.graph().name();
    let whole = format!("{of_network}.{name}");
    let path = out.join(format!("{whole}.safetensors"));
    let Some(recipe) = library.recipes().find(|recipe| recipe.name == name) else {
        return Err(Failure::new(format!("there is no recipe `{name}`")));
    };
    if path.is_file()
        && Artefact::load(&path).is_ok_and(|artefact| artefact.metadata.get(RECIPE_KEY) == Some(&text(recipe)))
    {
        journal.say(&format!("{}: made before", path.display()));
        return Ok(());
    }
    journal.open(out, &whole)?;
    let mut steps = Folder(out.join("steps"));
    let told = journal.clone();
    let compressed = library.run(name, network, trainer, &mut steps, &mut |event| tell(&told, &event))?;
    journal.close()?;
    let work = out.join(of_network);
    fs::create_dir_all(&work).map_err(|error| Failure::new(format!("{}: {error}", work.display())))?;
    artefact(compressed.trained, recipe, &compressed.report).save(work.join(format!("{name}.work.safetensors")))?;
    artefact(compressed.network, recipe, &compressed.report).save(&path)?;
    // Steps are kept, for recipes based on this one; states inside a step are not needed any more.
    let _ = fs::remove_dir_all(checkpoints(out).join(of_network).join(name));
    summarise(&path, &compressed.report);
    Ok(())
}

fn tell(journal: &Journal, event: &Event<'_>) {
    match event {
        Event::Step { key, resumed: true } => journal.say(&format!("{key}: done before")),
        Event::Step { key, .. } => journal.say(&format!("{key}: begins")),
        Event::Accuracy { key, accuracy } => journal.say(&format!("{key}: accuracy {:.2} %", 100.0 * accuracy)),
        _ => {}
    }
}

fn summarise(path: &Path, report: &Report) {
    let accuracy =
        report.accuracy().map_or_else(String::new, |accuracy| format!(", accuracy {:.2} %", 100.0 * accuracy));
    let (first, last) = (report.steps.first(), report.steps.last());
    let size = match (first, last) {
        (Some(first), Some(last)) => format!(
            ": {} of {} bytes of weights, {} of {} non-zero",
            last.after.bytes, first.before.bytes, last.after.non_zeros, last.after.weights
        ),
        _ => String::new(),
    };
    say!("{}{size}{accuracy}", path.display());
}

/// The dense network: an artefact's path, what `train` left in `out`, or the weights that come with the zoo.
fn dense(name: &str, out: &Path) -> Result<Network, Failure> {
    let candidates = [
        PathBuf::from(name),
        out.join(format!("{name}.safetensors")),
        root().join("datasets").join(format!("{name}.safetensors")),
    ];
    let Some(path) = candidates.iter().find(|path| path.is_file()) else {
        let places: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        return Err(Failure::new(format!("network `{name}`: no file at {}", places.join(", "))));
    };
    // Weights that come with the zoo may be a plain state dictionary.
    let artefact = match (Artefact::load(path), zoo::graph(name)) {
        (Ok(artefact), _) => artefact,
        (Err(_), Ok(graph)) => Artefact::load_state_dict(path, graph)?,
        (Err(error), Err(_)) => return Err(error.into()),
    };
    Ok(artefact.network.to_f32())
}

/// The recipes of these files and of the files that they are based on, and the names of the former.
fn library(files: &[PathBuf]) -> Result<(Library, Vec<String>), Failure> {
    let mut recipes: BTreeMap<String, Recipe> = BTreeMap::new();
    let mut names = Vec::new();
    let mut bases = Vec::new();
    for file in files {
        let recipe = read(file)?;
        names.push(recipe.name.clone());
        bases.extend(recipe.base.clone().map(|base| (base, file.clone())));
        if recipes.insert(recipe.name.clone(), recipe).is_some() {
            return Err(Failure::new(format!("{}: another file has a recipe of that name", file.display())));
        }
    }
    while let Some((base, file)) = bases.pop() {
        if recipes.contains_key(&base) {
            continue;
        }
        let beside = file.with_file_name(format!("{base}.toml"));
        let recipe =
            read(&beside).map_err(|failure| Failure::new(format!("{}: base `{base}`: {failure}", file.display())))?;
        if recipe.name != base {
            return Err(Failure::new(format!(
                "{}: expected the name `{base}`, found `{}`",
                beside.display(),
                recipe.name
            )));
        }
        bases.extend(recipe.base.clone().map(|base| (base, beside)));
        recipes.insert(base, recipe);
    }
    Ok((Library::new(recipes.into_values())?, names))
}

fn read(file: &Path) -> Result<Recipe, Failure> {
    let told = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", file.display()));
    let bytes = fs::metadata(file).map_err(|error| told(&error))?.len();
    if bytes > MAX_RECIPE_BYTES {
        return Err(told(&format!("expected at most {MAX_RECIPE_BYTES} bytes, found {bytes}")));
    }
    let text = fs::read_to_string(file).map_err(|error| told(&error))?;
    toml::from_str(&text).map_err(|error| told(&error))
}

/// Finished steps as artefacts below a folder.
struct Folder(PathBuf);

impl Folder {
    fn path(&self, key: &str) -> PathBuf {
        self.0.join(format!("{key}.safetensors"))
    }
}

impl Checkpoints for Folder {
    fn load(&mut self, key: &str) -> Result<Option<Network>, Box<dyn Error + Send + Sync>> {
        let path = self.path(key);
        Ok(if path.is_file() { Some(Artefact::load(path)?.network) } else { None })
    }

    fn save(&mut self, key: &str, network: &Network) -> Result<(), Box<dyn Error + Send + Sync>> {
        let path = self.path(key);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(Artefact::new(network.clone()).save(path)?)
    }
}
