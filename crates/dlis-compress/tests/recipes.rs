//! Recipes as data: the files that come with the crate, and hostile ones.

use dlis_compress::{BUILT_IN, Library, Recipe, Step};

fn built_in() -> Vec<Recipe> {
    BUILT_IN.iter().map(|(name, text)| toml::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"))).collect()
}

#[test]
fn every_file_is_a_valid_recipe_of_its_name() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().trim_end_matches(".toml").to_owned())
        .collect();
    files.sort();
    let mut names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(files, names, "the list in src/built_in.rs is that of the folder");
    for (recipe, (name, _)) in built_in().iter().zip(BUILT_IN) {
        assert_eq!(recipe.name, *name);
        assert!(!recipe.description.is_empty(), "{name}");
        recipe.validate().unwrap();
    }
    Library::new(built_in()).unwrap();
}

#[test]
fn levels_of_a_curve_are_cumulative() {
    let library = Library::new(built_in()).unwrap();
    let sparsities: Vec<f64> = library
        .chain("prune-98")
        .unwrap()
        .iter()
        .flat_map(|recipe| &recipe.steps)
        .map(|step| match step {
            Step::Magnitude(magnitude) => magnitude.sparsity.unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sparsities, [0.5, 0.8, 0.9, 0.95, 0.98]);
    assert_eq!(library.chain("channels-10").unwrap().len(), 4);
}

#[test]
fn recipes_survive_the_way_to_text_and_back() {
    for recipe in built_in() {
        let text = toml::to_string(&recipe).unwrap();
        assert_eq!(toml::from_str::<Recipe>(&text).unwrap(), recipe, "{text}");
    }
}

/// The error of a recipe with this step.
fn error(step: &str) -> String {
    let text = format!("name = \"r\"\n[[steps]]\n{step}\n");
    match toml::from_str::<Recipe>(&text) {
        Ok(recipe) => recipe.validate().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_a_recipe_can_ask_for_is_bounded() {
    for (step, said) in [
        ("kind = 'magnitude'\nsparsity = 1.0", "steps[0].sparsity: 1"),
        ("kind = 'magnitude'\nsparsity = nan", "steps[0].sparsity: NaN"),
        ("kind = 'magnitude'", "steps[0].sparsity: missing"),
        ("kind = 'magnitude'\nsparsity = 0.5\npattern = '3:4'", "3:4"),
        ("kind = 'magnitude'\nsparsity = 0.5\npattern = '2:4'", "decide it themselves"),
        ("kind = 'magnitude'\nscope = 'deviation'", "steps[0].quality: missing"),
        ("kind = 'magnitude'\nsparsity = 0.5\nschedule = { kind = 'gradual', stages = 1000000 }", "schedule.stages"),
        (
            "kind = 'magnitude'\nsparsity = 0.5\nschedule = { kind = 'iterative', levels = [0.4, 0.3] }",
            "schedule.levels",
        ),
        ("kind = 'magnitude'\nsparsity = 0.5\nfine_tune = { epochs = 1e9 }", "fine_tune.epochs"),
        ("kind = 'magnitude'\nsparsity = 0.5\nfine_tune = { epochs = inf }", "fine_tune.epochs"),
        ("kind = 'magnitude'\nsparsity = 0.5\nfine_tune = { epochs = 1, peak_rate = -1 }", "fine_tune.peak_rate"),
        ("kind = 'magnitude'\nsparsity = 0.5\nsprasity = 1", "sprasity"),
        ("kind = 'channels'\nbudget = { macs = 0 }", "budget.macs"),
        ("kind = 'channels'\nbudget = { macs = 0.5 }\nrounds = 0", "steps[0].rounds"),
        (
            "kind = 'channels'\nbudget = { latency = { at_most = 1, table = { a = [[2, 1], [1, 2]] } } }",
            "rising widths",
        ),
        ("kind = 'ternary'\nthreshold = 1.5", "steps[0].threshold"),
        ("kind = 'quantise'\nweights = 3", "steps[0].weights"),
        ("kind = 'quantise'\nactivations = 4", "steps[0].activations"),
        ("kind = 'quantise'\ncalibration = { percentile = 0.1 }", "calibration.percentile"),
        ("kind = 'quantise'\nlayers = { only = [''] }", "layers.only"),
        ("kind = 'melt'", "melt"),
        ("kind = 'quantise'\n[[steps]]\nkind = 'ternary'", "ternary cannot come after quantise"),
        ("kind = 'ternary'\n[store]\nrest = 'csr-f32'", "store.rest"),
    ] {
        let found = error(step);
        assert!(found.contains(said), "{step}: {found}");
    }
}

#[test]
fn libraries_refuse_circles_and_missing_bases() {
    let recipe = |name: &str, base: &str, kind: &str| -> Recipe {
        toml::from_str(&format!("name = '{name}'\nbase = '{base}'\n[[steps]]\nkind = '{kind}'")).unwrap()
    };
    let error = |recipes: &[Recipe]| Library::new(recipes.to_vec()).unwrap_err().to_string();
    assert!(error(&[recipe("a", "b", "ternary"), recipe("b", "a", "ternary")]).contains("circle"));
    assert!(error(&[recipe("a", "b", "ternary")]).contains("no recipe `b`"));
    assert!(error(&[recipe("a", "a", "ternary")]).contains("based on itself"));
    let mut dense = recipe("b", "x", "quantise");
    dense.base = None;
    assert!(error(&[recipe("a", "b", "ternary"), dense]).contains("cannot come after"));
    let path = toml::from_str::<Recipe>("name = '../a'\n[[steps]]\nkind = 'ternary'").unwrap();
    assert!(error(&[path]).contains("name"));
}
