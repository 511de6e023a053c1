//! The priority of pods: what their PriorityClass says, resolved when they are made. The scheduler reads the number, and never
//! looks at classes.
//!
//! The rules and the words are those of upstream's admission plugin `Priority`.

use claw_schemas::ApiError;
use serde::Deserialize;
use serde_json::Value;

use super::{ObjectService, errors, kinds::Target, object::text, quotas::Turn};
use crate::store::{Key, Record};

const GROUP: &str = "scheduling.k8s.io";
const PLURAL: &str = "priorityclasses";

/// What the turns of those are named who make a class the default. No namespace has such a name.
const TURN: &str = "priorityclasses/default";

/// What a class says, or what goes for pods where there is none.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Class {
    metadata: Named,
    #[serde(default)]
    value: i64,
    #[serde(default)]
    global_default: bool,
    #[serde(default = "preempts")]
    preemption_policy: String,
}

#[derive(Debug, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

fn preempts() -> String {
    "PreemptLowerPriority".to_owned()
}

impl Class {
    /// Of pods without a class, where no class is the default.
    fn none() -> Self {
        let metadata = Named { name: String::new() };
        Self { metadata, value: 0, global_default: false, preemption_policy: preempts() }
    }

    fn of(record: &Record) -> Result<Self, ApiError> {
        serde_json::from_slice(&record.value)
            .map_err(|error| ApiError::internal(format!("a stored PriorityClass does not parse: {error}")))
    }
}

impl ObjectService {
    /// Gives a new pod the priority of its class. What it says of its priority itself must agree.
    pub(super) async fn admit_priority(&self, target: &Target, pod: &mut Value) -> Result<(), ApiError> {
        if !target.kind.is_pod() {
            return Ok(());
        }
        let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default();
        let forbidden = |why: &str| Err(target.kind.forbidden(text(pod, "name"), why));
        let class = if name.is_empty() {
            self.default_class().await?.unwrap_or_else(Class::none)
        } else {
            match self.find(&Key::object(GROUP, PLURAL, "", name)).await? {
                Some(record) => Class::of(&record)?,
                None => return forbidden(&format!("no PriorityClass with name {name} was found")),
            }
        };
        let (given, policy) = (&pod["spec"]["priority"], &pod["spec"]["preemptionPolicy"]);
        if !given.is_null() && *given != class.value {
            return forbidden(&format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                class.value
            ));
        }
        if let Some(policy) = policy.as_str().filter(|policy| *policy != class.preemption_policy) {
            return forbidden(&format!(
                "the string value of PreemptionPolicy ({policy}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                class.preemption_policy
            ));
        }
        let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        if !class.metadata.name.is_empty() {
            spec.insert("priorityClassName".to_owned(), class.metadata.name.into());
        }
        spec.insert("priority".to_owned(), class.value.into());
        spec.insert("preemptionPolicy".to_owned(), class.preemption_policy.into());
        Ok(())
    }

    /// Refuses a second default among classes. Who makes one takes turns with others until it is committed, so that there are
    /// never two.
    pub(super) async fn admit_default_class(
        &self,
        target: &Target,
        new: Option<&Value>,
    ) -> Result<Option<Turn>, ApiError> {
        let descriptor = &target.kind.descriptor;
        let is_class = descriptor.plural == PLURAL && descriptor.group == GROUP;
        let Some(new) = new.filter(|new| is_class && new["globalDefault"] == true) else { return Ok(None) };
        let turn = self.turns.take(TURN).await;
        match self.default_class().await? {
            Some(other) if other.metadata.name != text(new, "name") => {
                let other = other.metadata.name;
                let why =
                    format!("PriorityClass {other} is already marked as default. Only one default can exist");
                Err(target.kind.forbidden(text(new, "name"), &why))
            }
            _ => Ok(Some(turn)),
        }
    }

    /// The class of pods that name none. Should another server have made a second one, the lower counts, as upstream.
    async fn default_class(&self) -> Result<Option<Class>, ApiError> {
        let all = Key::collection(GROUP, PLURAL, None);
        let records = self.store.list(&all, None, 0, None).await.map_err(errors::from_store)?.items;
        let classes = records.iter().map(Class::of).collect::<Result<Vec<_>, _>>()?;
        Ok(classes.into_iter().filter(|class| class.global_default).min_by_key(|class| class.value))
    }
}
