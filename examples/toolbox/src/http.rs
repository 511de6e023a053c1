//! Just enough HTTP/1.1: an echo server whose health, latency and error rate can be changed while
//! it runs, and a client for one GET.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{Options, complain, resolve::resolve, say};

/// A client that sends nothing must not hold a thread for ever.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest request line or header line, and most headers: 100 × 8 KiB bounds a request's memory.
const LINE_BYTES_MAX: u64 = 8 * 1024;
const HEADERS_MAX: usize = 100;

/// What is read of an answer.
const BODY_BYTES_MAX: u64 = 1 << 20;

pub(crate) struct Settings {
    port: u16,
    latency_ms: u64,
    errors_per_mille: u64,
    unhealthy_after: Option<Duration>,
}

struct State {
    started: Instant,
    unhealthy_after: Option<Duration>,
    healthy: AtomicBool,
    latency_ms: AtomicU64,
    errors_per_mille: AtomicU64,
    /// Spreads errors evenly: an error each time the running sum passes a thousand.
    error_sum: AtomicU64,
    name: String,
    greeting: Option<String>,
}

impl Settings {
    pub(crate) fn from_options(options: &Options) -> Result<Self, String> {
        let port = options.number("port", 8080)?;
        Ok(Self {
            port: u16::try_from(port).map_err(|_| format!("--port {port}: must be 1 to 65535"))?,
            latency_ms: options.number("latency-ms", 0)?,
            errors_per_mille: options.value("error-rate").map_or(Ok(0), per_mille)?,
            unhealthy_after: options.seconds("unhealthy-after")?,
        })
    }
}

fn per_mille(rate: &str) -> Result<u64, String> {
    match rate.parse::<f64>() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range is checked: 0 to 1000"
        )]
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok((rate * 1000.0).round() as u64),
        _ => Err(format!("error rate \"{rate}\": must be a number from 0 to 1")),
    }
}

pub(crate) fn serve(settings: &Settings) -> Result<u8, String> {
    let listener = TcpListener::bind(("0.0.0.0", settings.port))
        .map_err(|error| format!("port {}: {error}", settings.port))?;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let tag = std::env::var("TOOLBOX_TAG").unwrap_or_default();
    let greeting = std::env::var("GREETING").ok().filter(|text| !text.is_empty());
    let greets = greeting.as_ref().map(|text| format!(", greeting \"{text}\"")).unwrap_or_default();
    say(&format!("toolbox {tag} on {name} serving port {}{greets}", settings.port));
    let state = Arc::new(State {
        started: Instant::now(),
        unhealthy_after: settings.unhealthy_after,
        healthy: AtomicBool::new(true),
        latency_ms: AtomicU64::new(settings.latency_ms),
        errors_per_mille: AtomicU64::new(settings.errors_per_mille),
        error_sum: AtomicU64::new(0),
        name: format!("toolbox {tag} on {name}"),
        greeting,
    });
    for connection in listener.incoming() {
        match connection {
            Ok(connection) => {
                let state = Arc::clone(&state);
                std::thread::spawn(move || {
                    let _ = answer(&connection, &state);
                });
            }
            Err(error) => {
                complain(&format!("accept: {error}"));
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
    Ok(0)
}

fn answer(connection: &TcpStream, state: &State) -> io::Result<()> {
    connection.set_read_timeout(Some(IDLE_TIMEOUT))?;
    let mut reader = BufReader::new(connection);
    let Some((method, target)) = read_request(&mut reader)? else {
        return respond(connection, 400, "malformed request\n");
    };
    let (path, query) = target.split_once('?').unwrap_or((target.as_str(), ""));
    let (status, body) = match path {
        "/healthz" => state.health(),
        "/control" => state.control(query),
        _ => state.echo(&method, &target),
    };
    if path != "/healthz" {
        say(&format!("{method} {target} {status}"));
    }
    respond(connection, status, &body)
}

/// The request line, after reading past the headers; `None` when it is not HTTP.
fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<(String, String)>> {
    let first = read_line(reader)?;
    let mut words = first.split_whitespace();
    let (Some(method), Some(target), Some(_)) = (words.next(), words.next(), words.next()) else {
        return Ok(None);
    };
    for _ in 0..HEADERS_MAX {
        if read_line(reader)?.trim().is_empty() {
            return Ok(Some((method.to_owned(), target.to_owned())));
        }
    }
    Ok(None)
}

fn read_line(reader: &mut BufReader<&TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
    Ok(line)
}

fn respond(mut connection: &TcpStream, status: u16, body: &str) -> io::Result<()> {
    let reason = if status < 400 { "OK" } else { "Error" };
    // One write: a client that hangs up after the status line would fail the second of several.
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(answer.as_bytes())
}

impl State {
    fn health(&self) -> (u16, String) {
        let expired = self.unhealthy_after.is_some_and(|after| self.started.elapsed() >= after);
        if self.healthy.load(Relaxed) && !expired {
            (200, "ok\n".to_owned())
        } else {
            (503, "unhealthy\n".to_owned())
        }
    }

    fn control(&self, query: &str) -> (u16, String) {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let Err(message) = self.set(name, value) {
                return (400, format!("{message}\n"));
            }
        }
        let text = format!(
            "latency-ms={} errors-per-mille={} healthy={}\n",
            self.latency_ms.load(Relaxed),
            self.errors_per_mille.load(Relaxed),
            self.healthy.load(Relaxed)
        );
        (200, text)
    }

    fn set(&self, name: &str, value: &str) -> Result<(), String> {
        let bad = || format!("{name}={value}: not a valid value");
        match name {
            "latency-ms" => self.latency_ms.store(value.parse().map_err(|_| bad())?, Relaxed),
            "error-rate" => self.errors_per_mille.store(per_mille(value)?, Relaxed),
            "healthy" => self.healthy.store(value.parse().map_err(|_| bad())?, Relaxed),
            _ => return Err(format!("unknown setting \"{name}\"")),
        }
        Ok(())
    }

    fn echo(&self, method: &str, target: &str) -> (u16, String) {
        std::thread::sleep(Duration::from_millis(self.latency_ms.load(Relaxed)));
        let share = self.errors_per_mille.load(Relaxed);
        let before = self.error_sum.fetch_add(share, Relaxed);
        if before / 1000 != (before + share) / 1000 {
            return (500, "failing on purpose\n".to_owned());
        }
        match &self.greeting {
            Some(greeting) if target == "/" => (200, format!("{greeting}\n")),
            _ => (200, format!("{}: {method} {target}\n", self.name)),
        }
    }
}

/// One GET. Exit code 0 for a status below 400, 1 otherwise.
pub(crate) fn check(url: &str) -> Result<u8, String> {
    match fetch(url) {
        Ok((status, _)) if status < 400 => Ok(0),
        Ok((status, _)) => {
            complain(&format!("{url}: status {status}"));
            Ok(1)
        }
        Err(Problem::Usage(why)) => Err(why),
        Err(Problem::Call(why)) => {
            complain(&format!("{url}: {why}"));
            Ok(1)
        }
    }
}

/// GETs, with what they answer printed. Exit code 1 if one of them could not be made.
pub(crate) fn print(url: &str, times: u64) -> Result<u8, String> {
    let mut code = 0;
    for _ in 0..times {
        match fetch(url) {
            Ok((_, body)) => say(body.trim_end()),
            Err(Problem::Usage(why)) => return Err(why),
            Err(Problem::Call(why)) => {
                complain(&format!("{url}: {why}"));
                code = 1;
            }
        }
    }
    Ok(code)
}

enum Problem {
    Usage(String),
    Call(String),
}

/// Status and body of one GET.
fn fetch(url: &str) -> Result<(u16, String), Problem> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| Problem::Usage(format!("{url}: only http:// is supported")))?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => {
            (name, port.parse().map_err(|_| Problem::Usage(format!("{url}: {port} is no port")))?)
        }
        None => (host, 80),
    };
    let address = resolve(name).map_err(Problem::Call)?;
    get(&SocketAddr::new(address, port), host, path).map_err(|error| Problem::Call(error.to_string()))
}

fn get(address: &SocketAddr, host: &str, path: &str) -> io::Result<(u16, String)> {
    let mut connection = TcpStream::connect_timeout(address, IDLE_TIMEOUT)?;
    connection.set_read_timeout(Some(IDLE_TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(&connection);
    let line = read_line(&mut reader)?;
    let status = line.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    while !read_line(&mut reader)?.trim().is_empty() {}
    let mut body = String::new();
    reader.take(BODY_BYTES_MAX).read_to_string(&mut body)?;
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(errors_per_mille: u64) -> State {
        State {
            started: Instant::now(),
            unhealthy_after: None,
            healthy: AtomicBool::new(true),
            latency_ms: AtomicU64::new(0),
            errors_per_mille: AtomicU64::new(errors_per_mille),
            error_sum: AtomicU64::new(0),
            name: "test".to_owned(),
            greeting: Some("hello".to_owned()),
        }
    }

    #[test]
    fn an_error_rate_of_a_quarter_fails_every_fourth_request() {
        let state = state(250);
        let failed = (0..100).filter(|_| state.echo("GET", "/").0 == 500).count();
        assert_eq!(failed, 25);
    }

    #[test]
    fn health_can_be_changed_while_the_server_runs() {
        let state = state(0);
        assert_eq!(state.health().0, 200);
        assert_eq!(state.control("healthy=false").0, 200);
        assert_eq!(state.health().0, 503);
        assert_eq!(state.control("healthy=perhaps").0, 400);
    }

    #[test]
    fn the_greeting_is_the_answer_at_the_root_only() {
        assert_eq!(state(0).echo("GET", "/").1, "hello\n");
        assert_eq!(state(0).echo("GET", "/x").1, "test: GET /x\n");
    }

    #[test]
    fn a_real_request_over_tcp_is_echoed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (connection, _) = listener.accept().unwrap();
            answer(&connection, &state(0)).unwrap();
        });
        assert_eq!(check(&format!("http://{address}/hello")), Ok(0));
        server.join().unwrap();
    }
}
