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
    manifest::Files,
    output::{Format, print, without_managed_fields},
    resources,
    session::{PAGE_ITEMS, Session, is_not_found, text},
    table::{Printer, Style, Table},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// TYPE, TYPE NAME ..., or TYPE/NAME ...
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    selectors: Selectors,
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

/// Which objects of a collection.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Selectors {
    /// Only objects with these labels: app=web,tier!=db
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Only objects with these fields: status.phase=Running
    #[arg(long, default_value = "", hide_default_value = true)]
    pub field_selector: String,
}

impl Selectors {
    pub fn options(&self) -> ListOptions {
        ListOptions {
            label_selector: self.selector.clone(),
            field_selector: self.field_selector.clone(),
            ..ListOptions::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        self.selector.is_empty() && self.field_selector.is_empty()
    }
}

/// One thing to ask for: a collection or an object of it.
struct Ask {
    kind: Arc<Descriptor>,
    resource: ResourceRef,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.session()?;
    let asks = asks(&args, &session)?;
    if args.watch {
        let [ask] = asks.as_slice() else {
            bail!("--watch follows one collection or one object at a time");
        };
        return Watching::new(&args, &session, ask).run().await;
    }
    if args.output.is_table() {
        tables(&args, &session, asks).await
    } else {
        objects(&args, &session, asks).await
    }
}

fn asks(args: &Args, session: &Session) -> anyhow::Result<Vec<Ask>> {
    if !args.files.paths.is_empty() {
        if !args.resources.is_empty() {
            bail!("name objects either with -f or as TYPE/NAME, not both");
        }
        let placed = args.files.place(session)?;
        return Ok(placed.into_iter().map(|p| Ask { kind: p.kind, resource: p.resource }).collect());
    }
    let namespace = (!args.all_namespaces).then_some(session.namespace.as_str());
    let mut asks = Vec::new();
    for wanted in resources::parse(&session.registry, &args.resources)? {
        let collection = Session::collection(&wanted.kind, namespace);
        if wanted.names.is_empty() {
            asks.push(Ask { kind: wanted.kind, resource: collection });
            continue;
        }
        if args.all_namespaces && wanted.kind.namespaced() {
            bail!("a name is unique only in its namespace: use -n instead of --all-namespaces");
        }
        if !args.selectors.is_empty() {
            bail!("selectors choose among all objects: leave the names out, or the selectors");
        }
        for name in &wanted.names {
            let kind = Arc::clone(&wanted.kind);
            asks.push(Ask { kind, resource: collection.clone().named(name) });
        }
    }
    Ok(asks)
}

async fn objects(args: &Args, session: &Session, asks: Vec<Ask>) -> anyhow::Result<()> {
    let single = matches!(asks.as_slice(), [ask] if ask.resource.name.is_some());
    let mut found: Vec<(&Descriptor, Value)> = Vec::new();
    let mut missing = None;
    for ask in &asks {
        if ask.resource.name.is_none() {
            let items = session.list(&ask.kind, &ask.resource, &args.selectors.options()).await?;
            found.extend(items.into_iter().map(|item| (&*ask.kind, without_managed_fields(item))));
            continue;
        }
        match session.get(&ask.resource).await {
            Ok(object) => found.push((&ask.kind, without_managed_fields(object))),
            Err(error) if error.reason == Reason::NotFound && args.ignore_not_found => {}
            Err(error) if error.reason == Reason::NotFound => missing = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match found.as_slice() {
        [] if missing.is_some() => {}
        [] if single => {}
        [(kind, object)] if single => print(&args.output.one(kind, object)?)?,
        many => print(&args.output.many(many)?)?,
    }
    missing.map_or(Ok(()), |error| Err(error.into()))
}

async fn tables(args: &Args, session: &Session, asks: Vec<Ask>) -> anyhow::Result<()> {
    let several = asks.windows(2).any(|pair| !Arc::ptr_eq(&pair[0].kind, &pair[1].kind));
    let mut groups: Vec<(Arc<Descriptor>, Table)> = Vec::new();
    let mut missing = Vec::new();
    let mut named = false;
    for ask in asks {
        named |= ask.resource.name.is_some();
        let table = match table(session, &ask.resource, &args.selectors.options()).await {
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
        eprintln!("{}", nothing_found(args, session));
    }
    for (i, (kind, table)) in groups.iter().enumerate() {
        if i > 0 {
            print("\n")?;
        }
        let mut printer = Printer::new(kind, style(args, kind, several));
        print(&printer.render(table, !args.no_headers))?;
    }
    match missing.pop() {
        None => Ok(()),
        Some(_) if args.ignore_not_found => Ok(()),
        Some(last) => {
            for error in missing {
                super::complain(&error);
            }
            Err(last)
        }
    }
}

fn nothing_found(args: &Args, session: &Session) -> String {
    let namespaced = resources::parse(&session.registry, &args.resources)
        .is_ok_and(|wanted| wanted.iter().any(|wanted| wanted.kind.namespaced()));
    if args.all_namespaces || !namespaced {
        "No resources found".to_owned()
    } else {
        format!("No resources found in {} namespace.", session.namespace)
    }
}

fn style(args: &Args, kind: &Descriptor, with_kind: bool) -> Style {
    Style {
        wide: args.output == Format::Wide,
        namespace: args.all_namespaces && kind.namespaced(),
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
    fn new(args: &'a Args, session: &'a Session, ask: &'a Ask) -> Self {
        let mut collection = ask.resource.clone();
        let mut selectors = args.selectors.options();
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
        let (table, revision) = table(self.session, &self.collection, &self.selectors).await?;
        self.revision = revision;
        if !self.args.output.is_table() {
            for item in self.session.list(self.kind, &self.collection, &self.selectors).await? {
                print(&self.args.output.one(self.kind, &without_managed_fields(item))?)?;
            }
            return Ok(());
        }
        self.columns = table.like();
        self.show(&table)
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
