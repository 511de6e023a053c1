//! `diff`: what `apply` would change, found out by a dry run on the server.
//!
//! Exit codes are those of kubectl: 0 when nothing would change, 1 when something would, more when it cannot be told.

use std::process::ExitCode;

use anyhow::bail;
use claw_schemas::yaml;
use serde_json::Value;

use super::{
    apply::{self, LAST_APPLIED},
    context::Context,
    manifest::{Files, Placed},
    output::{print, without_managed_fields},
    session::{FIELD_MANAGER, Session, Write, text},
    unified,
};

/// When a difference cannot be told.
const TROUBLE: u8 = 2;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// What the server would merge, as `apply --server-side` has it
    #[arg(long)]
    server_side: bool,
    /// Take fields that others own
    #[arg(long, requires = "server_side")]
    force_conflicts: bool,
    /// Who would apply
    #[arg(long, value_name = "NAME", default_value = FIELD_MANAGER)]
    field_manager: String,
}

pub async fn run(args: Args, context: &Context) -> ExitCode {
    match differences(&args, context).await {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::FAILURE,
        Err(error) => {
            super::complain(&error);
            ExitCode::from(TROUBLE)
        }
    }
}

/// Prints the differences; whether there are any.
async fn differences(args: &Args, context: &Context) -> anyhow::Result<bool> {
    if args.files.paths.is_empty() {
        bail!("say what to compare: -f FILE, -f DIR or -f -");
    }
    let session = context.discovered().await?;
    let mut found = false;
    for placed in args.files.place(&session)? {
        let live = session.find(&placed.resource).await?;
        let merged = merged(args, &session, &placed).await?;
        let (mut live, mut merged) = (shown(live), shown(Some(merged)));
        if placed.kind.kind == "Secret" && placed.kind.group.is_empty() {
            hide(&mut live, &mut merged);
        }
        let changes = unified::diff(&lines(&live), &lines(&merged));
        if !changes.is_empty() {
            let name = file_name(&placed);
            let heads = format!("diff -u -N LIVE/{name} MERGED/{name}\n--- LIVE/{name}\n+++ MERGED/{name}\n");
            print(&format!("{heads}{changes}"))?;
            found = true;
        }
    }
    Ok(found)
}

/// The object as it would be.
async fn merged(args: &Args, session: &Session, placed: &Placed) -> anyhow::Result<Value> {
    let write = Write { dry_run: true, ..Write::default() }.by(&args.field_manager);
    if args.server_side {
        let force = args.force_conflicts;
        return Ok(session.apply(placed.resource.clone(), &placed.object, &write, force).await?);
    }
    Ok(apply::apply(session, placed, &write).await?.0)
}

/// Without what nobody wrote by hand.
fn shown(object: Option<Value>) -> Value {
    let Some(object) = object else { return Value::Null };
    let mut object = without_managed_fields(object);
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty()
            && let Some(metadata) = object["metadata"].as_object_mut()
        {
            metadata.remove("annotations");
        }
    }
    object
}

fn lines(object: &Value) -> String {
    if object.is_null() { String::new() } else { yaml::to_string(object) }
}

/// Says which values of a secret would change, and none of them.
fn hide(live: &mut Value, merged: &mut Value) {
    let before = live["data"].clone();
    for (key, value) in merged.pointer_mut("/data").and_then(Value::as_object_mut).into_iter().flatten() {
        let is_same = before[key] == *value;
        let has_both = !before[key].is_null() && !is_same;
        *value = if has_both { "*** (after)" } else { "***" }.into();
        if has_both {
            live["data"][key] = "*** (before)".into();
        }
    }
    for (_, value) in live.pointer_mut("/data").and_then(Value::as_object_mut).into_iter().flatten() {
        if *value != "*** (before)" {
            *value = "***".into();
        }
    }
}

/// `apps.v1.Deployment.default.web`
fn file_name(placed: &Placed) -> String {
    let kind = &placed.kind;
    let namespace = text(&placed.object, "/metadata/namespace");
    let parts =
        [&*kind.group, &*kind.version, &*kind.kind, namespace, text(&placed.object, "/metadata/name")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_secrets_are_not_shown_but_whether_they_differ_is() {
        let mut live = json!({"data": {"same": "YQ==", "other": "YQ==", "gone": "YQ=="}});
        let mut merged = json!({"data": {"same": "YQ==", "other": "Yg==", "new": "YQ=="}});
        hide(&mut live, &mut merged);
        assert_eq!(live, json!({"data": {"same": "***", "other": "*** (before)", "gone": "***"}}));
        assert_eq!(merged, json!({"data": {"same": "***", "other": "*** (after)", "new": "***"}}));
        let (mut none, mut new) = (Value::Null, json!({"data": {"a": "YQ=="}}));
        hide(&mut none, &mut new);
        assert_eq!((lines(&none).as_str(), new), ("", json!({"data": {"a": "***"}})));
    }

    #[test]
    fn what_the_last_apply_left_is_no_difference() {
        let object =
            json!({"metadata": {"name": "a", "managedFields": [], "annotations": {LAST_APPLIED: "{}"}}});
        assert_eq!(shown(Some(object)), json!({"metadata": {"name": "a"}}));
    }
}
