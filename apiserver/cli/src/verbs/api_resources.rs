//! `api-resources`: the kinds there are, and what to call them.

use claw_schemas::{Descriptor, Registry};

use super::output::print;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the line of headers out
    #[arg(long)]
    no_headers: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    Ok(print(&render(&Registry::builtin(), !args.no_headers))?)
}

fn render(registry: &Registry, header: bool) -> String {
    let mut lines = Vec::new();
    if header {
        lines.push(["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"].map(str::to_owned));
    }
    // Of several versions only the preferred one, as kubectl has it.
    let is_older = |kind: &Descriptor| kind.stored_as.is_some_and(|stored_as| stored_as.group == kind.group);
    lines.extend(registry.iter().filter(|kind| !is_older(kind)).map(|kind| row(kind)));
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0) + 3;
    let widths = [width(0), width(1), width(2), width(3), 0];
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(widths) {
            text.push_str(&format!("{cell:width$}"));
        }
        text.push('\n');
    }
    text
}

fn row(kind: &Descriptor) -> [String; 5] {
    [
        kind.plural.to_string(),
        kind.short_names.join(","),
        kind.api_version(),
        kind.namespaced().to_string(),
        kind.kind.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_under_the_names_that_verbs_take() {
        let text = render(&Registry::builtin(), true);
        assert!(text.starts_with("NAME"), "{text}");
        let line = text.lines().find(|line| line.starts_with("deployments ")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["deployments", "deploy", "apps/v1", "true", "Deployment"]);
    }
}
