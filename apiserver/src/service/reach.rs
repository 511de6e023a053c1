//! `pods/exec`, `pods/attach`, `pods/portforward`: who may, which container is meant, and the request to its node.

use std::sync::Arc;

use claw_client::ResourceRef;
use claw_schemas::{
    ApiError,
    proto::{ForwardRequest, TalkRequest, open_stream},
    status::Reason,
};
use serde_json::{Value, json};

use super::{
    ObjectService, encode,
    kinds::{Sub, Target},
    logs::{choose, flag},
    object::text,
    watches::Watching,
};
use crate::{
    auth::Identity,
    nodes::{NodeStream, NodeStreams},
};

/// Ports that a client may name beforehand: each has two channels, which are named by a byte.
const PORTS_MAX: usize = 64;

/// What a client has reached.
pub enum Reached {
    /// A process: one that was started for it, or the container's own.
    Process {
        /// The stream to it.
        node: NodeStream,
        /// What was asked for.
        request: TalkRequest,
        /// Whether its end comes with an exit code.
        has_exit_code: bool,
        /// Its share of what may be open.
        _place: Place,
    },
    /// The ports of a pod, each of which is connected to as clients ask.
    Ports {
        /// The way to nodes.
        streams: Arc<dyn NodeStreams>,
        /// Where the pod is.
        node: String,
        /// Without a port.
        request: ForwardRequest,
        /// Those that the client has named already.
        numbers: Vec<u16>,
        /// Its share of what may be open.
        _place: Place,
    },
}

/// A share of what one user may have open at a time: connections to pods live as long as watches, and count as such.
pub struct Place(#[expect(dead_code, reason = "held until the connection is over")] Watching);

impl ObjectService {
    /// Reaches into a pod. `verb` is what authorization calls the method: WebSockets come as reading, and need the right to
    /// create all the same.
    ///
    /// # Errors
    /// What is wrong with the request, or that the node cannot be reached.
    pub async fn reach(
        &self,
        who: &Identity,
        verb: &str,
        resource: ResourceRef,
        query: Vec<(String, String)>,
    ) -> Result<Reached, ApiError> {
        for verb in ["create", verb] {
            self.authorize(who, verb, &resource, "")?;
        }
        let target = self.kinds.resolve(resource)?.asked_by(who);
        let Some(sub @ (Sub::Exec | Sub::Attach | Sub::PortForward)) = target.sub else {
            return Err(super::kinds::method_not_allowed());
        };
        let pod = encode::value_of(&self.record(&target).await?)?;
        let node = node_of(&target, &pod)?;
        let place = Place(self.watches.enter(who)?);
        if sub == Sub::PortForward {
            let numbers = numbers(&query)?;
            let mut options = json!({"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": numbers});
            self.ask_to_connect(&target, &mut options).await?;
            return ports(&target, &pod, node, self.node_streams()?, numbers, place);
        }
        let mut request = process(&target, &pod, sub, &query)?;
        let mut options = shown(&request, sub);
        self.ask_to_connect(&target, &mut options).await?;
        take_over(&mut request, &options);
        let talk = open_stream::Request::Talk(request.clone());
        let stream = self.node_streams()?.open(&node, talk).await?;
        let has_exit_code = sub == Sub::Exec;
        Ok(Reached::Process { node: stream, request, has_exit_code, _place: place })
    }
}

fn node_of(target: &Target, pod: &Value) -> Result<String, ApiError> {
    match pod["spec"]["nodeName"].as_str() {
        Some(node) if !node.is_empty() => Ok(node.to_owned()),
        _ => Err(ApiError::bad_request(format!("pod {} does not have a host assigned", target.name))),
    }
}

fn process(
    target: &Target,
    pod: &Value,
    sub: Sub,
    query: &[(String, String)],
) -> Result<TalkRequest, ApiError> {
    let mut request = TalkRequest::default();
    for (name, value) in query {
        match name.as_str() {
            "container" => request.container.clone_from(value),
            "command" if sub == Sub::Exec => request.command.push(value.clone()),
            "stdin" => request.stdin = flag(name, value)?,
            "stdout" => request.stdout = flag(name, value)?,
            "stderr" => request.stderr = flag(name, value)?,
            "tty" => request.tty = flag(name, value)?,
            _ => {}
        }
    }
    request.container = choose(&target.name, pod, &request.container)?;
    if sub == Sub::Exec && request.command.is_empty() {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    if !(request.stdin || request.stdout || request.stderr) {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    request.namespace.clone_from(&target.namespace);
    request.pod.clone_from(&target.name);
    text(pod, "uid").clone_into(&mut request.uid);
    Ok(request)
}

fn ports(
    target: &Target,
    pod: &Value,
    node: String,
    streams: &Arc<dyn NodeStreams>,
    numbers: Vec<u16>,
    place: Place,
) -> Result<Reached, ApiError> {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if phase != "Running" {
        return Err(ApiError::bad_request(format!(
            "unable to forward port because pod is not running. Current status={phase}"
        )));
    }
    if !streams.reaches(&node) {
        let why = format!("node \"{node}\" has no agent connected, so its pods cannot be reached now");
        return Err(ApiError::new(Reason::ServiceUnavailable, why));
    }
    let request = ForwardRequest {
        namespace: target.namespace.clone(),
        pod: target.name.clone(),
        uid: text(pod, "uid").to_owned(),
        port: 0,
    };
    Ok(Reached::Ports { streams: streams.clone(), node, request, numbers, _place: place })
}

/// The ports that a client names.
fn numbers(query: &[(String, String)]) -> Result<Vec<u16>, ApiError> {
    let named = query.iter().filter(|(name, _)| name == "ports").flat_map(|(_, ports)| ports.split(','));
    let numbers: Vec<u16> = named
        .map(|port| match port.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(ApiError::bad_request(format!("ports={port}: use numbers from 1 to 65535"))),
        })
        .collect::<Result<_, _>>()?;
    if numbers.len() > PORTS_MAX {
        return Err(ApiError::bad_request(format!("{} ports are named, at most {PORTS_MAX}", numbers.len())));
    }
    Ok(numbers)
}

/// A request as those see it who have a say in it.
fn shown(request: &TalkRequest, sub: Sub) -> Value {
    let TalkRequest { container, command, stdin, stdout, stderr, tty, .. } = request;
    let mut options = json!({
        "kind": "PodAttachOptions", "apiVersion": "v1", "container": container,
        "stdin": stdin, "stdout": stdout, "stderr": stderr, "tty": tty,
    });
    if sub == Sub::Exec {
        options["kind"] = "PodExecOptions".into();
        options["command"] = json!(command);
    }
    options
}

/// What they made of it.
fn take_over(request: &mut TalkRequest, options: &Value) {
    let is = |name: &str| options[name].as_bool().unwrap_or(false);
    let command = options["command"].as_array().into_iter().flatten();
    request.command = command.filter_map(|word| word.as_str().map(str::to_owned)).collect();
    options["container"].as_str().unwrap_or_default().clone_into(&mut request.container);
    request.stdin = is("stdin");
    request.stdout = is("stdout");
    request.stderr = is("stderr");
    request.tty = is("tty");
}
