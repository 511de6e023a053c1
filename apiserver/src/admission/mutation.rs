//! Mutating admission policies: expressions in CEL that say how objects are to be changed.
//!
//! Source: the Kubernetes documentation "Mutating Admission Policy".

use serde_json::Value;

use super::{
    Frame,
    frame::{list, text},
};
use crate::custom::cel::{Gives, Inputs, Names, Program, Trouble};

/// How objects are to be changed.
pub(crate) struct Mutator {
    pub frame: Frame,
    /// In their order; or why there are none, where they were stored by somebody who did not compile them.
    pub mutations: Result<Vec<Mutation>, String>,
    /// Whether it is asked again about what others change after it.
    pub is_reinvoked: bool,
}

/// One change.
pub(crate) enum Mutation {
    /// Gives an object that is laid over what there is.
    Apply(Program),
    /// Gives operations of a JSON patch.
    Patch(Program),
}

/// What one change comes to.
#[derive(Debug, PartialEq)]
pub(crate) enum Change {
    Apply(Value),
    Patch(Value),
}

impl Mutator {
    pub fn new(object: &Value) -> Self {
        let (frame, names, broken) = Frame::new(object);
        let names = names.with_builders();
        let mutations = list(&object["spec"]["mutations"]).map(|one| Mutation::new(one, &names));
        let mutations = match broken {
            Some(why) => Err(why),
            None => mutations.collect(),
        };
        Self { frame, mutations, is_reinvoked: object["spec"]["reinvocationPolicy"] == "IfNeeded" }
    }

    /// What one of its changes comes to. Each has a budget of its own, since it sees what those before it have done.
    ///
    /// # Errors
    /// Why it comes to nothing.
    pub fn change(&self, mutation: &Mutation, inputs: Inputs<'_>) -> Result<Change, Trouble> {
        let evaluation = self.frame.evaluation(inputs);
        match mutation {
            Mutation::Apply(program) => evaluation.object(program).map(Change::Apply),
            Mutation::Patch(program) => evaluation.patch(program).map(Change::Patch),
        }
    }
}

impl Mutation {
    fn new(declared: &Value, names: &Names) -> Result<Self, String> {
        if declared["patchType"] == "JSONPatch" {
            let expression = text(&declared["jsonPatch"]["expression"]);
            return Program::compile(expression, names, Gives::Patch).map(Self::Patch);
        }
        let expression = text(&declared["applyConfiguration"]["expression"]);
        Program::compile(expression, names, Gives::Object).map(Self::Apply)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::custom::cel::{Authorizing, Question};

    struct Nobody;

    impl Authorizing for Nobody {
        fn decide(&self, _: &Question, _: &str) -> (bool, String) {
            (false, String::new())
        }
    }

    fn mutator(kind: &str, expression: &str) -> Mutator {
        let field = if kind == "JSONPatch" { "jsonPatch" } else { "applyConfiguration" };
        Mutator::new(&json!({"metadata": {"name": "p"}, "spec": {
            "variables": [{"name": "n", "expression": "object.n + 1"}],
            "mutations": [{"patchType": kind, field: {"expression": expression}}],
        }}))
    }

    /// What comes of an expression about a small object.
    fn come_to(kind: &str, expression: &str) -> Result<Change, String> {
        let mutator = mutator(kind, expression);
        let (null, object) =
            (Value::Null, json!({"n": 1, "labels": {"a/b": "c"}, "list": [{"name": "x"}, {"name": "y"}]}));
        let mutations = mutator.mutations.as_ref().map_err(Clone::clone)?;
        let inputs = Inputs {
            object: &object,
            old: &null,
            request: &null,
            params: &null,
            namespace: &null,
            authorizer: &Nobody,
        };
        mutator.change(&mutations[0], inputs).map_err(|trouble| trouble.to_string())
    }

    #[test]
    fn objects_are_built_of_parts_that_are_named_by_their_places() {
        let apply = |expression: &str| come_to("ApplyConfiguration", expression);
        for (expression, object) in [
            ("Object{}", json!({})),
            ("Object{spec: Object.spec{replicas: variables.n}}", json!({"spec": {"replicas": 2}})),
            (
                "Object{metadata: Object.metadata{labels: {'a': 'b', ?'c': optional.none(), ?'d': optional.of('e')}}}",
                json!({"metadata": {"labels": {"a": "b", "d": "e"}}}),
            ),
            (
                "Object{spec: Object.spec{?x: optional.none(), ?y: object.?n, z: [1.5, null, true, b'hi']}}",
                json!({"spec": {"y": 1, "z": [1.5, null, true, "aGk="]}}),
            ),
            (
                "Object{spec: Object.spec{containers: object.list.map(c, Object.spec.containers{name: c.name, env: [Object.spec.containers.env{name: 'k'}]})}}",
                json!({"spec": {"containers": [{"name": "x", "env": [{"name": "k"}]}, {"name": "y", "env": [{"name": "k"}]}]}}),
            ),
            ("object.n == 1 ? Object{a: object.labels} : Object{}", json!({"a": {"a/b": "c"}})),
        ] {
            assert_eq!(apply(expression), Ok(Change::Apply(object)), "{expression}");
        }
        for (expression, why) in [
            (
                "Object{spec: Object.status{a: 1}}",
                "unexpected type name \"Object.status\", expected \"Object.spec\"",
            ),
            ("Object{spec: [Object.spec.x{}]}", "unexpected type name \"Object.spec.x\""),
            ("Object.spec{}", "must evaluate to Object"),
            ("{'a': 1}", "must evaluate to Object"),
            ("dyn({'a': 1})", "unsupported return type from ApplyConfiguration expression"),
            ("Thing{}", "undeclared reference to 'Thing'"),
            ("Object{a: object.missing}", "no such key: missing"),
            ("Object{a: {1: 2}}", "map keys must be strings"),
            ("Object{a: authorizer}", "no form in JSON"),
        ] {
            let said = apply(expression).unwrap_err();
            assert!(said.contains(why), "{expression}: {said}");
        }
    }

    #[test]
    fn patches_are_lists_of_operations() {
        let patch = |expression: &str| come_to("JSONPatch", expression);
        for (expression, operations) in [
            ("[]", json!([])),
            (
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b~c'), value: 'x'}]",
                json!([{"op": "add", "path": "/metadata/labels/a~1b~0c", "value": "x"}]),
            ),
            (
                "object.n > 5 ? [] : [JSONPatch{op: 'move', from: '/a', path: '/b'}, JSONPatch{op: 'remove', path: '/c'}]",
                json!([{"op": "move", "from": "/a", "path": "/b"}, {"op": "remove", "path": "/c"}]),
            ),
            (
                "[JSONPatch{op: 'replace', path: '/spec', value: Object.spec{selector: Object.spec.selector{a: 1}}}]",
                json!([{"op": "replace", "path": "/spec", "value": {"selector": {"a": 1}}}]),
            ),
        ] {
            assert_eq!(patch(expression), Ok(Change::Patch(operations)), "{expression}");
        }
        for (expression, why) in [
            ("Object{}", "must evaluate to list(JSONPatch)"),
            ("['a']", "must evaluate to list(JSONPatch)"),
            ("[dyn('a')]", "should evaluate to array of JSONPatch"),
            ("[JSONPatch{op: 'add', paths: '/a'}]", "undefined field 'paths'"),
            ("[JSONPatch{op: 1, path: '/a'}]", "expected type of field 'op' is 'string'"),
            ("[JSONPatch{op: dyn(1), path: '/a'}]", "unexpected type for JSONPatchType 'op' field"),
            (
                "[JSONPatch{op: 'add', path: '/spec', value: Object.spec{selector: Object.spec.wrong{}}}]",
                "unexpected type name \"Object.spec.wrong\"",
            ),
        ] {
            let said = patch(expression).unwrap_err();
            assert!(said.contains(why), "{expression}: {said}");
        }
    }

    #[test]
    fn only_mutations_build() {
        let broken = |spec: Value| Mutator::new(&json!({"spec": spec})).mutations.err().unwrap_or_default();
        let variable = json!({"variables": [{"name": "v", "expression": "Object{}"}], "mutations": []});
        assert_eq!(broken(variable), "undeclared reference to 'Object'");
        let escapes = json!({"variables": [{"name": "v", "expression": "jsonpatch.escapeKey('a')"}]});
        assert_eq!(broken(escapes), "undeclared reference to 'jsonpatch.escapeKey'");
    }

    #[test]
    fn what_is_built_is_paid_for() {
        let endless = "Object{a: object.list.map(x, object.list.map(y, [1,2,3,4,5,6,7,8,9].map(a, [1,2,3,4,5,6,7,8,9].map(b, [1,2,3,4,5,6,7,8,9].map(c, [1,2,3,4,5,6,7,8,9].map(d, [1,2,3,4,5,6,7,8,9].map(e, [a,b,c,d,e])))))))}";
        let said = come_to("ApplyConfiguration", endless).unwrap_err();
        assert!(said.contains("running out of cost budget"), "{said}");
    }

    #[test]
    fn variables_that_use_each_other_without_end_are_an_error() {
        let mut variables = vec![json!({"name": "v0", "expression": "[0]"})];
        for at in 1..2000 {
            variables.push(
                json!({"name": format!("v{at}"), "expression": format!("[variables.v{}[0] + 1]", at - 1)}),
            );
        }
        let mutator = Mutator::new(&json!({"spec": {"variables": variables, "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{a: variables.v1999}"}},
        ]}}));
        let null = Value::Null;
        let inputs = Inputs {
            object: &null,
            old: &null,
            request: &null,
            params: &null,
            namespace: &null,
            authorizer: &Nobody,
        };
        let said = mutator.change(&mutator.mutations.as_ref().unwrap()[0], inputs).unwrap_err().to_string();
        assert!(said.contains("over too many levels"), "{said}");
    }
}
