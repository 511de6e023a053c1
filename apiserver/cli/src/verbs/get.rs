//! `get`: print objects.

use std::sync::Arc;

use anyhow::bail;
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
    session::{PAGE_ITEMS, Session, is_not_found, text},
    table::{Printer, Style, Table},
    targets::{Target, Targets},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    targets: Targets,
    /// Format
    #[arg(
        short = 'o',
        long,
        default_value = "",
        value_name = "json|yaml|wide|name",
        hide_default_value = true
    )]
    output: Format,
    /// After printing, go on with changes
    #[arg(short = 'w', long)]
    watch: bool,
    /// Show labels as a last column
    #[arg(long)]
    show_labels: bool,
    /// Leave the line of headers out
    #[arg(long)]
    no_headers: bool,
    /// Succeed when a named object does not exist
    #[arg(long)]
    ignore_not_found: bool,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.discovered().await?;
    let asks = args.targets.read(&session)?;
    if args.watch {
        let [ask] = asks.as_slice() else {
            bail!("--watch follows one collection or one object at a time");
        };
        if ask.resource.name.is_some() {
            // A misspelt name would be waited for in silence.
            session.get(&ask.resource).await?;
        }
        return Watching::new(&args, &session, ask).run().await;
    }
    if args.output.is_table() {
        tables(&args, &session, asks).await
    } else {
        objects(&args, &session, asks).await
    }
}

async fn objects(args: &Args, session: &Session, asks: Vec<Target>) -> anyhow::Result<()> {
    let single = matches!(asks.as_slice(), [ask] if ask.resource.name.is_some());
    let mut found: Vec<(&Descriptor, Value)> = Vec::new();
    let mut missing = Vec::new();
    for ask in &asks {
        if ask.resource.name.is_none() {
            let items = session.list(&ask.kind, &ask.resource, &args.targets.selectors.options()).await?;
            found.extend(items.into_iter().map(|item| (&*ask.kind, without_managed_fields(item))));
            continue;
        }
        match session.get(&ask.resource).await {
            Ok(object) => found.push((&ask.kind, without_managed_fields(object))),
            Err(error) if error.reason == Reason::NotFound => missing.push(error.into()),
            Err(error) => return Err(error.into()),
        }
    }
    match found.as_slice() {
        [] if single || !missing.is_empty() => {}
        [(kind, object)] if single => print(&args.output.one(kind, object)?)?,
        many => print(&args.output.many(many)?)?,
    }
    told(args, missing)
}

/// Objects asked for by name that do not exist: each is told, and the verb fails, unless that is no fault.
fn told(args: &Args, mut missing: Vec<anyhow::Error>) -> anyhow::Result<()> {
    let Some(last) = missing.pop().filter(|_| !args.ignore_not_found) else { return Ok(()) };
    missing.iter().for_each(super::complain);
    Err(last)
}

async fn tables(args: &Args, session: &Session, asks: Vec<Target>) -> anyhow::Result<()> {
    let several = asks.windows(2).any(|pair| !Arc::ptr_eq(&pair[0].kind, &pair[1].kind));
    let mut groups: Vec<(Arc<Descriptor>, Table)> = Vec::new();
    let mut missing = Vec::new();
    let mut named = false;
    for ask in asks {
        named |= ask.resource.name.is_some();
        let table = match table(session, &ask.resource, &args.targets.selectors.options()).await {
            Ok((table, _)) => table,
            Err(error) if is_not_found(&error) && ask.resource.name.is_some() => {
                missing.push(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        match groups.last_mut().filter(|(kind, _)| Arc::ptr_eq(kind, &ask.kind)) {
            Some((_, group)) => group.extend(table),
            None => groups.push((ask.kind, table)),
        }
    }
    groups.retain(|(_, table)| !table.rows.is_empty());
    if groups.is_empty() && !named {
        eprintln!("{}", args.targets.nothing_found(session));
    }
    for (i, (kind, table)) in groups.iter().enumerate() {
        if i > 0 {
            print("\n")?;
        }
        let mut printer = Printer::new(kind, style(args, kind, several));
        print(&printer.render(table, !args.no_headers))?;
    }
    told(args, missing)
}

fn style(args: &Args, kind: &Descriptor, with_kind: bool) -> Style {
    Style {
        wide: args.output == Format::Wide,
        namespace: args.targets.all_namespaces && kind.namespaced(),
        with_kind,
        labels: args.show_labels,
    }
}

const ROWS: View = View::Table(IncludeObject::Metadata);

/// A whole table, page by page, with its revision.
async fn table(
    session: &Session,
    resource: &ResourceRef,
    selectors: &ListOptions,
) -> anyhow::Result<(Table, String)> {
    if resource.name.is_some() {
        let answer = session.ask(resource.clone(), Verb::Get, ROWS).await?;
        let revision = text(&answer, "/metadata/resourceVersion").to_owned();
        return Ok((Table::read(&answer)?, revision));
    }
    let mut options = ListOptions { limit: PAGE_ITEMS, ..selectors.clone() };
    let mut whole = Table::default();
    loop {
        let answer = session.ask(resource.clone(), Verb::List(options.clone()), ROWS).await?;
        whole.extend(Table::read(&answer)?);
        match text(&answer, "/metadata/continue") {
            "" => return Ok((whole, text(&answer, "/metadata/resourceVersion").to_owned())),
            token => options.continue_token = Some(token.to_owned()),
        }
    }
}

/// A collection or object whose changes are printed as they come.
struct Watching<'a> {
    args: &'a Args,
    session: &'a Session,
    kind: &'a Descriptor,
    collection: ResourceRef,
    selectors: ListOptions,
    printer: Printer,
    columns: Table,
    /// Whether the line of headers is still to be printed.
    header: bool,
    revision: String,
}

impl<'a> Watching<'a> {
    fn new(args: &'a Args, session: &'a Session, ask: &'a Target) -> Self {
        let mut collection = ask.resource.clone();
        let mut selectors = args.targets.selectors.options();
        if let Some(name) = collection.name.take() {
            selectors.field_selector = format!("metadata.name={name}");
        }
        Self {
            args,
            session,
            kind: &ask.kind,
            collection,
            selectors,
            printer: Printer::new(&ask.kind, style(args, &ask.kind, false)),
            columns: Table::default(),
            header: !args.no_headers,
            revision: String::new(),
        }
    }

    async fn run(mut self) -> anyhow::Result<()> {
        self.begin().await?;
        loop {
            let options = WatchOptions {
                label_selector: self.selectors.label_selector.clone(),
                field_selector: self.selectors.field_selector.clone(),
                resource_version: Some(self.revision.clone()),
                allow_bookmarks: true,
                ..WatchOptions::default()
            };
            let view = if self.args.output.is_table() { ROWS } else { View::Object };
            let mut events = self.session.transport.watch(self.collection.clone(), options, view).await?;
            while let Some(event) = events.next().await {
                match event? {
                    WatchEvent::Added(body) | WatchEvent::Modified(body) | WatchEvent::Deleted(body) => {
                        self.changed(&serde_json::from_slice(&body)?)?;
                    }
                    WatchEvent::Bookmark(body) => self.advance(&serde_json::from_slice(&body)?),
                    // Too old to go on from: what is there now is printed again.
                    WatchEvent::Error(error) if error.reason == Reason::Expired => {
                        self.begin().await?;
                        break;
                    }
                    WatchEvent::Error(error) => return Err(error.into()),
                }
            }
        }
    }

    /// What exists before the first change.
    async fn begin(&mut self) -> anyhow::Result<()> {
        if self.args.output.is_table() {
            let (table, revision) = table(self.session, &self.collection, &self.selectors).await?;
            self.revision = revision;
            self.columns = table.like();
            return self.show(&table);
        }
        let (items, revision) = self.session.snapshot(self.kind, &self.collection, &self.selectors).await?;
        self.revision = revision;
        for item in items {
            print(&self.args.output.one(self.kind, &without_managed_fields(item))?)?;
        }
        Ok(())
    }

    fn show(&mut self, table: &Table) -> anyhow::Result<()> {
        if !table.rows.is_empty() {
            let header = std::mem::take(&mut self.header);
            print(&self.printer.render(table, header))?;
        }
        Ok(())
    }

    fn changed(&mut self, body: &Value) -> anyhow::Result<()> {
        if !self.args.output.is_table() {
            self.advance(body);
            print(&self.args.output.one(self.kind, &without_managed_fields(body.clone()))?)?;
            return Ok(());
        }
        let mut rows = self.columns.like();
        rows.extend(Table::read(body)?);
        if let Some(row) = rows.rows.last() {
            self.advance(&row.object.clone());
        }
        self.show(&rows)
    }

    fn advance(&mut self, object: &Value) {
        let mut revision = text(object, "/metadata/resourceVersion");
        if revision.is_empty() {
            // A bookmark of a Table watch is a Table of one row.
            revision = text(object, "/rows/0/object/metadata/resourceVersion");
        }
        if !revision.is_empty() {
            self.revision = revision.to_owned();
        }
    }
}
