//! Admission policies, and what puts them into force.

use std::collections::HashSet;

use serde_json::Value;

use crate::{
    admission::judge,
    custom::cel::{Gives, Names, Program},
    validation::{
        admission, each,
        faults::{Faults, Path},
        is_empty, is_set, len, named, names, one_of, text,
        workload::label_selector,
    },
};

const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];

pub(in crate::validation) fn policy(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    let names = frame(spec, path, faults);
    if len(&spec["validations"]) == 0 && len(&spec["auditAnnotations"]) == 0 {
        let why = "validations or auditAnnotations must contain at least one item";
        faults.required(&path.field("validations"), why);
    }
    each(&spec["validations"], &path.field("validations"), |one, path| {
        validation(one, &names, path, faults);
    });
    let names = names.without_authorizer();
    each(&spec["auditAnnotations"], &path.field("auditAnnotations"), |one, path| {
        annotation(one, &names, path, faults);
    });
}

pub(in crate::validation) fn mutating(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    let names = frame(spec, path, faults).with_builders();
    changeable(&spec["matchConstraints"], &path.field("matchConstraints"), faults);
    if len(&spec["mutations"]) == 0 {
        faults.required(&path.field("mutations"), "mutations must contain at least one item");
    }
    each(&spec["mutations"], &path.field("mutations"), |one, path| mutation(one, &names, path, faults));
    let reinvocation = &path.field("reinvocationPolicy");
    if is_set(&spec["reinvocationPolicy"]) {
        one_of(&spec["reinvocationPolicy"], &["IfNeeded", "Never"], reinvocation, faults);
    } else {
        faults.required(reinvocation, "");
    }
}

/// What policies of either kind have. Gives the names that expressions know.
fn frame(spec: &Value, path: &Path<'_>, faults: &mut Faults) -> Names {
    let (kind, kind_path) = (&spec["paramKind"], &path.field("paramKind"));
    for field in ["apiVersion", "kind"].into_iter().filter(|field| !kind.is_null() && is_empty(&kind[*field]))
    {
        faults.required(&kind_path.field(field), "");
    }
    let constraints = &path.field("matchConstraints");
    if spec["matchConstraints"].is_null() {
        faults.required(constraints, "");
    } else {
        if len(&spec["matchConstraints"]["resourceRules"]) == 0 {
            faults.required(&constraints.field("resourceRules"), "");
        }
        resources(&spec["matchConstraints"], constraints, faults);
    }
    let mut names = Names::of_policies(!kind.is_null());
    admission::conditions(&spec["matchConditions"], &names, &path.field("matchConditions"), faults);
    variables(&spec["variables"], &mut names, &path.field("variables"), faults);
    one_of(&spec["failurePolicy"], &["Fail", "Ignore"], &path.field("failurePolicy"), faults);
    names
}

/// Only what is written can be changed: a deletion cannot.
fn changeable(matched: &Value, path: &Path<'_>, faults: &mut Faults) {
    let path = &path.field("resourceRules");
    each(&matched["resourceRules"], path, |rule, _| {
        each(&rule["operations"], path, |operation, _| {
            one_of(operation, &["*", "CONNECT", "CREATE", "UPDATE"], &path.field("operations"), faults);
        });
    });
}

fn mutation(mutation: &Value, names: &Names, path: &Path<'_>, faults: &mut Faults) {
    let (kind, kind_path) = (&mutation["patchType"], &path.field("patchType"));
    let (field, other, gives) = match text(kind) {
        "JSONPatch" => ("jsonPatch", "applyConfiguration", Gives::Patch),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Gives::Object),
        "" => return faults.required(kind_path, ""),
        _ => return one_of(kind, &["ApplyConfiguration", "JSONPatch"], kind_path, faults),
    };
    if !mutation[other].is_null() {
        let why = format_args!("must not be specified when patchType is {}", text(kind));
        faults.invalid_text(&path.field(other), &format!("{{{other}}}"), why);
    }
    if mutation[field].is_null() {
        return faults
            .required(&path.field(field), &format!("must be specified when patchType is {}", text(kind)));
    }
    let (expression, path) = (text(&mutation[field]["expression"]), &path.field(field));
    if expression.trim().is_empty() {
        faults.required(&path.field("expression"), "");
    }
    judge(expression, names, gives, &path.field("expression"), faults);
}

fn annotation(annotation: &Value, names: &Names, path: &Path<'_>, faults: &mut Faults) {
    for field in ["key", "valueExpression"] {
        if text(&annotation[field]).trim().is_empty() {
            faults.required(&path.field(field), "");
        }
    }
    let value = text(&annotation["valueExpression"]);
    judge(value, names, Gives::TextOrNull, &path.field("valueExpression"), faults);
}

fn validation(validation: &Value, names: &Names, path: &Path<'_>, faults: &mut Faults) {
    if text(&validation["expression"]).trim().is_empty() {
        faults.required(&path.field("expression"), "expression is not specified");
    }
    judge(text(&validation["expression"]), names, Gives::Bool, &path.field("expression"), faults);
    let (computed, names) = (text(&validation["messageExpression"]), names.clone().without_authorizer());
    judge(computed, &names, Gives::Text, &path.field("messageExpression"), faults);
    let message = text(&validation["message"]);
    if message.contains('\n') {
        faults.invalid(
            &path.field("message"),
            &validation["message"],
            "message must not contain line breaks",
        );
    }
    if is_set(&validation["reason"]) {
        one_of(&validation["reason"], &REASONS, &path.field("reason"), faults);
    }
}

fn variables(variables: &Value, names: &mut Names, path: &Path<'_>, faults: &mut Faults) {
    let mut seen = HashSet::new();
    each(variables, path, |variable, path| {
        let name = &variable["name"];
        let sound = text(name).starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text(name).chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if is_empty(name) {
            faults.required(&path.field("name"), "name is not specified");
        } else if !sound {
            faults.invalid(&path.field("name"), name, "name is not a valid CEL identifier");
        } else if !seen.insert(text(name)) {
            faults.duplicate(&path.field("name"), name);
        }
        let expression = text(&variable["expression"]);
        if expression.trim().is_empty() {
            faults.required(&path.field("expression"), "expression is not specified");
        } else if let Err(why) = Program::variable(text(name), expression, names) {
            faults.invalid_text(
                &path.field("expression"),
                expression,
                format_args!("compilation failed: {why}"),
            );
        }
    });
}

/// Which objects a policy or a binding is about.
fn resources(matched: &Value, path: &Path<'_>, faults: &mut Faults) {
    for field in ["namespaceSelector", "objectSelector"] {
        label_selector(&matched[field], &path.field(field), faults);
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        each(&matched[field], &path.field(field), |rule, path| admission::rule(rule, path, faults));
    }
    if is_set(&matched["matchPolicy"]) {
        one_of(&matched["matchPolicy"], &["Equivalent", "Exact"], &path.field("matchPolicy"), faults);
    }
}

pub(in crate::validation) fn binding(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    bound(spec, path, faults);
    let (actions, path) = (&spec["validationActions"], &path.field("validationActions"));
    if len(actions) == 0 {
        faults.required(path, "at least one validation action is required");
    }
    each(actions, path, |action, path| one_of(action, &["Audit", "Deny", "Warn"], path, faults));
    crate::validation::distinct(actions, path, faults);
    let has = |action: &str| actions.as_array().into_iter().flatten().any(|other| other == action);
    if has("Deny") && has("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        faults.invalid(path, actions, why);
    }
}

pub(in crate::validation) fn mutating_binding(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    bound(spec, path, faults);
    changeable(&spec["matchResources"], &path.field("matchResources"), faults);
}

/// What bindings of either kind have.
fn bound(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    named(names::dns_subdomain, &spec["policyName"], &path.field("policyName"), faults);
    if !spec["paramRef"].is_null() {
        parameters(&spec["paramRef"], &path.field("paramRef"), faults);
    }
    if !spec["matchResources"].is_null() {
        resources(&spec["matchResources"], &path.field("matchResources"), faults);
    }
}

fn parameters(reference: &Value, path: &Path<'_>, faults: &mut Faults) {
    match (is_empty(&reference["name"]), reference["selector"].is_null()) {
        (true, true) => faults.required(path, "one of name or selector must be specified"),
        (false, false) => faults.forbidden(&path.field("name"), "name and selector are mutually exclusive"),
        _ => label_selector(&reference["selector"], &path.field("selector"), faults),
    }
    let action = &path.field("parameterNotFoundAction");
    if is_empty(&reference["parameterNotFoundAction"]) {
        faults.required(action, "");
    } else {
        one_of(&reference["parameterNotFoundAction"], &["Allow", "Deny"], action, faults);
    }
}
