//! `api-resources`: the kinds there are, and what to call them.

use anyhow::bail;

use super::{context::Context, discovery::Resource, output::print, table::lay_out};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the line of headers out
    #[arg(long)]
    no_headers: bool,
    /// Only kinds whose objects live in a namespace, or only others
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    namespaced: Option<bool>,
    /// Only kinds of this group
    #[arg(long, value_name = "GROUP")]
    api_group: Option<String>,
    /// Only kinds that can do all of this
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// "wide" shows verbs and categories, "name" names alone
    #[arg(short = 'o', long, default_value = "", value_name = "wide|name", hide_default_value = true)]
    output: String,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.discovered().await?;
    let mut kinds: Vec<&Resource> = session.resources.iter().filter(|kind| args.chooses(kind)).collect();
    kinds.sort_by(|a, b| (&a.kind.group, &a.kind.plural).cmp(&(&b.kind.group, &b.kind.plural)));
    let text = match args.output.as_str() {
        "name" => kinds.iter().map(|resource| format!("{}\n", resource.kind.qualified_plural())).collect(),
        "" | "wide" => render(&kinds, args.output == "wide", !args.no_headers),
        other => bail!("\"{other}\" is not an output format: use wide or name"),
    };
    Ok(print(&text)?)
}

impl Args {
    fn chooses(&self, resource: &Resource) -> bool {
        let kind = &resource.kind;
        self.namespaced.is_none_or(|namespaced| namespaced == kind.namespaced())
            && self.api_group.as_ref().is_none_or(|group| *group == kind.group)
            && self.verbs.iter().all(|verb| resource.verbs.contains(verb))
    }
}

fn render(kinds: &[&Resource], wide: bool, header: bool) -> String {
    let mut lines = Vec::new();
    if header {
        let columns = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", "VERBS", "CATEGORIES"];
        lines.push(columns.map(str::to_owned).to_vec());
    }
    lines.extend(kinds.iter().map(|resource| row(resource)));
    if !wide {
        lines.iter_mut().for_each(|line| line.truncate(5));
    }
    lay_out(&lines)
}

fn row(resource: &Resource) -> Vec<String> {
    let kind = &resource.kind;
    vec![
        kind.plural.to_string(),
        kind.short_names.join(","),
        kind.api_version(),
        kind.namespaced().to_string(),
        kind.kind.to_string(),
        resource.verbs.join(","),
        kind.categories.join(","),
    ]
}

#[cfg(test)]
mod tests {
    use claw_schemas::Registry;

    use super::*;

    #[test]
    fn a_kind_is_listed_under_the_names_that_verbs_take() {
        let kind = Registry::builtin().named("deploy").unwrap().clone();
        let resource = Resource { kind, verbs: vec!["get".to_owned(), "list".to_owned()] };
        assert_eq!(
            render(&[&resource], false, true),
            "NAME          SHORTNAMES   APIVERSION   NAMESPACED   KIND\n\
             deployments   deploy       apps/v1      true         Deployment\n"
        );
        assert_eq!(
            render(&[&resource], true, false),
            "deployments   deploy   apps/v1   true   Deployment   get,list   all\n"
        );
    }
}
