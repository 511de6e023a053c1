//! Compares descriptions with the files in `goldens/`.
//!
//! `UPDATE_GOLDENS=1 cargo test -p clawbernetes` rewrites them; the difference is then reviewed in git.

use std::{env, fs, path::Path};

/// Fails when the text differs from the golden file of that name.
#[track_caller]
pub fn check(name: &str, text: &str) {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/verbs/describe/goldens").join(format!("{name}.txt"));
    if env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&file, text).unwrap();
    }
    let golden = fs::read_to_string(&file).unwrap();
    assert!(golden == text, "{} differs; now it is:\n{text}", file.display());
}
