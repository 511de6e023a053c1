//! The tree keeps its own rules: layers, module documents, no dead files, short Make targets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{Metadata, MetadataCommand};
use claw_e2e::binary::workspace;
use serde::Deserialize as _;

/// A crate imports only crates of lower layers. A new crate gets its line here, by decision and not by accident.
const LAYERS: [(&str, u8); 14] = [
    ("claw-graph", 0),
    ("toolbox", 0),
    ("claw-schemas", 1),
    ("claw-compute", 1),
    ("claw-client", 2),
    ("claw-runtime", 3),
    ("claw-apiserver", 4),
    ("claw-controllers", 4),
    ("claw-nodeagent", 4),
    ("claw-testing", 5),
    ("claw-fuzz", 5),
    ("clawbernetes", 5),
    ("sweep-controller", 6),
    ("claw-e2e", 7),
];

/// Past this a file has more than one idea in it.
const FILE_LINES_MAX: usize = 900;

/// Longer recipes belong into a script beside what they serve.
const RECIPE_LINES_MAX: usize = 3;

#[test]
fn layers_point_down() {
    let layers: BTreeMap<_, _> = LAYERS.into_iter().collect();
    let mut wrong = Vec::new();
    for package in metadata().workspace_packages() {
        let name = package.name.as_str();
        let Some(layer) = layers.get(name) else {
            wrong.push(format!("{name} has no layer: add it to LAYERS, and to ARCHITECTURE.md"));
            continue;
        };
        // Test-time imports count too: a test that needs a higher layer belongs into e2e.
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            if layers.get(dependency.name.as_str()).is_none_or(|below| below >= layer) {
                wrong.push(format!("{name} (layer {layer}) imports {}", dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_says_what_it_owns() {
    let undocumented: Vec<_> = sources()
        .into_iter()
        .filter(|path| {
            !read(path).lines().find(|line| !line.trim().is_empty()).unwrap_or("").starts_with("//!")
        })
        .collect();
    assert!(undocumented.is_empty(), "no `//!` at the top of {undocumented:#?}");
}

#[test]
fn every_source_file_is_compiled() {
    let mut reached = BTreeSet::new();
    for metadata in [metadata(), metadata_of("e2e/fuzz/Cargo.toml")] {
        for target in metadata.workspace_packages().iter().flat_map(|package| &package.targets) {
            reach(target.src_path.as_std_path(), true, &mut reached);
        }
    }
    let dead: Vec<_> = sources().into_iter().filter(|path| !reached.contains(path)).collect();
    assert!(dead.is_empty(), "no target reaches {dead:#?}");
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|path| (read(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES_MAX} lines: {long:#?}");
}

#[test]
fn nothing_is_left_for_later_in_comments() {
    // Spelled in two halves, or this file would find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let mut found = Vec::new();
    for path in sources() {
        for (number, line) in read(&path).lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "do it, or write an issue: {found:#?}");
}

#[test]
fn every_example_parses_and_is_named_in_a_story() {
    let stories: String = ["examples.rs", "examples_controllers.rs"]
        .map(|file| read(&workspace().join("e2e/tests").join(file)))
        .concat();
    let guide = read(&workspace().join("examples/README.md"));
    let mut examples = 0;
    for path in walk(&workspace().join("examples"), "yaml") {
        let name = path.strip_prefix(workspace().join("examples")).expect("it was found there");
        let name = name.to_string_lossy().into_owned();
        for document in serde_yaml::Deserializer::from_str(&read(&path)) {
            let value = serde_json::Value::deserialize(document)
                .unwrap_or_else(|error| panic!("{name} does not parse: {error}"));
            assert!(
                value["kind"].is_string() && value["apiVersion"].is_string(),
                "{name}: kind or apiVersion missing"
            );
        }
        assert!(stories.contains(&name), "{name} is in no story: add it to e2e/tests/examples.rs");
        assert!(guide.contains(&name), "{name} is not in examples/README.md");
        examples += 1;
    }
    assert!(examples > 0, "there are no examples");
}

#[test]
fn make_targets_are_short_and_explained() {
    let makefile = read(&workspace().join("Makefile"));
    let mut recipes: Vec<(String, usize)> = Vec::new();
    for line in makefile.lines() {
        if line.starts_with('\t') {
            recipes.last_mut().expect("a recipe follows a target").1 += 1;
        } else if let Some((target, rest)) = line.split_once(':')
            && !line.starts_with(['.', '#'])
            && !target.contains('=')
        {
            assert!(rest.contains("##"), "`make {target}` has no ## help");
            recipes.push((target.to_owned(), 0));
        }
    }
    assert!(recipes.len() > 5, "the Makefile was not understood: {recipes:?}");
    let long: Vec<_> = recipes.iter().filter(|(_, lines)| *lines > RECIPE_LINES_MAX).collect();
    assert!(long.is_empty(), "recipes over {RECIPE_LINES_MAX} lines: {long:?}");
}

fn metadata() -> Metadata {
    metadata_of("Cargo.toml")
}

fn metadata_of(manifest: &str) -> Metadata {
    let mut command = MetadataCommand::new();
    command.manifest_path(workspace().join(manifest)).no_deps();
    command.exec().expect("cargo metadata runs")
}

/// Every source file of ours; generated code is left out.
fn sources() -> Vec<PathBuf> {
    let files = walk(&workspace(), "rs");
    assert!(files.len() > 20, "the tree was not found: {files:?}");
    files.into_iter().filter(|path| !path.components().any(|part| part.as_os_str() == "gen")).collect()
}

fn walk(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the tree is readable") {
        let path = entry.expect("the tree is readable").path();
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            found.extend(walk(&path, extension));
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Follows `mod` lines from a file to the files that they name.
fn reach(file: &Path, is_root: bool, reached: &mut BTreeSet<PathBuf>) {
    let Ok(text) = fs::read_to_string(file) else { return };
    if !reached.insert(file.to_owned()) {
        return;
    }
    let folder = file.parent().expect("a file lies in a folder");
    let stem = file.file_stem().expect("a file has a name");
    let own = if is_root || stem == "mod" { folder.to_owned() } else { folder.join(stem) };
    let mut path = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.split('"').next().map(|named| folder.join(named));
        } else if let Some(name) = module_name(line) {
            match path.take() {
                Some(named) => reach(&named, false, reached),
                None => {
                    reach(&own.join(format!("{name}.rs")), false, reached);
                    reach(&own.join(name).join("mod.rs"), false, reached);
                }
            }
        }
    }
}

/// `name` of `pub(crate) mod name;`
fn module_name(line: &str) -> Option<&str> {
    let line = line.strip_suffix(';')?;
    let (before, name) = line.rsplit_once("mod ")?;
    let visible = before.is_empty() || before.starts_with("pub");
    (visible && name.chars().all(|c| c.is_alphanumeric() || c == '_')).then_some(name)
}
