//! What the example pods run: one small static program with an HTTP server, a sleeper, a few ways to
//! misbehave on purpose, and what a person needs who looks into a container. It is the image `clawbernetes.io/toolbox`.
//!
//! The node agent's build script compiles this file into a program (`main` below) and embeds it, so
//! that a cluster has something to run without any registry. Standard library only: the program
//! stays small, and builds with nothing but `rustc`.
//!
//! Must never know: anything about clusters.

mod archive;
mod http;
mod kernel;
mod processes;
mod resolve;
mod shell;
mod terminal;

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    time::{Duration, Instant},
};

const USAGE: &str = "usage: toolbox COMMAND [--option value]
  serve [--port 8080] [--latency-ms N] [--error-rate 0..1] [--unhealthy-after SECONDS]
        echoes requests; / answers $GREETING if that is set; /healthz; /control?latency-ms=N&error-rate=R&healthy=true|false
  sleep SECONDS                          waits, then exits 0
  crash [--after SECONDS] [--code N]     exits with a code (1)
  memory --mib N                         takes that much memory and holds it
  cpu [--threads N] [--seconds S]        computes
  lines --count N [--interval-ms M] [--text T]   numbered lines
  env                                    prints the environment
  id, pwd, tty, stty size                who and where this is, and its terminal
  ps                                     processes: number, state, command line
  pause                                  waits for ever, and reaps whom others leave behind
  cat [FILE...]                          prints files, or what it reads
  echo [TEXT...]                         prints a line
  yes                                    prints lines without end
  test -d|-e|-f PATH                     exits 0 if there is such a thing
  tar cf - PATH... | xf - [-C FOLDER]    packs and unpacks
  sh [-c SCRIPT]                         runs commands, one after the other
  parrot [--port 7000] [--host H] [--protocol tcp|udp]   says back what it hears, on each connection
  write FILE TEXT                        writes TEXT and a newline to FILE
  copy FROM TO                           copies a file
  check URL                              one HTTP GET; exits 0 on a status below 400
  get URL [--times N]                    HTTP GETs, and prints what they answer
  resolve NAME                           the first address of a name
  syscall NUMBER [ARGUMENT...]           asks the kernel; prints what it answers, exits 1 on an error
  true, false                            exit 0, exit 1
Called by the name of a command, it is that command.";

/// Runs the command named by the first argument.
pub fn main() -> ExitCode {
    signals::exit_gracefully_on_term();
    let mut arguments: Vec<String> = std::env::args().collect();
    let name = arguments.first().and_then(|name| name.rsplit('/').next());
    if name.is_none_or(|name| name == "toolbox") {
        arguments.drain(..arguments.len().min(1));
    } else if let Some(name) = name.map(str::to_owned) {
        arguments[0] = name;
    }
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            complain(&message);
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<u8, String> {
    let Some((command, rest)) = arguments.split_first() else { return Err(USAGE.to_owned()) };
    // These take their arguments as everybody knows them.
    match command.as_str() {
        "sh" => return shell::run(rest),
        "tar" => return archive::run(rest),
        "stty" => return terminal::stty(rest),
        "test" => return test(rest),
        "echo" => {
            say(&rest.join(" "));
            return Ok(0);
        }
        _ => {}
    }
    let options = Options::parse(rest)?;
    match command.as_str() {
        "serve" => http::serve(&http::Settings::from_options(&options)?),
        "sleep" => {
            std::thread::sleep(seconds(options.positional(0, "SECONDS")?)?);
            Ok(0)
        }
        "crash" => crash(&options),
        "memory" => memory(options.required("mib")?),
        "cpu" => cpu(options.number("threads", 1)?, options.seconds("seconds")?),
        "lines" => lines(&options),
        "env" => {
            let mut pairs: Vec<String> =
                std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            pairs.sort();
            pairs.iter().for_each(|pair| say(pair));
            Ok(0)
        }
        "tty" => Ok(terminal::tty()),
        "id" => id(),
        "pwd" => {
            let folder = std::env::current_dir().map_err(|error| format!("pwd: {error}"))?;
            say(&folder.display().to_string());
            Ok(0)
        }
        "yes" => {
            let lines = "y\n".repeat(4096);
            loop {
                io::stdout().lock().write_all(lines.as_bytes()).map_err(|error| format!("yes: {error}"))?;
            }
        }
        "parrot" => parrot(&options),
        "cat" if options.positionals.is_empty() => {
            let copied = io::copy(&mut io::stdin().lock(), &mut io::stdout().lock());
            copied.and_then(|_| io::stdout().flush()).map(|()| 0).map_err(|error| format!("cat: {error}"))
        }
        "cat" => options.positionals.iter().try_for_each(|file| cat(file)).map(|()| 0),
        "write" => {
            let file = options.positional(0, "FILE")?;
            let text = format!("{}\n", options.positional(1, "TEXT")?);
            std::fs::write(file, text).map_err(|error| format!("{file}: {error}")).map(|()| 0)
        }
        "copy" => {
            let (from, to) = (options.positional(0, "FROM")?, options.positional(1, "TO")?);
            std::fs::copy(from, to).map_err(|error| format!("copying {from} to {to}: {error}")).map(|_| 0)
        }
        "check" => http::check(options.positional(0, "URL")?),
        "get" => http::print(options.positional(0, "URL")?, options.number("times", 1)?),
        "resolve" => resolve::resolve(options.positional(0, "NAME")?).map(|address| {
            say(&address.to_string());
            0
        }),
        "ps" => processes::list(),
        "pause" => processes::pause(),
        "syscall" => kernel::call(&options.positionals),
        "true" => Ok(0),
        "false" => Ok(1),
        other => Err(format!("unknown command \"{other}\"\n{USAGE}")),
    }
}

fn crash(options: &Options) -> Result<u8, String> {
    let code = options.number("code", 1)?;
    let code = u8::try_from(code).map_err(|_| format!("--code {code}: must be 0 to 255"))?;
    let after = options.seconds("after")?.unwrap_or_default();
    say(&format!("crashing with code {code} in {after:?}"));
    std::thread::sleep(after);
    complain(&format!("crash: exit {code}"));
    Ok(code)
}

/// Touches every page, so that the memory is really taken, then waits to be stopped.
fn memory(mebibytes: u64) -> Result<u8, String> {
    const STEP: usize = 1 << 20;
    let mut held: Vec<Vec<u8>> = Vec::new();
    for taken in 1..=mebibytes {
        held.push(std::hint::black_box(vec![0xA5; STEP]));
        if taken % 16 == 0 || taken == mebibytes {
            say(&format!("holding {taken} MiB"));
        }
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
        std::hint::black_box(&held);
    }
}

fn cpu(threads: u64, limit: Option<Duration>) -> Result<u8, String> {
    let until = limit.map(|limit| Instant::now() + limit);
    let spin = move || {
        let mut state = 1_u64;
        while until.is_none_or(|until| Instant::now() < until) {
            for _ in 0..1_000_000 {
                state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
    };
    say(&format!("computing on {threads} threads"));
    let workers: Vec<_> = (0..threads).map(|_| std::thread::spawn(spin)).collect();
    for worker in workers {
        worker.join().map_err(|_| "a worker thread panicked".to_owned())?;
    }
    Ok(0)
}

fn lines(options: &Options) -> Result<u8, String> {
    let interval = Duration::from_millis(options.number("interval-ms", 0)?);
    let text = options.value("text").unwrap_or("line");
    for number in 1..=options.required("count")? {
        say(&format!("{text} {number}"));
        if !interval.is_zero() {
            std::thread::sleep(interval);
        }
    }
    Ok(0)
}

/// `test -d PATH` and its like.
fn test(arguments: &[String]) -> Result<u8, String> {
    let [what, path] = arguments else { return Err("test: use -d, -e or -f and a path".to_owned()) };
    let found = std::fs::metadata(path);
    let is_so = match what.as_str() {
        "-d" => found.is_ok_and(|found| found.is_dir()),
        "-f" => found.is_ok_and(|found| found.is_file()),
        "-e" => found.is_ok(),
        other => return Err(format!("test: {other} is not known here")),
    };
    Ok(u8::from(!is_so))
}

/// User, group and further groups, by number.
fn id() -> Result<u8, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| format!("id: {error}"))?;
    let numbers = |name: &str| -> Vec<&str> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace().collect()
    };
    let first = |name: &str| numbers(name).first().copied().unwrap_or("?").to_owned();
    say(&format!("uid={} gid={} groups={}", first("Uid:"), first("Gid:"), numbers("Groups:").join(",")));
    Ok(0)
}

/// Says back what it hears, on every connection.
fn parrot(options: &Options) -> Result<u8, String> {
    let port = u16::try_from(options.number("port", 7000)?).map_err(|_| "--port: out of range".to_owned())?;
    let host = options.value("host").unwrap_or("0.0.0.0");
    if options.value("protocol") == Some("udp") {
        return parrot_udp(host, port);
    }
    let listener = TcpListener::bind((host, port)).map_err(|error| format!("port {port}: {error}"))?;
    say(&format!("listening on {host} port {port}"));
    for connection in listener.incoming().flatten() {
        std::thread::spawn(move || repeat(connection));
    }
    Ok(0)
}

fn parrot_udp(host: &str, port: u16) -> Result<u8, String> {
    let socket = UdpSocket::bind((host, port)).map_err(|error| format!("port {port}: {error}"))?;
    say(&format!("listening on {host} port {port}"));
    let mut buffer = [0; 16 * 1024];
    loop {
        // An error is about an earlier answer that could not be delivered.
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], client);
        }
    }
}

/// Ends its side when the other side ends.
fn repeat(mut connection: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length) = connection.read(&mut buffer) {
        if length == 0 || connection.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
}

fn cat(file: &str) -> Result<(), String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let _ = io::stdout().lock().write_all(&bytes);
    Ok(())
}

/// One line on stdout. A closed pipe is no reason to die.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| format!("\"{text}\" is not a number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|error| format!("\"{text}\" seconds: {error}"))
}

/// `--name value` or `--name=value`, and the rest in order.
#[derive(Debug, Default)]
struct Options {
    named: Vec<(String, String)>,
    positionals: Vec<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.strip_prefix("--") {
                None => options.positionals.push(argument.clone()),
                Some(option) => {
                    let (name, value) = match option.split_once('=') {
                        Some((name, value)) => (name, value.to_owned()),
                        None => (option, rest.next().ok_or(format!("--{option} needs a value"))?.clone()),
                    };
                    options.named.push((name.to_owned(), value));
                }
            }
        }
        Ok(options)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.named.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        let Some(value) = self.value(name) else { return Ok(default) };
        value.parse().map_err(|_| format!("--{name} {value}: not a whole number"))
    }

    fn required(&self, name: &str) -> Result<u64, String> {
        self.value(name).ok_or(format!("--{name} is required"))?;
        self.number(name, 0)
    }

    fn seconds(&self, name: &str) -> Result<Option<Duration>, String> {
        self.value(name).map(seconds).transpose()
    }

    fn positional(&self, index: usize, what: &str) -> Result<&str, String> {
        self.positionals.get(index).map(String::as_str).ok_or(format!("{what} is required\n{USAGE}"))
    }
}

mod signals {
    //! SIGTERM says goodbye and exits 0: as the first process of a container, the default action does nothing.
    #![expect(unsafe_code, reason = "the standard library has no way to handle a signal")]

    use std::ffi::{c_int, c_void};

    const SIGTERM: c_int = 15;

    unsafe extern "C" {
        fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
        fn write(file: c_int, bytes: *const c_void, count: usize) -> isize;
        fn _exit(code: c_int) -> !;
    }

    extern "C" fn say_goodbye(_: c_int) {
        const GOODBYE: &[u8] = b"received SIGTERM, stopping\n";
        // SAFETY: write and _exit may be called from a signal handler, and the buffer is static.
        unsafe {
            write(1, GOODBYE.as_ptr().cast(), GOODBYE.len());
            _exit(0)
        }
    }

    pub(super) fn exit_gracefully_on_term() {
        // SAFETY: the handler calls only what signal handlers may call.
        unsafe { signal(SIGTERM, say_goodbye) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_take_their_value_after_a_space_or_an_equals_sign() {
        let options = Options::parse(&arguments("--count 3 file --text=hi")).unwrap();
        assert_eq!(options.required("count"), Ok(3));
        assert_eq!(options.value("text"), Some("hi"));
        assert_eq!(options.positional(0, "FILE"), Ok("file"));
    }

    #[test]
    fn a_command_that_is_not_known_is_refused_with_the_usage() {
        let refusal = run(&arguments("fly")).unwrap_err();
        assert!(refusal.contains("unknown command \"fly\"") && refusal.contains("usage:"), "{refusal}");
    }

    #[test]
    fn a_number_that_is_none_is_named() {
        assert_eq!(run(&arguments("lines --count many")), Err("--count many: not a whole number".to_owned()));
    }

    #[test]
    fn a_crash_exits_with_the_code_asked_for() {
        assert_eq!(run(&arguments("crash --code 7")), Ok(7));
        assert!(run(&arguments("crash --code 300")).is_err());
    }
}
