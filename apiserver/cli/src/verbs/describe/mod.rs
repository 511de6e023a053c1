//! `describe`: everything about an object that a person wants to know, and what happened to it.

mod deployment;
mod generic;
#[cfg(test)]
mod golden;
mod node;
mod pod;
mod sheet;

use std::sync::Arc;

use claw_schemas::Descriptor;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    context::Context,
    events,
    output::print,
    session::{Session, text},
    targets::{Target, Targets},
};
use sheet::{Sheet, plain};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    targets: Targets,
    /// Leave events out
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    show_events: bool,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.discovered().await?;
    let mut objects = Vec::new();
    for Target { kind, resource } in args.targets.read(&session)? {
        let found = match resource.name {
            Some(_) => vec![session.get(&resource).await?],
            None => session.list(&kind, &resource, &args.targets.selectors.options()).await?,
        };
        objects.extend(found.into_iter().map(|object| (Arc::clone(&kind), object)));
    }
    if objects.is_empty() {
        eprintln!("{}", args.targets.nothing_found(&session));
    }
    for (i, (kind, object)) in objects.iter().enumerate() {
        if i > 0 {
            print("\n\n")?;
        }
        print(&describe(&session, kind, object, args.show_events).await?)?;
    }
    Ok(())
}

async fn describe(
    session: &Session,
    kind: &Descriptor,
    object: &Value,
    show_events: bool,
) -> anyhow::Result<String> {
    let mut sheet = Sheet::default();
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") => pod::describe(&mut sheet, object),
        ("apps", "Deployment") => {
            deployment::describe(&mut sheet, object, &deployment::sets(session, object).await?);
        }
        ("", "Node") => node::describe(&mut sheet, object, &node::pods(session, object).await?),
        _ => generic::describe(&mut sheet, object),
    }
    if show_events && kind.kind != "Event" {
        let events = events::about_object(session, kind, object).await?;
        describe_events(&mut sheet, &events, Timestamp::now());
    }
    Ok(sheet.render())
}

fn describe_events(sheet: &mut Sheet, events: &[Value], now: Timestamp) {
    if events.is_empty() {
        return sheet.pair(0, "Events", "<none>");
    }
    sheet.heading(0, "Events");
    let mut rows = vec![["Type", "Reason", "Age", "From", "Message"].map(str::to_owned).to_vec()];
    for event in events {
        let count = event["count"].as_i64().or_else(|| event.pointer("/series/count")?.as_i64()).unwrap_or(1);
        let age = age(events::last_seen(event), now);
        let age = if count > 1 {
            format!("{age} (x{count} over {})", self::age(text(event, "/firstTimestamp"), now))
        } else {
            age
        };
        let from = match text(event, "/source/component") {
            "" => text(event, "/reportingComponent"),
            component => component,
        };
        rows.push(vec![
            text(event, "/type").to_owned(),
            text(event, "/reason").to_owned(),
            age,
            from.to_owned(),
            text(event, "/message").trim().replace('\n', " "),
        ]);
    }
    sheet.table(1, &rows);
}

/// Time since a moment, as in every AGE column.
fn age(moment: &str, now: Timestamp) -> String {
    claw_schemas::columns::age(&Value::from(moment), now)
}

/// What every object begins with.
fn describe_metadata(sheet: &mut Sheet, object: &Value) {
    let metadata = &object["metadata"];
    sheet.pair(0, "Name", text(object, "/metadata/name"));
    sheet.known(0, "Namespace", text(object, "/metadata/namespace"));
    sheet.map(0, "Labels", &metadata["labels"], "=");
    let mut annotations = metadata["annotations"].clone();
    if let Some(map) = annotations.as_object_mut() {
        // The whole manifest once more.
        map.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    sheet.map(0, "Annotations", &annotations, ": ");
    sheet.pair(0, "CreationTimestamp", text(object, "/metadata/creationTimestamp"));
    if let Some(deleted) = metadata["deletionTimestamp"].as_str() {
        let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        sheet.pair(0, "Deletion", format!("asked for at {deleted}, grace period {grace} s"));
        let finalizers: Vec<String> = items(&metadata["finalizers"]).map(plain).collect();
        sheet.known(0, "Held By", &finalizers.join("\n"));
    }
    let owners: Vec<String> = items(&metadata["ownerReferences"])
        .map(|owner| {
            let controls = if owner["controller"] == true { "" } else { " (not controlling)" };
            format!("{}/{}{controls}", text(owner, "/kind"), text(owner, "/name"))
        })
        .collect();
    sheet.known(0, "Controlled By", &owners.join("\n"));
}

/// The conditions of any object, with their reasons.
fn describe_conditions(sheet: &mut Sheet, object: &Value) {
    let conditions: Vec<&Value> = object.pointer("/status/conditions").into_iter().flat_map(items).collect();
    if conditions.is_empty() {
        return;
    }
    sheet.heading(0, "Conditions");
    let mut rows = vec![["Type", "Status", "Since", "Reason", "Message"].map(str::to_owned).to_vec()];
    rows.extend(conditions.into_iter().map(|condition| {
        ["/type", "/status", "/lastTransitionTime", "/reason", "/message"]
            .map(|pointer| text(condition, pointer).to_owned())
            .to_vec()
    }));
    sheet.table(1, &rows);
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// `cpu: 1, memory: 2Gi`, or `<none>`.
fn amounts(map: &Value) -> String {
    let amounts: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, amount)| format!("{name}: {}", plain(amount)))
        .collect();
    if amounts.is_empty() { "<none>".to_owned() } else { amounts.join(", ") }
}
