//! `pods/log`: which container of a pod is meant, whether it can have a log yet, and the request to its node.

use std::sync::Arc;

use claw_client::{ByteStream, ResourceRef};
use claw_schemas::{
    ApiError,
    proto::{LogsRequest, open_stream},
    status::{Cause, Reason},
};
use futures::StreamExt as _;
use serde_json::Value;

use super::{ObjectService, encode, kinds::Sub, object::text};
use crate::{auth::Identity, nodes::NodeStreams};

impl ObjectService {
    /// Reads a streaming subresource: `pods/x/log`.
    ///
    /// # Errors
    /// What is wrong with the request, or that the node cannot be reached.
    pub async fn stream(
        &self,
        who: &Identity,
        resource: ResourceRef,
        query: Vec<(String, String)>,
    ) -> Result<ByteStream, ApiError> {
        self.authorize(who, "get", &resource, "")?;
        let target = self.kinds.resolve(resource)?;
        if target.sub != Some(Sub::Log) {
            return Err(super::kinds::method_not_allowed());
        }
        let mut request = parse(&target.name, &query)?;
        let pod = encode::value_of(&self.record(&target).await?)?;
        request.container = choose(&target.name, &pod, &request.container)?;
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if node.is_empty() {
            let name = &target.name;
            return Err(ApiError::bad_request(format!(
                "pod \"{name}\" is not assigned to a node yet, so it has no logs"
            )));
        }
        check_started(&target.name, &pod, &request)?;
        request.namespace.clone_from(&target.namespace);
        request.pod.clone_from(&target.name);
        text(&pod, "uid").clone_into(&mut request.uid);
        // It may live as long as a watch, and counts as one.
        let place = self.watches.enter(who)?;
        let stream = self.node_streams()?.open(node, open_stream::Request::Logs(request)).await?.bytes();
        Ok(stream
            .map(move |bytes| {
                let _until_the_end = &place;
                bytes
            })
            .boxed())
    }

    pub(super) fn node_streams(&self) -> Result<&Arc<dyn NodeStreams>, ApiError> {
        self.node_streams.get().ok_or_else(|| {
            ApiError::new(
                Reason::ServiceUnavailable,
                "this server has no connection to nodes, so it cannot reach into pods",
            )
        })
    }
}

/// Reads the query of a log request.
fn parse(pod: &str, query: &[(String, String)]) -> Result<LogsRequest, ApiError> {
    let mut request = LogsRequest::default();
    for (name, value) in query {
        match name.as_str() {
            "container" => request.container.clone_from(value),
            "follow" => request.follow = flag(name, value)?,
            "previous" => request.previous = flag(name, value)?,
            "timestamps" => request.timestamps = flag(name, value)?,
            "tailLines" => request.tail_lines = Some(number(name, value)?),
            "sinceSeconds" => request.since_seconds = Some(number(name, value)?),
            "limitBytes" => request.limit_bytes = Some(number(name, value)?),
            "sinceTime" => request.since_time.clone_from(value),
            _ => {}
        }
    }
    let causes = faults(&request);
    if causes.is_empty() { Ok(request) } else { Err(ApiError::invalid("", "PodLogOptions", pod, causes)) }
}

fn faults(request: &LogsRequest) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(lines) = request.tail_lines.filter(|lines| *lines < 0) {
        causes.push(Cause::invalid("tailLines", lines, "must be greater than or equal to 0"));
    }
    if let Some(bytes) = request.limit_bytes.filter(|bytes| *bytes < 1) {
        causes.push(Cause::invalid("limitBytes", bytes, "must be greater than 0"));
    }
    if let Some(seconds) = request.since_seconds {
        if seconds < 1 {
            causes.push(Cause::invalid("sinceSeconds", seconds, "must be greater than 0"));
        }
        if !request.since_time.is_empty() {
            let reason = "FieldValueForbidden".to_owned();
            let message =
                "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned();
            causes.push(Cause { reason, message, field: String::new() });
        }
    }
    if !request.since_time.is_empty() && request.since_time.parse::<jiff::Timestamp>().is_err() {
        causes.push(Cause::invalid("sinceTime", format!("\"{}\"", request.since_time), "must be RFC 3339"));
    }
    causes
}

pub(super) fn flag(name: &str, value: &str) -> Result<bool, ApiError> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(ApiError::bad_request(format!("{name}={value}: use true or false"))),
    }
}

fn number(name: &str, value: &str) -> Result<i64, ApiError> {
    value.parse().map_err(|_| ApiError::bad_request(format!("{name}={value}: use a whole number")))
}

pub(super) const CONTAINER_LISTS: [(&str, &str); 3] = [
    ("containers", "containerStatuses"),
    ("initContainers", "initContainerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
];

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    pod["spec"][list].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect()
}

/// The container that is meant.
pub(super) fn choose(pod_name: &str, pod: &Value, asked: &str) -> Result<String, ApiError> {
    if !asked.is_empty() {
        let known = CONTAINER_LISTS.iter().any(|(list, _)| names(pod, list).contains(&asked));
        return if known {
            Ok(asked.to_owned())
        } else {
            Err(ApiError::bad_request(format!("container {asked} is not valid for pod {pod_name}")))
        };
    }
    let (containers, init) = (names(pod, "containers"), names(pod, "initContainers"));
    if let [only] = containers.as_slice() {
        return Ok((*only).to_owned());
    }
    let mut message = format!(
        "a container name must be specified for pod {pod_name}, choose one of: [{}]",
        containers.join(" ")
    );
    if !init.is_empty() {
        message += &format!(" or one of the init containers: [{}]", init.join(" "));
    }
    Err(ApiError::bad_request(message))
}

/// Refuses the log of a container that has not written one, and says what it waits for.
fn check_started(pod_name: &str, pod: &Value, request: &LogsRequest) -> Result<(), ApiError> {
    let container = &request.container;
    let status = CONTAINER_LISTS.iter().find_map(|(_, list)| {
        pod["status"][list].as_array()?.iter().find(|status| status["name"].as_str() == Some(container))
    });
    let about = format!("container \"{container}\" in pod \"{pod_name}\"");
    let Some(status) = status else {
        return Err(ApiError::bad_request(format!("{about} is waiting to start: ContainerCreating")));
    };
    let ran_before = !status["lastState"]["terminated"].is_null();
    if request.previous {
        return if ran_before {
            Ok(())
        } else {
            Err(ApiError::bad_request(format!("previous terminated {about} not found")))
        };
    }
    let waiting = &status["state"]["waiting"];
    if waiting.is_null() || ran_before {
        return Ok(());
    }
    let why = match waiting["reason"].as_str().unwrap_or("ContainerCreating") {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    };
    Err(ApiError::bad_request(format!("{about} is waiting to start: {why}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
            "status": {"containerStatuses": [
                {"name": "a", "state": {"waiting": {"reason": "CreateContainerConfigError"}}},
                {"name": "b", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {}}},
            ]},
        })
    }

    #[test]
    fn one_of_several_containers_must_be_named() {
        assert_eq!(
            choose("x", &pod(), "").unwrap_err().message,
            "a container name must be specified for pod x, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(choose("x", &pod(), "i").unwrap(), "i");
        assert_eq!(choose("x", &pod(), "z").unwrap_err().message, "container z is not valid for pod x");
    }

    #[test]
    fn a_container_that_never_ran_has_no_log_and_says_why() {
        let check = |container: &str, previous| {
            let request = LogsRequest { container: container.into(), previous, ..LogsRequest::default() };
            check_started("x", &pod(), &request).map_err(|error| error.message)
        };
        let waiting = "container \"a\" in pod \"x\" is waiting to start: CreateContainerConfigError";
        assert_eq!(check("a", false).unwrap_err(), waiting);
        assert!(check("b", false).is_ok() && check("b", true).is_ok());
        assert_eq!(
            check("a", true).unwrap_err(),
            "previous terminated container \"a\" in pod \"x\" not found"
        );
        assert!(check("i", false).unwrap_err().ends_with("is waiting to start: ContainerCreating"));
    }

    #[test]
    fn log_options_are_checked() {
        let options = |pairs: &[(&str, &str)]| {
            let query: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            parse("x", &query)
        };
        assert_eq!(options(&[("tailLines", "5"), ("follow", "true")]).unwrap().tail_lines, Some(5));
        for bad in [("tailLines", "-1"), ("sinceSeconds", "0"), ("limitBytes", "0"), ("sinceTime", "noon")] {
            assert_eq!(options(&[bad]).unwrap_err().reason, Reason::Invalid, "{bad:?}");
        }
        for bad in [("tailLines", "many"), ("follow", "maybe")] {
            assert_eq!(options(&[bad]).unwrap_err().reason, Reason::BadRequest, "{bad:?}");
        }
    }
}
