//! Many writes in one call: one after the other, each answered by itself.
//!
//! One after the other, because a write may need the one before it (an object its namespace), and because a batch then
//! takes no more of the server than any other request with one seat.

use bytes::Bytes;
use claw_client::{Request, Response, request::View};
use claw_schemas::{
    ApiError,
    proto::{self, write::Write, write_answer::Answer},
};
use tonic::Status;

use super::{
    objects::{Asked, invalid, json},
    status, writes,
};
use crate::{auth::Identity, service::ObjectService};

/// Writes in a batch. At a few milliseconds each on a slow disk, about a second: well within a client's deadline.
const WRITES_MAX: usize = 256;

/// Bytes of answers after which nothing more is tried: 256 objects may be 384 MiB, though what was sent is 4.
const ANSWERS_BYTES_MAX: usize = 16 << 20;

/// What is wrong with a batch as a whole.
pub fn check(batch: &proto::BatchRequest) -> Result<(), Status> {
    match batch.writes.len() {
        0..=WRITES_MAX => Ok(()),
        many => Err(invalid(&format!("a batch has at most {WRITES_MAX} writes, not {many}"))),
    }
}

/// Does the writes and answers each.
pub async fn answers(
    service: &ObjectService,
    who: &Identity,
    writes: Vec<proto::Write>,
    agent: Option<String>,
) -> Vec<proto::WriteAnswer> {
    let (mut answers, mut bytes) = (Vec::with_capacity(writes.len()), 0);
    for write in writes {
        let done = match bytes < ANSWERS_BYTES_MAX {
            true => one(service, who, write, agent.clone()).await,
            false => Err(not_tried()),
        };
        let answer = done.map_or_else(|error| failed(&error), succeeded);
        bytes += size(&answer);
        answers.push(answer);
    }
    answers
}

async fn one(
    service: &ObjectService,
    who: &Identity,
    write: proto::Write,
    agent: Option<String>,
) -> Result<Response, ApiError> {
    let (resource, verb) = asked(write, agent).map_err(|refused| status::error(&refused))?;
    service.call(who, Request { resource, verb, view: View::Object }).await
}

fn asked(write: proto::Write, agent: Option<String>) -> Result<Asked, Status> {
    match write.write {
        Some(Write::Create(message)) => writes::create(message, agent),
        Some(Write::Update(message)) => writes::update(message, agent),
        Some(Write::Patch(message)) => writes::patch(message, agent),
        Some(Write::Delete(message)) => writes::delete(message),
        None => Err(invalid("a write is one of create, update, patch, delete")),
    }
}

fn succeeded(response: Response) -> proto::WriteAnswer {
    let answer = Some(Answer::Object(json(response.body)));
    proto::WriteAnswer { answer, warnings: response.warnings }
}

fn failed(error: &ApiError) -> proto::WriteAnswer {
    let answer = Some(Answer::Error(json(Bytes::from(error.to_json()))));
    proto::WriteAnswer { answer, warnings: error.warnings.clone() }
}

fn not_tried() -> ApiError {
    let why =
        format!("not tried: the answers of this batch hold {ANSWERS_BYTES_MAX} bytes already; send it again");
    ApiError::too_many_requests(why, 0)
}

fn size(answer: &proto::WriteAnswer) -> usize {
    match &answer.answer {
        Some(Answer::Object(object) | Answer::Error(object)) => object.body.len(),
        None => 0,
    }
}
