//! `wait`: return when a condition holds.

use std::time::Duration;

use anyhow::bail;
use claw_client::ResourceRef;
use claw_schemas::{ApiError, jsonpath::JsonPath};
use serde_json::Value;

use super::{
    context::Context,
    duration,
    output::print,
    session::{Session, short_name, text},
    targets::{Target, Targets},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    targets: Targets,
    /// Every object of the type in the namespace
    #[arg(long)]
    all: bool,
    /// What to wait for
    #[arg(long = "for", value_name = "condition=NAME[=VALUE]|jsonpath={PATH}[=VALUE]|create|delete", value_parser = parse_goal)]
    goal: Goal,
    /// How long to wait for all of it; 0 looks once
    #[arg(long, value_parser = duration::parse, default_value = "30s")]
    timeout: Duration,
}

/// `--for`
#[derive(Clone, Debug, PartialEq)]
enum Goal {
    Condition {
        name: String,
        value: String,
    },
    /// A field has this value, or any.
    Field {
        text: String,
        path: JsonPath,
        value: Option<String>,
    },
    Created,
    Deleted,
}

fn parse_goal(text: &str) -> Result<Goal, String> {
    match text.split_once('=') {
        None if text == "delete" => Ok(Goal::Deleted),
        None if text == "create" => Ok(Goal::Created),
        Some(("condition", condition)) if !condition.is_empty() => {
            let (name, value) = condition.split_once('=').unwrap_or((condition, "True"));
            Ok(Goal::Condition { name: name.to_owned(), value: value.to_owned() })
        }
        Some(("jsonpath", field)) => parse_field(field),
        _ => Err(format!(
            "\"{text}\" is nothing to wait for: use condition=NAME, condition=NAME=VALUE, jsonpath={{PATH}}, \
             jsonpath={{PATH}}=VALUE, create or delete"
        )),
    }
}

/// `{.status.phase}=Running`, or the path alone for a field that is there. Values may be quoted, paths stand in braces.
fn parse_field(text: &str) -> Result<Goal, String> {
    let bare = text.trim_matches('\'');
    let (path, value) = match bare.find('}') {
        Some(end) if bare.starts_with('{') => bare.split_at(end + 1),
        _ => bare.split_once('=').map_or((bare, ""), |(path, _)| (path, &bare[path.len()..])),
    };
    let value = match value.trim_start_matches('\'') {
        "" => None,
        value => Some(
            value.strip_prefix('=').ok_or_else(|| format!("\"{text}\": \"=VALUE\" may follow the path"))?,
        ),
    };
    if value.is_some_and(str::is_empty) {
        return Err(format!("\"{text}\" names no value: leave \"=\" out to wait for any"));
    }
    let parsed = JsonPath::parse(path)
        .ok_or_else(|| format!("\"{path}\" is no JSONPath such as {{.status.phase}}"))?;
    let value = value.map(|value| value.trim_matches(['\'', '"']).to_owned());
    Ok(Goal::Field { text: path.to_owned(), path: parsed, value })
}

impl Goal {
    fn reached(&self, object: Option<&Value>) -> bool {
        match self {
            Self::Deleted => object.is_none(),
            Self::Created => object.is_some(),
            Self::Condition { name, value } => object.is_some_and(|object| holds(object, name, value)),
            Self::Field { path, value, .. } => {
                let found = object.and_then(|object| path.first(object)).filter(|found| !found.is_null());
                found.is_some_and(|found| value.as_ref().is_none_or(|value| is_value(found, value)))
            }
        }
    }
}

/// Whether a field has a value that somebody typed. Lists and maps have none that could be typed.
fn is_value(found: &Value, typed: &str) -> bool {
    match found {
        Value::String(text) => text == typed,
        Value::Bool(_) | Value::Number(_) => typed == found.to_string().as_str(),
        _ => false,
    }
}

/// Whether a condition has a value, judged on the newest spec.
fn holds(object: &Value, name: &str, value: &str) -> bool {
    let generation = object["metadata"]["generation"].as_i64();
    let stale = |observed: &Value| matches!((observed.as_i64(), generation), (Some(o), Some(g)) if o < g);
    if stale(&object["status"]["observedGeneration"]) {
        return false;
    }
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| {
        text(condition, "/type").eq_ignore_ascii_case(name)
            && !stale(&condition["observedGeneration"])
            && text(condition, "/status").eq_ignore_ascii_case(value)
    })
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.discovered().await?;
    let deadline = tokio::time::Instant::now() + args.timeout;
    let objects = args.targets.each(&session, args.all, "wait for").await?;
    // What does not exist need not be waited away.
    if objects.is_empty() && args.goal != Goal::Deleted {
        bail!("no matching resources found");
    }
    for Target { kind, resource } in objects {
        let name = short_name(&kind, resource.name.as_deref().unwrap_or_default());
        let now = session.find(&resource).await?;
        if now.is_none() && matches!(args.goal, Goal::Condition { .. } | Goal::Field { .. }) {
            let name = resource.name.as_deref().unwrap_or_default();
            return Err(ApiError::not_found(&kind.group, &kind.plural, name).into());
        }
        if !args.goal.reached(now.as_ref()) {
            let uid = now.as_ref().map(|now| text(now, "/metadata/uid").to_owned());
            let reached = until(&session, &resource, &args.goal, uid);
            if tokio::time::timeout_at(deadline, reached).await.map_or(Ok(true), |r| r.map(|()| false))? {
                bail!("timed out waiting for {} on {name}", goal_name(&args.goal));
            }
        }
        print(&format!("{name} condition met\n"))?;
    }
    Ok(())
}

fn goal_name(goal: &Goal) -> String {
    match goal {
        Goal::Condition { name, value } => format!("condition {name}={value}"),
        Goal::Field { text, value: Some(value), .. } => format!("{text} to be {value}"),
        Goal::Field { text, value: None, .. } => format!("{text} to be set"),
        Goal::Created => "creation".to_owned(),
        Goal::Deleted => "deletion".to_owned(),
    }
}

async fn until(
    session: &Session,
    resource: &ResourceRef,
    goal: &Goal,
    uid: Option<String>,
) -> anyhow::Result<()> {
    let mut observed = session.observe(resource);
    loop {
        let mut now = observed.now().await?;
        // Another object under the same name means that ours was deleted.
        if *goal == Goal::Deleted
            && let (Some(object), Some(uid)) = (&now, &uid)
            && text(object, "/metadata/uid") != uid
        {
            now = None;
        }
        if goal.reached(now.as_ref()) {
            return Ok(());
        }
        observed.changed().await?;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn goals_are_read_or_refused() {
        let condition = |name: &str, value: &str| Goal::Condition { name: name.into(), value: value.into() };
        assert_eq!(parse_goal("condition=Ready").unwrap(), condition("Ready", "True"));
        assert_eq!(parse_goal("condition=Ready=false").unwrap(), condition("Ready", "false"));
        assert_eq!(parse_goal("delete").unwrap(), Goal::Deleted);
        for text in ["", "condition=", "deleted"] {
            assert!(parse_goal(text).unwrap_err().contains("use condition=NAME"), "{text}");
        }
    }

    #[test]
    fn a_field_is_waited_for_until_it_is_there_or_has_a_value() {
        let object = json!({"status": {"phase": "Running", "ready": true, "count": 3, "none": null,
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let reached = |text: &str| parse_goal(text).map(|goal| goal.reached(Some(&object)));
        for text in [
            "jsonpath={.status.phase}=Running",
            "jsonpath='{.status.phase}'=Running",
            "jsonpath={.status.phase}='Running'",
            "jsonpath=.status.phase=Running",
            "jsonpath={.status.phase}",
            "jsonpath={.status.ready}=true",
            "jsonpath={.status.count}=3",
            r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}=True"#,
        ] {
            assert_eq!(reached(text), Ok(true), "{text}");
        }
        for text in ["jsonpath={.status.phase}=Ended", "jsonpath={.status.none}", "jsonpath={.status}=x"] {
            assert_eq!(reached(text), Ok(false), "{text}");
        }
        for text in ["jsonpath=", "jsonpath={.a}b", "jsonpath={.a}=", "jsonpath={a", "jsonpath={.a[}"] {
            assert!(reached(text).is_err(), "{text}");
        }
        assert!(!parse_goal("jsonpath={.a}").unwrap().reached(None));
    }

    #[test]
    fn a_condition_of_an_older_spec_does_not_count() {
        let object = |observed: i64| {
            json!({
                "metadata": {"generation": 2},
                "status": {"observedGeneration": observed, "conditions": [{"type": "Available", "status": "True"}]},
            })
        };
        assert!(!holds(&object(1), "available", "true"));
        assert!(holds(&object(2), "available", "true"));
        assert!(!holds(&object(2), "available", "False"));
        assert!(!holds(&object(2), "progressing", "true"));
    }
}
