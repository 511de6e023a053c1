//! Large answers, while the client takes its time to read them.
//!
//! A list waits in memory until it is read, and a client may ask for thousands over one connection and read none. So a
//! large answer goes out in pieces, keeps its seat until the last one is taken, and is given up when none is taken for
//! a while. What a watch begins with is such an answer, too, until all of it is taken.
//!
//! Must never know: what is in it.

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::fairness::Seat;
use crate::service::Initial;

/// Smaller answers are handed over whole: what a connection holds anyway.
const LARGE_BYTES: u64 = 256 << 10;

/// What the connection is given at a time, and holds when the client stops reading: four TLS records.
const PIECE_BYTES: usize = 64 << 10;

/// How long a client may take for one piece: 9 kbit/s.
const PIECE_LIMIT: Duration = Duration::from_secs(60);

/// The same answer, which keeps its seat if it is large. One without a size may be a stream, which is bounded otherwise;
/// `is_large` says that it is none. Of a watch, what existed before is held.
pub fn held(mut answer: Response<Body>, seat: Option<Seat>, is_large: bool) -> Response<Body> {
    let bytes = answer.body().size_hint().exact();
    let initial = answer.extensions_mut().remove::<Initial>().filter(|initial| !initial.is_over());
    match initial.is_some() || bytes.map_or(is_large, |bytes| bytes > LARGE_BYTES) {
        true => answer.map(|body| Body::new(Held::new(body, bytes, seat, initial))),
        false => answer,
    }
}

/// A body that goes out in pieces.
struct Held {
    rest: Arc<Mutex<Option<Rest>>>,
    /// Gives the rest up when nobody takes it.
    _guard: AbortOnDropHandle<()>,
}

/// What the client has not taken yet; gone when it is given up.
struct Rest {
    body: Body,
    /// Taken out of the body already.
    data: Bytes,
    /// Bytes of both, if that is known.
    bytes: Option<u64>,
    taken: Instant,
    seat: Option<Seat>,
    /// Of a watch: how far it is. From when it has told what existed, it is held no longer.
    initial: Option<Initial>,
    is_free: bool,
}

impl Rest {
    /// Lets go of the seat when all is told that has to be read in time.
    fn settle(&mut self) {
        if self.initial.as_ref().is_some_and(Initial::is_over) {
            (self.seat, self.initial, self.is_free) = (None, None, true);
        }
    }
}

impl Held {
    fn new(body: Body, bytes: Option<u64>, seat: Option<Seat>, initial: Option<Initial>) -> Self {
        let (data, taken) = (Bytes::new(), Instant::now());
        let rest = Rest { body, data, bytes, taken, seat, initial, is_free: false };
        let rest = Arc::new(Mutex::new(Some(rest)));
        Self { _guard: AbortOnDropHandle::new(tokio::spawn(guard(Arc::downgrade(&rest)))), rest }
    }
}

/// Gives the rest up when the client takes too long for a piece.
async fn guard(rest: Weak<Mutex<Option<Rest>>>) {
    let limit = || {
        let rest = rest.upgrade()?;
        let rest = rest.lock();
        rest.as_ref().filter(|rest| !rest.is_free).map(|rest| rest.taken + PIECE_LIMIT)
    };
    while let Some(limit) = limit() {
        if Instant::now() < limit {
            sleep_until(limit).await;
        } else {
            let given_up = rest.upgrade().and_then(|rest| rest.lock().take());
            tracing::debug!(
                bytes = given_up.and_then(|rest| rest.bytes),
                "an answer is given up: nobody reads it"
            );
        }
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut held = self.rest.lock();
        let Some(rest) = &mut *held else {
            let why = format!("nothing of the answer was read for {} s", PIECE_LIMIT.as_secs());
            return Poll::Ready(Some(Err(axum::Error::new(std::io::Error::other(why)))));
        };
        if rest.data.is_empty() {
            let frame = Pin::new(&mut rest.body).poll_frame(context);
            rest.settle();
            match ready!(frame).transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => rest.data = data,
                Some(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                None => return Poll::Ready(None),
            }
        }
        let piece = rest.data.split_to(rest.data.len().min(PIECE_BYTES));
        rest.bytes = rest.bytes.map(|bytes| bytes.saturating_sub(piece.len() as u64));
        rest.taken = Instant::now();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.lock().as_ref().is_some_and(|rest| rest.data.is_empty() && rest.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let bytes = self.rest.lock().as_ref().and_then(|rest| rest.bytes);
        bytes.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::server::fairness::Fairness;

    const BYTES: usize = 300 << 10;

    /// An answer that has the only seat there is.
    async fn answer(fairness: &Arc<Fairness>, bytes: usize) -> Response<Body> {
        let seat = fairness.seat("slow").await.unwrap();
        held(
            Response::new(Body::from((0..bytes).map(|byte| byte as u8).collect::<Vec<u8>>())),
            Some(seat),
            false,
        )
    }

    fn is_free(fairness: &Arc<Fairness>) -> bool {
        fairness.seat("other").now_or_never().is_some()
    }

    #[tokio::test]
    async fn a_large_answer_arrives_whole_and_keeps_its_seat_until_it_is_read() {
        let fairness = Fairness::of_one();
        let mut answer = answer(&fairness, BYTES).await;
        assert_eq!(answer.body().size_hint().exact(), Some(BYTES as u64));
        let mut read = Vec::new();
        while let Some(piece) = answer.body_mut().frame().await {
            assert!(!is_free(&fairness));
            let piece = piece.unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE_BYTES);
            read.extend_from_slice(&piece);
        }
        assert!(read.len() == BYTES && read.iter().enumerate().all(|(at, byte)| at as u8 == *byte));
        drop(answer);
        assert!(is_free(&fairness));
    }

    #[tokio::test]
    async fn a_list_of_unknown_size_keeps_its_seat_and_a_stream_does_not() {
        for is_large in [true, false] {
            let fairness = Fairness::of_one();
            let pieces = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"piece"))]);
            let seat = fairness.seat("slow").await.unwrap();
            let answer = held(Response::new(Body::from_stream(pieces)), Some(seat), is_large);
            assert_eq!(is_free(&fairness), !is_large);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "piece");
            assert!(is_free(&fairness));
        }
    }

    /// A watch that has `count` objects to tell and then waits.
    async fn watch(fairness: &Arc<Fairness>, count: usize) -> Response<Body> {
        let initial = Initial::default();
        let told = initial.clone();
        let events = stream::iter(vec![Bytes::from_static(b"event"); count]).map(Ok::<_, std::io::Error>);
        let end = stream::poll_fn(move |_| {
            told.end();
            Poll::Pending
        });
        let seat = fairness.seat("slow").await.unwrap();
        let mut answer = Response::new(Body::from_stream(events.chain(end)));
        answer.extensions_mut().insert(initial);
        held(answer, Some(seat), false)
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_keeps_its_seat_until_what_existed_is_read_and_may_be_silent_then() {
        let fairness = Fairness::of_one();
        let mut watch = watch(&fairness, 3).await;
        for _ in 0..3 {
            assert!(!is_free(&fairness));
            assert_eq!(watch.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "event");
        }
        let silent = tokio::time::timeout(10 * PIECE_LIMIT, watch.body_mut().frame()).await;
        assert!(silent.is_err() && is_free(&fairness), "it goes on, without a seat");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_whose_beginning_nobody_reads_is_given_up() {
        let fairness = Fairness::of_one();
        let mut watch = watch(&fairness, 3).await;
        watch.body_mut().frame().await.unwrap().unwrap();
        tokio::time::sleep(PIECE_LIMIT + Duration::from_millis(1)).await;
        assert!(is_free(&fairness));
        let error = watch.body_mut().frame().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("nothing of the answer was read"), "{error}");
    }

    #[tokio::test]
    async fn a_small_answer_lets_go_of_its_seat_at_once() {
        let fairness = Fairness::of_one();
        let _answer = answer(&fairness, 1000).await;
        assert!(is_free(&fairness));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_given_up_and_a_slow_reader_is_not() {
        let fairness = Fairness::of_one();
        let mut answer = answer(&fairness, BYTES).await;
        for _ in 0..3 {
            tokio::time::sleep(PIECE_LIMIT / 2).await;
            assert!(answer.body_mut().frame().await.unwrap().is_ok() && !is_free(&fairness));
        }
        tokio::time::sleep(PIECE_LIMIT + Duration::from_millis(1)).await;
        assert!(is_free(&fairness));
        let error = answer.body_mut().frame().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("nothing of the answer was read"), "{error}");
    }
}
