//! `authorizer`: questions about what somebody may do, put together call by call.
//!
//! Source: "Kubernetes authorizer library" in the documentation "Common Expression Language in Kubernetes".

use std::rc::Rc;

use serde_json::Value;

use super::eval::{Failure, Surroundings};
use super::value::Val;

/// A question that may still lack parts, or has its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Question {
    /// The account that it is about: namespace and name. Without one it is about who asks.
    pub account: Option<(String, String)>,
    pub about: About,
    /// What the request itself is about.
    own: Rc<About>,
    answer: Option<(bool, String)>,
}

/// What it is about.
#[derive(Clone, Debug, Default)]
pub(crate) enum About {
    #[default]
    Nothing,
    Path(String),
    Group(String),
    Resource {
        group: String,
        plural: String,
        subresource: String,
        namespace: String,
        name: String,
        /// Only objects with these fields, as a selector.
        fields: String,
    },
}

impl Question {
    /// The beginning of all questions about a request.
    pub(super) fn of(request: &Value) -> Rc<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let own = About::Resource {
            group: text(&request["resource"]["group"]),
            plural: text(&request["resource"]["resource"]),
            subresource: text(&request["subResource"]),
            namespace: text(&request["namespace"]),
            name: text(&request["name"]),
            fields: String::new(),
        };
        Rc::new(Self { own: Rc::new(own), ..Self::default() })
    }

    /// `authorizer.requestResource`
    pub(super) fn field<'a>(&self, name: &str) -> Result<Val<'a>, Failure> {
        match (name, &self.about) {
            ("requestResource", About::Nothing) => {
                Ok(Val::Authorizer(Rc::new(Self { about: (*self.own).clone(), ..self.clone() })))
            }
            _ => Err(Failure::Error(format!("no such key: {name}"))),
        }
    }

    /// One call on it.
    pub(super) fn call<'a>(
        &self,
        function: &str,
        args: &[Val<'a>],
        surroundings: Option<&dyn Surroundings<'a>>,
    ) -> Result<Val<'a>, Failure> {
        let texts: Option<Vec<String>> = args.iter().map(|arg| arg.as_text().map(str::to_owned)).collect();
        let texts = texts.ok_or_else(|| Failure::overload(function))?;
        let mut next = self.clone();
        match (function, texts.as_slice(), &mut next.about) {
            ("serviceAccount", [namespace, name], About::Nothing) => {
                next.account = Some((namespace.clone(), name.clone()));
            }
            ("path", [path], about @ About::Nothing) => *about = About::Path(path.clone()),
            ("group", [group], about @ About::Nothing) => *about = About::Group(group.clone()),
            ("resource", [plural], about @ About::Group(_)) => {
                let About::Group(group) = std::mem::take(about) else {
                    return Err(Failure::overload(function));
                };
                let (subresource, namespace) = (String::new(), String::new());
                let (name, fields) = (String::new(), String::new());
                *about =
                    About::Resource { group, plural: plural.clone(), subresource, namespace, name, fields };
            }
            ("subresource", [text], About::Resource { subresource, .. }) => subresource.clone_from(text),
            ("namespace", [text], About::Resource { namespace, .. }) => namespace.clone_from(text),
            ("name", [text], About::Resource { name, .. }) => name.clone_from(text),
            ("fieldSelector", [text], About::Resource { fields, .. }) => fields.clone_from(text),
            // No rule is about labels, here or upstream: selecting fewer objects is no more allowed for it.
            ("labelSelector", [_], About::Resource { .. }) => {}
            ("check", [verb], About::Path(_) | About::Resource { .. }) => {
                let surroundings = surroundings.ok_or_else(|| Failure::overload(function))?;
                next.answer = Some(surroundings.decide(self, verb));
            }
            (_, [], _) => return self.told(function),
            _ => return Err(Failure::overload(function)),
        }
        Ok(Val::Authorizer(Rc::new(next)))
    }

    /// What is read of an answer.
    fn told<'a>(&self, function: &str) -> Result<Val<'a>, Failure> {
        let (allowed, why) = self.answer.as_ref().ok_or_else(|| Failure::overload(function))?;
        Ok(match function {
            "allowed" => Val::Bool(*allowed),
            "reason" => Val::text(why.clone()),
            "errored" => Val::Bool(false),
            "error" => Val::text(String::new()),
            _ => return Err(Failure::overload(function)),
        })
    }
}
