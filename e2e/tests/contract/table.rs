//! The tables in `docs/` and the tests keep each other true: every line names tests that exist, and every test that a table is
//! about stands for a line.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use claw_e2e::binary::workspace;

/// A document, and the heading under which its tables stand; all of it where there is none.
struct Tables(&'static str, Option<&'static str>);

const CLIENTS: Tables = Tables("docs/compatibility.md", Some("## What clients rely on"));
const FAULTS: Tables = Tables("docs/invariants.md", None);
const APPLY: Tables = Tables("docs/server-side-apply.md", None);

#[test]
fn every_line_names_tests_that_exist_and_every_test_here_stands_for_a_line() {
    let named = CLIENTS.named();
    assert!(named.len() > 60, "the tables were not found: {named:?}");
    let mut here = tests_of("e2e/tests/contract");
    // Those of this file are about the tables.
    let own = tests_of("e2e/tests/contract/table.rs");
    here.retain(|test| !own.contains(test));
    CLIENTS.names(&here);
}

#[test]
fn every_fault_names_tests_that_exist_and_every_invariant_stands_for_a_fault() {
    for module in ["history", "told", "promises", "capacity"] {
        FAULTS.names(&tests_of(&format!("e2e/src/{module}.rs")));
    }
}

#[test]
fn every_rule_of_apply_names_tests_that_exist_and_every_story_stands_for_a_rule() {
    APPLY.names(&tests_of("apiserver/src/fields/stories.rs"));
}

impl Tables {
    /// Fails when a line names what does not exist, or one of these tests is named by none.
    fn names(&self, tests: &BTreeSet<String>) {
        assert!(!tests.is_empty(), "the tests were not found");
        let (named, document) = (self.named(), self.0);
        let mut all = BTreeSet::new();
        for folder in ["apiserver", "controllers", "e2e", "nodeagent", "schemas"] {
            all.extend(tests_of(folder));
        }
        let unknown: Vec<_> = named.difference(&all).collect();
        assert!(unknown.is_empty(), "{document} names tests that do not exist: {unknown:#?}");
        let unnamed: Vec<_> = tests.difference(&named).collect();
        assert!(unnamed.is_empty(), "{document} does not say what these are for: {unnamed:#?}");
    }

    /// The tests in the last column.
    fn named(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(workspace().join(self.0)).unwrap();
        let section = match self.1 {
            Some(heading) => {
                let (_, after) = text.split_once(heading).expect("the section is there");
                after.split("\n## ").next().unwrap()
            }
            None => &text,
        };
        let mut named = BTreeSet::new();
        for row in section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| line")) {
            let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            let names: Vec<_> = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            assert!(!names.is_empty(), "no test is named by: {row}");
            named.extend(names);
        }
        named
    }
}

fn tests_of(place: &str) -> BTreeSet<String> {
    let (path, mut found) = (workspace().join(place), BTreeSet::new());
    if path.is_dir() {
        tests_below(&path, &mut found);
    } else {
        tests_in(&fs::read_to_string(&path).unwrap(), &mut found);
    }
    found
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

/// Functions that follow a test attribute, and those of the conformance suite of stores, which each backend makes tests of.
fn tests_in(source: &str, found: &mut BTreeSet<String>) {
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ")
            && (is_test || rest.contains("(store: Shared)"))
        {
            found.extend(rest.split('(').next().map(str::to_owned));
            is_test = false;
        }
    }
}
