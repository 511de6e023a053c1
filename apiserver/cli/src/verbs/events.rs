//! `events`: what happened, oldest first. Also the events at the end of `describe`.

use std::sync::Arc;

use claw_client::{
    ResourceRef, Verb, WatchEvent,
    request::{IncludeObject, ListOptions, View, WatchOptions},
};
use claw_schemas::{Descriptor, status::Reason};
use futures::StreamExt as _;
use serde_json::Value;

use super::{
    context::Context,
    output::{Format, print, without_managed_fields},
    resources,
    session::{Session, text},
    table::{Printer, Style, Table},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only about one object
    #[arg(long = "for", value_name = "TYPE/NAME")]
    about: Option<String>,
    /// Only of these types
    #[arg(long, value_name = "Normal,Warning", value_delimiter = ',')]
    types: Vec<String>,
    /// After printing, go on with new ones
    #[arg(short = 'w', long)]
    watch: bool,
    /// Leave the line of headers out
    #[arg(long)]
    no_headers: bool,
    /// Format
    #[arg(
        short = 'o',
        long,
        default_value = "",
        value_name = "json|yaml|wide|name",
        hide_default_value = true
    )]
    output: Format,
}

/// When an event was last seen; events of either API era carry it in another field.
pub fn last_seen(event: &Value) -> &str {
    [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/eventTime",
        "/firstTimestamp",
        "/metadata/creationTimestamp",
    ]
    .into_iter()
    .map(|pointer| text(event, pointer))
    .find(|time| !time.is_empty())
    .unwrap_or_default()
}

/// The order in which things happened: of one second, events are told apart by their revisions.
fn moment(event: &Value) -> (String, u64) {
    let revision = text(event, "/metadata/resourceVersion").parse().unwrap_or(0);
    (last_seen(event).to_owned(), revision)
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.session()?;
    let kind = session.kind("v1", "Event")?;
    let namespace = (!args.all_namespaces).then_some(session.namespace.as_str());
    let asked = Asked {
        collection: Session::collection(&kind, namespace),
        selectors: ListOptions { field_selector: about(&args, &session)?, ..ListOptions::default() },
        kind,
        session: &session,
        args: &args,
    };
    if args.output.is_table() || args.watch { asked.rows().await } else { asked.objects().await }
}

/// Which events, of which server.
struct Asked<'a> {
    session: &'a Session,
    args: &'a Args,
    kind: Arc<Descriptor>,
    collection: ResourceRef,
    selectors: ListOptions,
}

/// Rows with whole events, because rows are put into order by fields that no column shows.
const ROWS: View = View::Table(IncludeObject::Object);

impl Asked<'_> {
    fn is_wanted(&self, event: &Value) -> bool {
        self.args.types.is_empty() || self.args.types.iter().any(|wanted| wanted == text(event, "/type"))
    }

    async fn objects(&self) -> anyhow::Result<()> {
        let mut events = self.session.list(&self.kind, &self.collection, &self.selectors).await?;
        events.retain(|event| self.is_wanted(event));
        events.sort_by_cached_key(moment);
        let events: Vec<_> = events.into_iter().map(|e| (&*self.kind, without_managed_fields(e))).collect();
        Ok(print(&self.args.output.many(&events)?)?)
    }

    async fn rows(&self) -> anyhow::Result<()> {
        let list = Verb::List(self.selectors.clone());
        let answer = self.session.ask(self.collection.clone(), list, ROWS).await?;
        let mut table = Table::read(&answer)?;
        table.rows.retain(|row| self.is_wanted(&row.object));
        table.rows.sort_by_cached_key(|row| moment(&row.object));
        if table.rows.is_empty() && !self.args.watch {
            let place = self.collection.namespace.as_ref().map(|n| format!(" in {n} namespace"));
            eprintln!("No events found{}.", place.unwrap_or_default());
            return Ok(());
        }
        let style = Style {
            wide: self.args.output == Format::Wide,
            namespace: self.args.all_namespaces,
            ..Style::default()
        };
        let mut printer = Printer::new(&self.kind, style);
        print(&printer.render(&table, !self.args.no_headers))?;
        if !self.args.watch {
            return Ok(());
        }
        let mut revision = text(&answer, "/metadata/resourceVersion").to_owned();
        loop {
            revision = self.follow(&table, &mut printer, revision).await?;
        }
    }

    /// Prints changes after a revision until the watch ends, and says where to go on.
    async fn follow(
        &self,
        known: &Table,
        printer: &mut Printer,
        mut revision: String,
    ) -> anyhow::Result<String> {
        let options = WatchOptions {
            field_selector: self.selectors.field_selector.clone(),
            resource_version: Some(revision.clone()),
            allow_bookmarks: true,
            ..WatchOptions::default()
        };
        let mut changes = self.session.transport.watch(self.collection.clone(), options, ROWS).await?;
        while let Some(change) = changes.next().await {
            let body = match change? {
                WatchEvent::Added(body) | WatchEvent::Modified(body) => body,
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => continue,
                // Too old to go on from: what happens from now on is still worth printing.
                WatchEvent::Error(error) if error.reason == Reason::Expired => {
                    let latest = Verb::List(ListOptions { limit: 1, ..self.selectors.clone() });
                    let answer = self.session.ask(self.collection.clone(), latest, ROWS).await?;
                    return Ok(text(&answer, "/metadata/resourceVersion").to_owned());
                }
                WatchEvent::Error(error) => return Err(error.into()),
            };
            let mut rows = known.like();
            rows.extend(Table::read(&serde_json::from_slice(&body)?)?);
            if let Some(row) = rows.rows.last() {
                text(&row.object, "/metadata/resourceVersion").clone_into(&mut revision);
            }
            rows.rows.retain(|row| self.is_wanted(&row.object));
            print(&printer.render(&rows, false))?;
        }
        Ok(revision)
    }
}

fn about(args: &Args, session: &Session) -> anyhow::Result<String> {
    let Some(about) = &args.about else { return Ok(String::new()) };
    let (kind, name) = resources::one(&session.registry, std::slice::from_ref(about))?;
    Ok(format!("involvedObject.kind={},involvedObject.name={name}", kind.kind))
}

/// The events about one object, oldest first.
pub async fn about_object(
    session: &Session,
    kind: &Descriptor,
    object: &Value,
) -> anyhow::Result<Vec<Value>> {
    let events = session.kind("v1", "Event")?;
    // Events about cluster-scoped objects are kept in "default".
    let namespace = match text(object, "/metadata/namespace") {
        "" => "default",
        namespace => namespace,
    };
    let mut selector =
        format!("involvedObject.kind={},involvedObject.name={}", kind.kind, text(object, "/metadata/name"));
    let uid = text(object, "/metadata/uid");
    // Agents report on nodes by name, before they can know a uid.
    if !uid.is_empty() && kind.namespaced() {
        selector.push_str(&format!(",involvedObject.uid={uid}"));
    }
    let options = ListOptions { field_selector: selector, ..ListOptions::default() };
    let collection = Session::collection(&events, Some(namespace));
    let mut found = session.list(&events, &collection, &options).await?;
    found.sort_by_cached_key(moment);
    Ok(found)
}
