//! `apply`: make the cluster hold what manifests say.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use claw_client::request::{FieldValidation, PatchKind};
use claw_schemas::status::Reason;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    context::Context,
    manifest::{Files, Manifest, Placed},
    output::{Format, print, without_managed_fields},
    session::{FIELD_MANAGER, Session, Write, short_name, text},
    three_way,
};

/// Where the last applied manifest is kept; the name that kubectl uses, so that both can take turns.
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The kind of definitions of kinds.
const DEFINITION: &str = "CustomResourceDefinition";

/// How long a kind that was just defined may take to be served: it takes milliseconds, unless its name is another's already.
const SERVED_LIMIT: Duration = Duration::from_secs(30);

/// How often to look.
const SERVED_POLL: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    flags: WriteFlags,
    /// Let the server merge, and keep account of who owns which field
    #[arg(long)]
    server_side: bool,
    /// Take fields that others own
    #[arg(long, requires = "server_side")]
    force_conflicts: bool,
    /// Who applies, for the account of owners
    #[arg(long, value_name = "NAME", default_value = FIELD_MANAGER)]
    field_manager: String,
    /// Print the objects as they are afterwards
    #[arg(short = 'o', long, value_name = "json|yaml|name")]
    output: Option<Format>,
}

/// Options of verbs that write whole objects.
#[derive(Clone, Debug, clap::Args)]
pub struct WriteFlags {
    /// What to do about unknown fields
    #[arg(long, default_value = "strict", value_name = "strict|warn|ignore")]
    validate: String,
    /// Try it without storing anything
    #[arg(long, value_name = "none|server", default_value = "none")]
    dry_run: String,
}

impl WriteFlags {
    pub fn read(&self) -> anyhow::Result<Write> {
        let validation = match self.validate.as_str() {
            "strict" | "true" => FieldValidation::Strict,
            "warn" => FieldValidation::Warn,
            "ignore" | "false" => FieldValidation::Ignore,
            other => bail!("--validate={other}: use strict, warn or ignore"),
        };
        let dry_run = match self.dry_run.as_str() {
            "none" => false,
            "server" => true,
            other => bail!("--dry-run={other}: use none or server"),
        };
        Ok(Write { dry_run, validation, ..Write::default() })
    }
}

/// Applies every object, even when one fails; the verb then fails as a whole. Definitions of kinds come first, since others may
/// be of these kinds.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    if args.files.paths.is_empty() {
        bail!("say what to apply: -f FILE, -f DIR or -f -");
    }
    let session = context.discovered().await?;
    let write = args.flags.read()?.by(&args.field_manager);
    let (definitions, others): (Vec<_>, Vec<_>) =
        args.files.read()?.into_iter().partition(|manifest| manifest.type_meta().1 == DEFINITION);
    let mut run = Run { args, write, total: definitions.len() + others.len(), failed: 0 };
    let defined = run.all(&session, definitions).await?;
    let session =
        if run.write.dry_run { session } else { knowing(context, session, &defined, &others).await? };
    run.all(&session, others).await?;
    match run.failed {
        0 => Ok(()),
        failed => bail!("{failed} of {} objects were not applied", run.total),
    }
}

/// The same session once it knows the kinds that were defined, as far as these objects need them, or when they take too long.
async fn knowing(
    context: &Context,
    mut session: Session,
    defined: &[Value],
    objects: &[Manifest],
) -> anyhow::Result<Session> {
    let until = Instant::now() + SERVED_LIMIT;
    let is_missing = |session: &Session| {
        let mut types = objects.iter().map(Manifest::type_meta);
        types.any(|(version, kind)| {
            session.kind(version, kind).is_err() && defined.iter().any(|one| defines(one, version, kind))
        })
    };
    while is_missing(&session) && Instant::now() < until {
        sleep(SERVED_POLL).await;
        session = context.discovered().await?;
    }
    Ok(session)
}

/// Whether a definition is of this kind, and has this version.
fn defines(definition: &Value, api_version: &str, kind: &str) -> bool {
    let spec = &definition["spec"];
    let Some((group, version)) = api_version.split_once('/') else { return false };
    let mut versions = spec["versions"].as_array().into_iter().flatten();
    spec["group"] == group
        && spec["names"]["kind"] == kind
        && versions.any(|one| one["name"] == version && one["served"] == true)
}

/// One run of the verb.
struct Run {
    args: Args,
    write: Write,
    total: usize,
    failed: usize,
}

impl Run {
    /// Applies objects, tells of each, and gives those that were applied, as they are afterwards.
    async fn all(&mut self, session: &Session, manifests: Vec<Manifest>) -> anyhow::Result<Vec<Value>> {
        let mut applied = Vec::new();
        for manifest in manifests {
            match self.one(session, manifest).await {
                Ok((placed, after, what)) => {
                    self.report(&placed, after.clone(), what)?;
                    applied.push(after);
                }
                // A lone failure is the verb's own.
                Err(error) if self.total == 1 => return Err(error),
                Err(error) => {
                    super::complain(&error);
                    self.failed += 1;
                }
            }
        }
        Ok(applied)
    }

    async fn one(
        &self,
        session: &Session,
        manifest: Manifest,
    ) -> anyhow::Result<(Placed, Value, &'static str)> {
        let placed = manifest.place(session)?;
        let (after, what) = if self.args.server_side {
            let force = self.args.force_conflicts;
            let after = session.apply(placed.resource.clone(), &placed.object, &self.write, force).await;
            (after.with_context(|| at(&placed))?, "serverside-applied")
        } else {
            apply(session, &placed, &self.write).await?
        };
        Ok((placed, after, what))
    }

    fn report(&self, placed: &Placed, after: Value, what: &str) -> anyhow::Result<()> {
        match self.args.output {
            Some(format) => print(&format.one(&placed.kind, &without_managed_fields(after))?)?,
            None => {
                let name = short_name(&placed.kind, text(&placed.object, "/metadata/name"));
                let note = if self.write.dry_run { " (server dry run)" } else { "" };
                print(&format!("{name} {what}{note}\n"))?;
            }
        }
        Ok(())
    }
}

/// Creates an object or changes it; as it is afterwards, and what was done.
pub(super) async fn apply(
    session: &Session,
    placed: &Placed,
    write: &Write,
) -> anyhow::Result<(Value, &'static str)> {
    let wanted = remember(&placed.object);
    let Some(current) = session.find(&placed.resource).await? else {
        match create(session, placed, &wanted, write).await {
            // Somebody created it in between: then it is there to be changed.
            Err(error) if error.reason == Reason::AlreadyExists => {
                let current = session.get(&placed.resource).await?;
                return change(session, placed, &wanted, &current, write).await;
            }
            result => return result.map(|after| (after, "created")).with_context(|| at(placed)),
        }
    };
    change(session, placed, &wanted, &current, write).await
}

async fn create(
    session: &Session,
    placed: &Placed,
    wanted: &Value,
    write: &Write,
) -> Result<Value, claw_schemas::ApiError> {
    let mut collection = placed.resource.clone();
    collection.name = None;
    session.create(collection, wanted, write).await
}

async fn change(
    session: &Session,
    placed: &Placed,
    wanted: &Value,
    current: &Value,
    write: &Write,
) -> anyhow::Result<(Value, &'static str)> {
    let last = last_applied(current)?;
    if last.is_none() {
        eprintln!(
            "Warning: {} was not created by apply: fields that the manifest leaves out stay as they are",
            short_name(&placed.kind, text(&placed.object, "/metadata/name")),
        );
    }
    let last = last.unwrap_or(Value::Null);
    let schema = placed.kind.builtin.then(|| placed.kind.compiled().root());
    let patch = three_way::patch(&last, wanted, current, schema);
    if patch.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok((current.clone(), "unchanged"));
    }
    let kind = if schema.is_some() { PatchKind::Strategic } else { PatchKind::Merge };
    let after =
        session.patch(placed.resource.clone(), kind, &patch, write).await.with_context(|| at(placed))?;
    // Another spelling of the same value: the server found nothing to store.
    let same = text(&after, "/metadata/resourceVersion") == text(current, "/metadata/resourceVersion");
    Ok((after, if same && !write.dry_run { "unchanged" } else { "configured" }))
}

fn at(placed: &Placed) -> String {
    placed.source.clone()
}

/// The manifest with itself in the annotation, exactly as kubectl writes it.
fn remember(object: &Value) -> Value {
    let mut bare = object.clone();
    if !bare["metadata"]["annotations"].is_object() {
        bare["metadata"]["annotations"] = json!({});
    }
    if let Some(annotations) = bare["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let mut wanted = bare.clone();
    wanted["metadata"]["annotations"][LAST_APPLIED] = json!(format!("{bare}\n"));
    wanted
}

fn last_applied(current: &Value) -> anyhow::Result<Option<Value>> {
    let Some(text) = current["metadata"]["annotations"][LAST_APPLIED].as_str() else {
        return Ok(None);
    };
    serde_json::from_str(text)
        .map(Some)
        .with_context(|| format!("the annotation {LAST_APPLIED} does not parse; remove it and apply again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_manifest_is_kept_as_kubectl_keeps_it() {
        let manifest =
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"}});
        let wanted = remember(&manifest);
        assert_eq!(
            wanted["metadata"]["annotations"][LAST_APPLIED],
            "{\"apiVersion\":\"v1\",\"data\":{\"k\":\"v\"},\"kind\":\"ConfigMap\",\
             \"metadata\":{\"annotations\":{},\"name\":\"a\"}}\n"
        );
        let again = remember(&wanted);
        assert_eq!(again, wanted, "the annotation must not hold itself");
        assert_eq!(last_applied(&wanted).unwrap().unwrap()["data"]["k"], "v");
        assert!(last_applied(&json!({})).unwrap().is_none());
    }

    #[test]
    fn flags_are_read_or_refused_with_what_would_be_right() {
        let flags = |validate: &str, dry_run: &str| {
            WriteFlags { validate: validate.to_owned(), dry_run: dry_run.to_owned() }.read()
        };
        assert!(flags("warn", "server").unwrap().dry_run);
        assert!(flags("loose", "none").unwrap_err().to_string().contains("strict, warn or ignore"));
        assert!(flags("strict", "client").unwrap_err().to_string().contains("none or server"));
    }
}
