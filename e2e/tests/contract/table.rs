//! The table in `docs/compatibility.md` and the tests keep each other true: every line names tests that exist, and every
//! test here stands for a line.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use claw_e2e::binary::workspace;

/// Where the tables begin and end.
const BEGINS: &str = "## What clients rely on";
const ENDS: &str = "## ";

#[test]
fn every_line_names_tests_that_exist_and_every_test_here_stands_for_a_line() {
    let named = named();
    assert!(named.len() > 60, "the tables were not found: {named:?}");
    let mut all = BTreeSet::new();
    for folder in ["apiserver", "controllers", "e2e", "schemas"] {
        tests_below(&workspace().join(folder), &mut all);
    }
    let unknown: Vec<_> = named.difference(&all).collect();
    assert!(unknown.is_empty(), "docs/compatibility.md names tests that do not exist: {unknown:#?}");
    let mut here = BTreeSet::new();
    tests_below(&workspace().join("e2e/tests/contract"), &mut here);
    here.remove("every_line_names_tests_that_exist_and_every_test_here_stands_for_a_line");
    let unnamed: Vec<_> = here.difference(&named).collect();
    assert!(unnamed.is_empty(), "docs/compatibility.md does not say what these are for: {unnamed:#?}");
}

/// The tests in the last column of the tables.
fn named() -> BTreeSet<String> {
    let text = fs::read_to_string(workspace().join("docs/compatibility.md")).unwrap();
    let (_, after) = text.split_once(BEGINS).expect("the section is there");
    let section = after.split(&format!("\n{ENDS}")).next().unwrap();
    let mut named = BTreeSet::new();
    for row in section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| line")) {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<_> = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(!names.is_empty(), "no test is named by: {row}");
        named.extend(names);
    }
    named
}

fn tests_below(folder: &Path, found: &mut BTreeSet<String>) {
    for path in entries(folder) {
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests_in(&fs::read_to_string(&path).unwrap(), found);
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().is_some_and(|name| name != "target")).collect()
}

/// Functions that follow a test attribute.
fn tests_in(source: &str, found: &mut BTreeSet<String>) {
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ")
            && is_test
        {
            found.extend(rest.split('(').next().map(str::to_owned));
            is_test = false;
        }
    }
}
