//! A registry in the test's own process, which behaves as the test says: it answers, lies, stops in the middle, or says
//! nothing for ever. It remembers what it was asked.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::made::Made;

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// What to do about it.
pub enum Answer {
    /// A whole answer.
    Whole { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// One that says it is longer, and breaks off.
    Half(Vec<u8>),
    /// The beginning, and then nothing for as long as the registry lives.
    Stall(Vec<u8>),
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Whole { status: 200, headers: Vec::new(), body: body.into() }
    }

    pub fn status(status: u16) -> Self {
        Self::Whole { status, headers: Vec::new(), body: Vec::new() }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Whole { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

type Behaviour = dyn Fn(&Asked) -> Answer + Send + Sync;

pub struct Registry {
    /// `127.0.0.1:PORT`
    pub host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
}

impl Registry {
    pub fn start(behaviour: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (asked, over) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let (all, is_over, behaviour) = (
            Arc::clone(&asked),
            Arc::clone(&over),
            Arc::<Behaviour>::from(Box::new(behaviour) as Box<Behaviour>),
        );
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (all, is_over, behaviour) =
                    (Arc::clone(&all), Arc::clone(&is_over), Arc::clone(&behaviour));
                thread::spawn(move || serve(stream, &all, &is_over, &*behaviour));
            }
        });
        Self { host, asked, over }
    }

    /// One that has an image under `app:v1`, and behaves well but for what `trick` says.
    pub fn with(image: Made, trick: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> Self {
        Self::start(move |asked| trick(asked).unwrap_or_else(|| honest(&image, asked)))
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often something was asked for.
    pub fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path.contains(part)).count()
    }

    pub fn name(&self) -> String {
        format!("{}/app:v1", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes who waits for connections.
        let _ = TcpStream::connect(&self.host);
    }
}

/// What a registry that has the image answers, parts of contents included.
pub fn honest(image: &Made, asked: &Asked) -> Answer {
    let reference = asked.path.rsplit('/').next().unwrap_or_default();
    if asked.path.contains("/manifests/") {
        return match reference == "v1" || reference == image.digest() {
            true => Answer::ok(image.manifest.clone()).with("content-type", image.media_type),
            false => Answer::status(404),
        };
    }
    let Some(blob) = image.blobs.get(reference) else { return Answer::status(404) };
    let from = asked
        .headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) if from < blob.len() => {
            let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
            Answer::Whole { status: 206, headers: Vec::new(), body: blob[from..].to_vec() }
                .with("content-range", &range)
        }
        _ => Answer::ok(blob.clone()),
    }
}

fn serve(stream: TcpStream, all: &Mutex<Vec<Asked>>, is_over: &AtomicBool, behaviour: &Behaviour) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(asked) = read(&mut reader) {
        all.lock().unwrap().push(asked.clone());
        if answer(&stream, behaviour(&asked), is_over).is_none() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => return Some(Asked { path, headers }),
        };
    }
}

/// `None` when the connection is to be closed.
fn answer(mut stream: &TcpStream, answer: Answer, is_over: &AtomicBool) -> Option<()> {
    match answer {
        Answer::Whole { status, headers, body } => {
            let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
            stream.write_all(&body).ok()
        }
        Answer::Half(body) => {
            let head = format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", body.len() * 2 + 1);
            stream.write_all(head.as_bytes()).ok()?;
            stream.write_all(&body).ok()?;
            None
        }
        Answer::Stall(body) => {
            let head = format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", body.len() * 2 + 1);
            stream.write_all(head.as_bytes()).ok()?;
            stream.write_all(&body).ok()?;
            while !is_over.load(Ordering::SeqCst) {
                thread::sleep(std::time::Duration::from_millis(20));
            }
            None
        }
    }
}
