//! Query parameters, and the options they make.

use claw_client::request::{
    DeleteOptions, FieldValidation, IncludeObject, ListOptions, WatchOptions, WriteOptions,
};
use claw_schemas::{ApiError, status::Cause};

use super::path::percent_decoded;
use crate::service::propagation;

/// Whether a request is for a watch: for counting it, before all of it is looked at.
pub(super) fn asks_to_watch(query: Option<&str>) -> bool {
    let is_watch = |pair| matches!(pair, "watch" | "watch=" | "watch=true" | "watch=1" | "watch=True");
    query.is_some_and(|query| query.split('&').any(is_watch))
}

/// The parameters of a request, decoded.
#[derive(Debug, Default)]
pub(super) struct Query(pub Vec<(String, String)>);

impl Query {
    pub fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decode = |text: &str| {
            decode(text)
                .ok_or_else(|| ApiError::bad_request(format!("the query parameter {text} is not valid")))
        };
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(name)?, decode(value)?))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| &**value)
            .filter(|value| !value.is_empty())
    }

    /// A boolean as Kubernetes reads it.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        self.optional_flag(name).map(|flag| flag.unwrap_or(false))
    }

    pub fn optional_flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str()) {
            None => Ok(None),
            Some("" | "true" | "1" | "True" | "TRUE" | "t" | "T") => Ok(Some(true)),
            Some("false" | "0" | "False" | "FALSE" | "f" | "F") => Ok(Some(false)),
            Some(other) => Err(ApiError::bad_request(format!("{name}={other}: use true or false"))),
        }
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| ApiError::bad_request(format!("{name}={text}: use a whole number")))
            })
            .transpose()
    }

    fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    pub fn list_options(&self) -> Result<ListOptions, ApiError> {
        Ok(ListOptions {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            limit: self.number("limit")?.unwrap_or(0),
            continue_token: self.owned("continue"),
            resource_version: self.owned("resourceVersion"),
            resource_version_match: self.owned("resourceVersionMatch"),
        })
    }

    /// `current` is the server's revision, for the one combination that starts "now".
    pub fn watch_options(&self, current: u64) -> Result<WatchOptions, ApiError> {
        let initial = self.optional_flag("sendInitialEvents")?;
        let matching = self.get("resourceVersionMatch");
        let refuse = |why: &str| {
            let reason = "FieldValueForbidden".to_owned();
            let cause = Cause {
                reason,
                message: format!("Forbidden: {why}"),
                field: "resourceVersionMatch".to_owned(),
            };
            Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![cause]))
        };
        match (initial, matching) {
            (None, None) | (Some(_), Some("NotOlderThan")) => {}
            (None, Some(_)) => {
                return refuse(
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            (Some(_), _) => {
                return refuse("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
            }
        }
        let mut resource_version = self.owned("resourceVersion");
        if initial == Some(false) && matches!(resource_version.as_deref(), None | Some("0")) {
            resource_version = Some(current.to_string());
        }
        Ok(WatchOptions {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            resource_version,
            allow_bookmarks: self.flag("allowWatchBookmarks")?,
            send_initial_events: initial.unwrap_or(false),
            timeout_seconds: self.number("timeoutSeconds")?,
        })
    }

    pub fn write_options(&self, kind: &str) -> Result<WriteOptions, ApiError> {
        let field_validation = match self.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some("Ignore") => FieldValidation::Ignore,
            Some(other) => {
                return Err(unsupported(kind, "fieldValidation", other, "\"Ignore\", \"Strict\", \"Warn\""));
            }
        };
        Ok(WriteOptions {
            field_manager: self.owned("fieldManager"),
            user_agent: None,
            field_validation,
            dry_run: self.dry_run(kind)?,
        })
    }

    /// Options of a delete that come by query; those of the body are stronger.
    pub fn delete_options(&self, body: Option<DeleteOptions>) -> Result<DeleteOptions, ApiError> {
        let mut options = body.unwrap_or_default();
        options.dry_run |= self.dry_run("DeleteOptions")?;
        if options.grace_period_seconds.is_none() {
            options.grace_period_seconds = self.number("gracePeriodSeconds")?;
        }
        if options.propagation.is_none() {
            options.propagation =
                match (self.get("propagationPolicy"), self.optional_flag("orphanDependents")?) {
                    (Some(name), _) => Some(propagation(name).ok_or_else(|| {
                        let known = "\"Background\", \"Foreground\", \"Orphan\"";
                        unsupported("DeleteOptions", "propagationPolicy", name, known)
                    })?),
                    (None, Some(true)) => propagation("Orphan"),
                    (None, Some(false)) => propagation("Background"),
                    (None, None) => None,
                };
        }
        Ok(options)
    }

    fn dry_run(&self, kind: &str) -> Result<bool, ApiError> {
        // Every value counts: a dry run that is overlooked writes.
        let stages = || self.0.iter().filter(|(name, _)| name == "dryRun").map(|(_, value)| value.as_str());
        match stages().find(|stage| !matches!(*stage, "" | "All")) {
            None => Ok(stages().any(|stage| stage == "All")),
            Some(other) => Err(unsupported(kind, "dryRun", other, "\"All\"")),
        }
    }

    pub fn include_object(&self) -> Result<IncludeObject, ApiError> {
        match self.get("includeObject") {
            None | Some("Metadata") => Ok(IncludeObject::Metadata),
            Some("None") => Ok(IncludeObject::None),
            Some("Object") => Ok(IncludeObject::Object),
            Some(other) => Err(ApiError::bad_request(format!(
                "invalid includeObject value \"{other}\": use None, Metadata or Object"
            ))),
        }
    }
}

fn unsupported(kind: &str, field: &str, value: &str, known: &str) -> ApiError {
    let cause = Cause {
        reason: "FieldValueNotSupported".to_owned(),
        message: format!("Unsupported value: \"{value}\": supported values: {known}"),
        field: field.to_owned(),
    };
    ApiError::invalid("meta.k8s.io", kind, "", vec![cause])
}

/// Decodes `application/x-www-form-urlencoded` text.
fn decode(text: &str) -> Option<String> {
    percent_decoded(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use claw_client::request::Propagation;

    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text)).unwrap()
    }

    #[test]
    fn parameters_are_decoded() {
        let query = query("labelSelector=app%3Dweb%2Ctier+in+(a)&limit=500&empty=&flag");
        assert_eq!(query.get("labelSelector"), Some("app=web,tier in (a)"));
        assert_eq!(query.list_options().unwrap().limit, 500);
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.flag("flag"), Ok(true));
        assert!(Query::parse(Some("a=%f")).is_err());
        assert!(Query::parse(Some("a=%ff")).is_err());
        assert_eq!(super::decode("a+b%2Bc%20d").as_deref(), Some("a b+c d"));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(query("limit=many").list_options().is_err());
        assert!(query("limit=-1").list_options().is_err());
        assert!(query("fieldValidation=Sometimes").write_options("CreateOptions").is_err());
        assert!(query("dryRun=Some").write_options("CreateOptions").is_err());
        assert!(query("watch=perhaps").flag("watch").is_err());
        assert!(query("propagationPolicy=Never").delete_options(None).is_err());
    }

    #[test]
    fn initial_events_need_the_match_that_goes_with_them() {
        let watch = |text: &str| query(text).watch_options(42);
        let both = watch("sendInitialEvents=true&resourceVersionMatch=NotOlderThan").unwrap();
        assert!(both.send_initial_events);
        assert!(watch("sendInitialEvents=true").is_err());
        assert!(watch("resourceVersionMatch=NotOlderThan").is_err());
        let none = watch("sendInitialEvents=false&resourceVersionMatch=NotOlderThan").unwrap();
        assert_eq!(none.resource_version.as_deref(), Some("42"));
    }

    #[test]
    fn the_body_of_a_delete_is_stronger_than_its_query() {
        let body = DeleteOptions { grace_period_seconds: Some(5), ..DeleteOptions::default() };
        let options =
            query("gracePeriodSeconds=9&propagationPolicy=Orphan").delete_options(Some(body)).unwrap();
        assert_eq!(options.grace_period_seconds, Some(5));
        assert_eq!(options.propagation, Some(Propagation::Orphan));
    }
}
