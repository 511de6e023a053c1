//! Names to addresses, as `/etc/hosts` and `/etc/resolv.conf` say: a static program cannot ask the system's resolver.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const PATIENCE: Duration = Duration::from_secs(3);
const TRIES: usize = 2;

/// Codes of DNS: the class, and records of addresses. Source: RFC 1035.
const INTERNET: u16 = 1;
const ADDRESS: u16 = 1;

/// The first address of a host.
pub(crate) fn resolve(host: &str) -> Result<IpAddr, String> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    if let Some(address) = in_hosts(host) {
        return Ok(address);
    }
    let text =
        fs::read_to_string("/etc/resolv.conf").map_err(|error| format!("/etc/resolv.conf: {error}"))?;
    let config = Config::parse(&text);
    let mut problem = "/etc/resolv.conf names no server".to_owned();
    for name in config.candidates(host) {
        for server in config.servers.iter().cycle().take(config.servers.len() * TRIES) {
            match ask(server, &name) {
                Ok(Some(address)) => return Ok(address.into()),
                Ok(None) => {
                    problem = "no such name".to_owned();
                    break;
                }
                Err(why) => problem = format!("{server}: {why}"),
            }
        }
    }
    Err(format!("{host}: {problem}"))
}

fn in_hosts(host: &str) -> Option<IpAddr> {
    let text = fs::read_to_string("/etc/hosts").ok()?;
    let line = text.lines().find(|line| line.split_whitespace().skip(1).any(|name| name == host))?;
    line.split_whitespace().next()?.parse().ok()
}

struct Config {
    servers: Vec<String>,
    searches: Vec<String>,
    dots: usize,
}

impl Config {
    fn parse(text: &str) -> Self {
        let mut config = Self { servers: Vec::new(), searches: Vec::new(), dots: 1 };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.split_first() {
                Some((&"nameserver", rest)) => {
                    config.servers.extend(rest.first().map(|one| (*one).to_owned()))
                }
                Some((&"search", rest)) => {
                    config.searches = rest.iter().map(|one| (*one).to_owned()).collect()
                }
                Some((&"options", rest)) => {
                    let dots = rest.iter().find_map(|one| one.strip_prefix("ndots:")?.parse().ok());
                    config.dots = dots.unwrap_or(config.dots);
                }
                _ => {}
            }
        }
        config
    }

    /// The names to ask for, in order.
    fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(whole) = host.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let mut names: Vec<String> = self.searches.iter().map(|search| format!("{host}.{search}")).collect();
        let as_it_is = if host.matches('.').count() >= self.dots { 0 } else { names.len() };
        names.insert(as_it_is, host.to_owned());
        names
    }
}

/// `None`: there is no such name.
fn ask(server: &str, name: &str) -> Result<Option<Ipv4Addr>, String> {
    let text = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(text)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    socket.connect((server, 53)).map_err(text)?;
    let id = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos().to_be_bytes();
    // Id, "recursion desired", one question.
    let mut query = vec![id[2], id[3], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length));
        query.push(length.ok_or("not a name")?);
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend([ADDRESS.to_be_bytes(), INTERNET.to_be_bytes()].concat());
    socket.send(&query).map_err(text)?;
    let mut answer = [0; 1500];
    loop {
        let length = socket.recv(&mut answer).map_err(text)?;
        if answer[..2] == query[..2] {
            return read(&answer[..length], query.len())
                .ok_or_else(|| "the answer does not parse".to_owned());
        }
    }
}

/// The first address in an answer to a question that ends at `at`. Outer `None`: it does not parse.
fn read(answer: &[u8], mut at: usize) -> Option<Option<Ipv4Addr>> {
    let short = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    match answer.get(3)? & 0x0f {
        0 => {}
        3 => return Some(None),
        _ => return None,
    }
    for _ in 0..short(6)? {
        // A name: labels to the end, or to a pointer.
        loop {
            let length = *answer.get(at)?;
            at += match length {
                0 => 1,
                0xc0.. => 2,
                _ => usize::from(length) + 1,
            };
            if length == 0 || length >= 0xc0 {
                break;
            }
        }
        let (kind, length) = (short(at)?, usize::from(short(at + 8)?));
        let data = answer.get(at + 10..at + 10 + length)?;
        if let (ADDRESS, [a, b, c, d]) = (kind, data) {
            return Some(Some(Ipv4Addr::new(*a, *b, *c, *d)));
        }
        at += 10 + length;
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_looked_for_in_the_cluster_first() {
        let config = Config::parse("nameserver 10.88.0.1\nsearch a.svc b\noptions ndots:2\n");
        assert_eq!(config.servers, ["10.88.0.1"]);
        assert_eq!(config.candidates("web"), ["web.a.svc", "web.b", "web"]);
        assert_eq!(config.candidates("a.b.c"), ["a.b.c", "a.b.c.a.svc", "a.b.c.b"]);
        assert_eq!(config.candidates("web."), ["web"]);
    }

    #[test]
    fn an_address_is_found_behind_an_alias() {
        let mut answer = vec![0, 1, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        let question = answer.len();
        answer.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 5, 0, 3, 1, b'b', 0]);
        answer.extend([1, b'b', 0, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 96, 0, 9]);
        assert_eq!(read(&answer, question), Some(Some(Ipv4Addr::new(10, 96, 0, 9))));
        for cut in question..answer.len() {
            assert_eq!(read(&answer[..cut], question), None, "{cut}");
        }
        answer[3] = 3;
        assert_eq!(read(&answer, question), Some(None));
    }
}
