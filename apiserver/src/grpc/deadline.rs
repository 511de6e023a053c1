//! The time that a client gives its call (`grpc-timeout`), kept on the server too.
//!
//! A client that gave up may never say so; what it no longer waits for should not hold a seat or a watch.

use std::time::Duration;

use claw_schemas::{ApiError, status::Reason};
use futures::{
    Stream, StreamExt as _, future,
    stream::{self, BoxStream},
};
use http::HeaderMap;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::status;

const HEADER: &str = "grpc-timeout";

/// When a call is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// Of a call that begins now, if its client set one.
    ///
    /// # Errors
    /// `BadRequest` when the header is not as gRPC has it.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let Some(value) = headers.get(HEADER) else { return Ok(None) };
        let time = value.to_str().ok().and_then(parse).ok_or_else(|| {
            ApiError::bad_request(format!("{HEADER} is not one to eight digits and one of H, M, S, m, u, n"))
        })?;
        // Past the end of the clock there is no deadline.
        Ok(Instant::now().checked_add(time).map(Self))
    }

    /// The one that a client set, but no later than `limit` from now.
    pub fn within(told: Option<Self>, limit: Duration) -> Self {
        let latest = Self(Instant::now() + limit);
        told.map_or(latest, |told| told.min(latest))
    }

    /// The answer, if it comes in time.
    ///
    /// # Errors
    /// `Timeout` when it does not.
    pub async fn keep<T>(deadline: Option<Self>, answer: impl Future<Output = T>) -> Result<T, ApiError> {
        match deadline {
            Some(Self(at)) => tokio::time::timeout_at(at, answer).await.map_err(|_| over()),
            None => Ok(answer.await),
        }
    }
}

/// The items that come in time, and then the error.
pub fn until<T: Send + 'static>(
    deadline: Option<Deadline>,
    items: BoxStream<'static, Result<T, Status>>,
) -> BoxStream<'static, Result<T, Status>> {
    let Some(Deadline(at)) = deadline else { return items };
    let late = stream::once(async move {
        sleep_until(at).await;
        Some(Err(status(&over())))
    });
    whichever(items.map(Some).chain(stream::once(future::ready(None))), late).boxed()
}

/// Both, until one says that it is the end.
fn whichever<T>(
    items: impl Stream<Item = Option<T>>,
    late: impl Stream<Item = Option<T>>,
) -> impl Stream<Item = T> {
    stream::select(items, late).take_while(|item| future::ready(item.is_some())).filter_map(future::ready)
}

fn over() -> ApiError {
    ApiError::new(Reason::Timeout, "the deadline of this call has passed")
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 60 * 60),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_as_grpc_writes_it() {
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse("10S"), Some(Duration::from_secs(10)));
        assert_eq!(parse("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(
            (parse("5u"), parse("5n")),
            (Some(Duration::from_micros(5)), Some(Duration::from_nanos(5)))
        );
        for wrong in ["", "S", "5", "5s", "-5S", "+5S", "123456789S", "5é", "5 S"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_its_items_or_with_its_deadline() {
        let soon = || Some(Deadline(Instant::now() + Duration::from_secs(1)));
        let short = until(soon(), stream::iter([Ok(1), Ok(2)]).boxed()).collect::<Vec<_>>().await;
        assert!(matches!(short[..], [Ok(1), Ok(2)]), "{short:?}");
        let endless = stream::iter([Ok(1)]).chain(stream::pending()).boxed();
        let late = until(soon(), endless).take(2).collect::<Vec<_>>().await;
        assert!(
            matches!(&late[..], [Ok(1), Err(over)] if over.code() == tonic::Code::DeadlineExceeded),
            "{late:?}"
        );
    }
}
