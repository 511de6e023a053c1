//! Clients that read and write a few objects in every way there is, and write down what they were told.

use std::{sync::Arc, time::Duration};

use claw_client::{
    ApiError, Client, ResourceRef, Verb,
    request::{DeleteOptions, ListOptions, PatchKind},
};
use claw_e2e::{dice::Dice, history::revision_of};
use claw_schemas::status::Reason;
use serde_json::{Value, json};

use super::{
    net::{Wire, client},
    world::World,
};

/// So few objects that clients meet at them all the time.
const OBJECTS: u64 = 2;

/// Between two requests of one client.
const PAUSE_MS: (u64, u64) = (100, 1500);

/// The label that tells objects apart, and its values.
pub const HALF: &str = "half";
pub const HALVES: [&str; 2] = ["a", "b"];

struct Writer {
    world: Arc<World>,
    name: String,
    client: Client,
    dice: Dice,
}

/// Reads and writes until it is time to be quiet.
pub async fn run(world: Arc<World>, name: String, wire: Wire, dice: Dice) -> turmoil::Result {
    let client = client(wire, &name);
    let writer = Writer { world, name, client, dice };
    while !writer.world.is_quiet() {
        let pause = writer.dice.between(PAUSE_MS.0, PAUSE_MS.1);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        writer.once().await;
    }
    Ok(())
}

/// The collection everybody works on.
pub fn maps() -> ResourceRef {
    ResourceRef { namespace: Some("default".to_owned()), ..ResourceRef::collection("", "v1", "configmaps") }
}

impl Writer {
    async fn once(&self) {
        let object = format!("m{}", self.dice.below(OBJECTS));
        let (what, outcome) = match self.dice.below(10) {
            0 | 1 => ("create", self.create(&object).await),
            2 | 3 => ("update", self.update(&object).await),
            4 | 5 => ("patch", self.patch(&object, PatchKind::Merge, false).await),
            6 => ("apply", self.patch(&object, PatchKind::Apply, true).await),
            7 => ("delete", self.delete(&object).await),
            8 => ("get", self.get(&object).await.map(drop)),
            _ => ("list", self.list().await),
        };
        let how = match outcome {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("{:?}", error.reason),
        };
        self.world.did(&self.name, format!("{what} {object}: {how}"));
    }

    /// Never the same twice, so that no write changes nothing. Now in one half, now in the other, for those who select.
    fn map(&self, object: &str) -> Value {
        let (value, half) = (self.dice.throw().to_string(), *self.dice.pick(&HALVES));
        let metadata = json!({"name": object, "namespace": "default", "labels": {HALF: half}});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"by": self.name, "value": value}})
    }

    fn floor(&self) -> u64 {
        self.world.note(|notes| notes.promises.floor())
    }

    /// Sends a write, and holds the server to its answer.
    async fn write(&self, resource: ResourceRef, verb: Verb, found: Option<u64>) -> Result<(), ApiError> {
        let asked = self.floor();
        let answer = parse(&self.client.call(resource, verb).await?.body)?;
        let told = self.world.note(|notes| notes.promises.replaced(asked, found, &answer));
        self.world.must(&self.name, told);
        Ok(())
    }

    async fn create(&self, object: &str) -> Result<(), ApiError> {
        let verb = Verb::Create { body: bytes(&self.map(object)), options: self.client.write_options() };
        self.write(maps(), verb, None).await
    }

    async fn update(&self, object: &str) -> Result<(), ApiError> {
        let Some(mut found) = self.get(object).await? else { return Ok(()) };
        let map = self.map(object);
        found["data"] = map["data"].clone();
        found["metadata"]["labels"] = map["metadata"]["labels"].clone();
        let verb = Verb::Update { body: bytes(&found), options: self.client.write_options() };
        let at = self.world.must(&self.name, revision_of(&found));
        self.write(maps().named(object), verb, at).await
    }

    async fn patch(&self, object: &str, kind: PatchKind, force: bool) -> Result<(), ApiError> {
        let (body, options) = (bytes(&self.map(object)), self.client.write_options());
        self.write(maps().named(object), Verb::Patch { kind, body, options, force }, None).await
    }

    async fn delete(&self, object: &str) -> Result<(), ApiError> {
        let asked = self.floor();
        self.client.call(maps().named(object), Verb::Delete(DeleteOptions::default())).await?;
        let now = self.world.disk_revision();
        self.world.note(|notes| notes.promises.deleted(asked, now, &format!("default/{object}")));
        Ok(())
    }

    async fn get(&self, object: &str) -> Result<Option<Value>, ApiError> {
        let asked = self.floor();
        let found = match self.client.call(maps().named(object), Verb::Get).await {
            Ok(answer) => Some(parse(&answer.body)?),
            Err(error) if error.reason == Reason::NotFound => None,
            Err(error) => return Err(error),
        };
        let now = self.world.disk_revision();
        let name = format!("default/{object}");
        self.world.note(|notes| notes.promises.read(asked, now, &name, found.as_ref()));
        Ok(found)
    }

    async fn list(&self) -> Result<(), ApiError> {
        let asked = self.floor();
        let answer = self.client.call(maps(), Verb::List(ListOptions::default())).await?;
        let list = parse(&answer.body)?;
        let told = self.world.note(|notes| notes.promises.listed(asked, &list));
        self.world.must(&self.name, told);
        Ok(())
    }
}

fn bytes(object: &Value) -> bytes::Bytes {
    object.to_string().into()
}

/// A body that is an object.
pub fn parse(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::internal(error.to_string()))
}
