//! Services on one machine: names, addresses, weights, affinity, ports of the host, and the API server itself, while
//! agents die and come back.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use claw_e2e::{
    Cluster, Kubectl, Options,
    binary::workspace,
    host,
    need::{self, Need},
    netns, wait,
};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

/// Two servers, one of them shy: it answers, and is never ready.
const STICKY: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  selector: {app: echo}
  sessionAffinity: ClientIP
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec:
  clusterIP: None
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  selector: {app: nobody}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: from-outside}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  selector: {app: echo}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: at-the-host}
spec:
  containers:
    - name: main
      image: clawbernetes.io/toolbox
      args: [serve, --port, "8080"]
      ports: [{containerPort: 8080, hostPort: 28080}]
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  containers:
    - name: main
      image: clawbernetes.io/toolbox
      args: [serve, --port, "8080"]
      ports:
        - {containerPort: 8080, hostPort: 53, protocol: UDP}
        - {containerPort: 8080, hostPort: 28082}
        - {containerPort: 8081, hostPort: 28082, hostIP: "0.0.0.0"}
        - {containerPort: 8080, hostPort: 28083, hostIP: "::1"}
---
apiVersion: v1
kind: Pod
metadata: {name: on-the-host}
spec:
  hostNetwork: true
  containers:
    - name: main
      image: clawbernetes.io/toolbox
      args: [serve, --port, "28081"]
      ports: [{containerPort: 28081}]
"#;

#[test]
fn services_lead_to_their_pods_and_go_on_while_the_agent_is_away() {
    let story = "services_lead_to_their_pods_and_go_on_while_the_agent_is_away";
    if !need::all(story, &[Need::Root, Need::Kubectl, Need::Networks]) {
        return;
    }
    netns::move_out();
    let mut cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    let example: PathBuf = workspace().join("examples/service.yaml");
    let warned = kubectl.run(&["apply", "-f", &example.to_string_lossy()]);
    assert!(warned.stderr.is_empty(), "nothing is missing: {}", warned.stderr);
    kubectl.ok_with(&["apply", "-f", "-"], STICKY);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod", "-l", "app=echo", "--timeout=600s"]);
    // Both answer from its first call on.
    let echo = address(&kubectl, "echo");
    for who in ["echo-light", "echo-heavy"] {
        wait::until(&format!("{who} is led to"), wait::LATER, || {
            let answer = get((echo, 80)).map_err(|error| error.to_string())?;
            wait::check(answer.contains(who), answer)
        });
    }
    kubectl.ok(&["delete", "pod", "caller", "--now"]);
    kubectl.ok(&["apply", "-f", &example.to_string_lossy()]);
    for pod in ["at-the-host", "greedy", "on-the-host"] {
        kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=600s"]);
    }
    a_pod_calls_by_name_and_weights_decide_who_answers(&kubectl);
    the_host_calls(&kubectl, echo);
    pods_call(&cluster, &kubectl, echo);
    pods_are_told_of_services(&kubectl, echo);
    udp_goes_where_somebody_is(&kubectl);

    // What the kernel was told holds without us.
    cluster.kill();
    assert!(get((echo, 80)).is_ok_and(|answer| answer.contains("echo-")), "the agent is away");
    cluster.restart();
    what_becomes_unready_is_left_out(&kubectl, echo);
    kubectl.ok(&["delete", "service", "echo"]);
    wait::until("a service that is gone leads nowhere", wait::SOON, || {
        wait::check(get((echo, 80)).is_err(), "it still answers")
    });
    let bridge = format!("claw{}", address_of_pod(&kubectl, "echo-light").octets()[2]);
    assert!(traces(&bridge).iter().all(|trace| trace.contains(&bridge)), "{:?}", traces(&bridge));
    cluster.stop();
    assert!(!traces(&bridge).iter().any(|trace| trace.contains(&bridge)), "{:?}", traces(&bridge));
}

/// A pod, and a name for it to ask for.
const ASKS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: named}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "clawbernetes.io/toolbox", args: [sleep, "1000000"]}]
"#;

const NAME: &str = "named.default.svc.cluster.local";

#[test]
fn names_and_the_api_server_wait_for_the_next_agent_when_one_dies() {
    let story = "names_and_the_api_server_wait_for_the_next_agent_when_one_dies";
    if !need::all(story, &[Need::Root, Need::Kubectl, Need::Networks]) {
        return;
    }
    netns::move_out();
    let mut cluster = Cluster::start(Options::up(0));
    cluster.join_node("worker", &[]);
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], ASKS);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/asks", "--timeout=180s"]);
    let gateway = Ipv4Addr::from_bits(address_of_pod(&kubectl, "asks").to_bits() & 0xffff_ff00 | 1);
    let uid = kubectl.ok(&["get", "pod", "asks", "-o", "jsonpath={.metadata.uid}"]);
    let network = cluster.scratch().join(format!("worker/node/pods/{uid}/ns/net"));
    wait::until("the name is known", wait::LATER, || {
        let found = ask(gateway, NAME).map_err(|error| error.to_string())?;
        wait::check(found == (0, 1), format!("{found:?}"))
    });

    let answers = Arc::new(AtomicUsize::new(0));
    let (asking, asked) = mpsc::channel::<()>();
    let resolver = {
        let (network, answers) = (network.clone(), Arc::clone(&answers));
        thread::spawn(move || {
            inside(network, move || {
                while asked.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    assert_eq!(resolve(gateway, NAME).expect("nobody refuses"), (0, 1));
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        })
    };
    for round in 0..5 {
        cluster.node("worker").kill();
        let (waiting, who) = mpsc::channel();
        inside(network.clone(), move || {
            let api = TcpStream::connect((Ipv4Addr::new(10, 96, 0, 1), 443))
                .expect("the way to the API server is open");
            let mut dns = TcpStream::connect((gateway, 53)).expect("DNS is there by TCP");
            let question = question(NAME);
            dns.write_all(&[&u16::try_from(question.len()).unwrap().to_be_bytes(), &question[..]].concat())
                .unwrap();
            waiting.send((api, dns)).unwrap();
        });
        let (mut api, mut dns) = who.recv().unwrap();
        cluster.node("worker").start();
        let mut answer = [0; 14];
        dns.set_read_timeout(Some(wait::SOON)).unwrap();
        dns.read_exact(&mut answer).expect("the next agent answers");
        assert_eq!(code_and_count(&answer[2..]), (0, 1));
        // What is no TLS the server ends, in one way or another.
        api.set_read_timeout(Some(wait::SOON)).unwrap();
        api.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        match api.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{round}: the server was asked")
            }
        }
        let before = answers.load(Ordering::Relaxed);
        wait::until("names are found", wait::SOON, || {
            wait::check(answers.load(Ordering::Relaxed) > before || resolver.is_finished(), "no answer")
        });
    }
    drop(asking);
    resolver.join().expect("every name was found, by every question");
    let kubectl_inside = kubectl.clone();
    inside(network, move || {
        let version = kubectl_inside.run(&["--server", "https://10.96.0.1", "get", "--raw", "/version"]);
        assert!(version.stdout.contains("gitVersion"), "{version:?}");
    });

    // Who holds the sockets may be killed, too, as long as an agent is there.
    let holder = || {
        let all = host::processes(cluster.scratch()).into_iter();
        let mut found = all.filter(|(_, line)| line.contains("__clawbernetes-socket-holder"));
        found.next().map(|(pid, _)| pid)
    };
    let first = holder().expect("somebody holds the sockets");
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    wait::until("another holds them", wait::SOON, || {
        wait::check(holder().is_some_and(|now| now != first), format!("{:?}", holder()))
    });
    assert_eq!(resolve(gateway, NAME).unwrap(), (0, 1));
    kubectl.ok(&["delete", "pod", "asks"]);
}

/// Tables of rules, and links, as the machine has them.
fn traces(bridge: &str) -> [String; 2] {
    [run("nft", &["list", "tables"]), run("ip", &["-brief", "link", "show", "dev", bridge])]
}

fn a_pod_calls_by_name_and_weights_decide_who_answers(kubectl: &Kubectl) {
    let said = wait::until("the caller has called", wait::LATER, || {
        let phase = kubectl.ok(&["get", "pod", "caller", "-o", "jsonpath={.status.phase}"]);
        let said = kubectl.run(&["logs", "caller"]).stdout;
        wait::check(phase == "Succeeded", format!("{phase}: {said}")).map(|()| said)
    });
    let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
    for line in said.lines() {
        let who = ["echo-light", "echo-heavy"].into_iter().find(|who| line.contains(who));
        *answers.entry(who.unwrap_or(line)).or_default() += 1;
    }
    // 25 and 75 of 100 are expected; half and half comes once in ten million times.
    let of = |who: &str| answers.get(who).copied().unwrap_or(0);
    assert!(of("echo-light") > 0 && of("echo-light") < of("echo-heavy") && answers.len() == 2, "{answers:?}");
}

fn the_host_calls(kubectl: &Kubectl, echo: Ipv4Addr) {
    wait::until("the address of a service leads to its pods", wait::SOON, || {
        let answer = get((echo, 80)).map_err(|error| error.to_string())?;
        wait::check(answer.contains("echo-"), answer)
    });
    let nobody = address(kubectl, "nobody");
    wait::until("a service without pods refuses", wait::SOON, || match get((nobody, 80)) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let own = own_address();
    wait::until("the port of the host leads to its pod", wait::SOON, || {
        get((own, 28080)).and_then(|answer| match answer.contains("at-the-host") {
            true => Ok(()),
            false => Err(std::io::Error::other(answer)),
        })
    });
    wait::until("a pod of the machine's network has its ports", wait::SOON, || {
        get((Ipv4Addr::LOCALHOST, 28081)).map_err(|error| error.to_string())
    });
    let node_port =
        kubectl.ok(&["get", "service", "from-outside", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    let node_port: u16 = node_port.parse().expect("a port of the nodes was given");
    wait::until("a port of the node leads to a service", wait::SOON, || {
        let answer = get((own, node_port)).map_err(|error| error.to_string())?;
        wait::check(answer.contains("echo-"), answer)
    });
    // The API server, by its service's address and certificate.
    wait::until("the API server is where its service is", wait::SOON, || {
        let version =
            kubectl.run(&["--server", "https://10.96.0.1", "get", "--raw", "/version"]).success()?;
        wait::check(version.contains("gitVersion"), version)
    });
}

/// From inside the network of `echo-heavy`.
fn pods_call(cluster: &Cluster, kubectl: &Kubectl, echo: Ipv4Addr) {
    let uid = kubectl.ok(&["get", "pod", "echo-heavy", "-o", "jsonpath={.metadata.uid}"]);
    let network = cluster.data_dir().join(format!("node/pods/{uid}/ns/net"));
    let sticky = address(kubectl, "sticky");
    let own = address_of_pod(kubectl, "echo-heavy");
    inside(network, move || {
        // One of both is itself: it must not see itself as the caller.
        for who in ["echo-light", "echo-heavy"] {
            wait::until(who, wait::LATER, || {
                let answer = get((echo, 80)).map_err(|error| error.to_string())?;
                wait::check(answer.contains(who), answer)
            });
        }
        let first =
            wait::until("sticky", wait::SOON, || get((sticky, 80)).map_err(|error| error.to_string()));
        for _ in 0..20 {
            assert_eq!(get((sticky, 80)).unwrap(), first, "the client comes back to the same");
        }
        wait::until("the API server is in reach", wait::SOON, || {
            TcpStream::connect((Ipv4Addr::new(10, 96, 0, 1), 443)).map_err(|error| error.to_string())
        });
        // The names of the headless service, from the resolver of the node.
        let gateway = Ipv4Addr::from_bits(own.to_bits() & 0xffff_ff00 | 1);
        let answers = |name: &str, expected: (u8, u16)| {
            wait::until(name, wait::SOON, || {
                let found = ask(gateway, name).map_err(|error| error.to_string())?;
                wait::check(found == expected, format!("{found:?}"))
            });
        };
        answers("each.default.svc.cluster.local", (0, 2));
        answers("nobody-knows.default.svc.cluster.local", (3, 0));
    });
}

/// Two pods print their variables; one of them wants no links.
fn pods_are_told_of_services(kubectl: &Kubectl, echo: Ipv4Addr) {
    let of = |name: &str, links: bool| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never", "enableServiceLinks": links,
                "containers": [{"name": "main", "image": "clawbernetes.io/toolbox", "args": ["env"]}],
            },
        });
        kubectl.ok_with(&["apply", "-f", "-"], &pod.to_string());
        wait::until(name, wait::LATER, || {
            let phase = kubectl.ok(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]);
            wait::check(phase == "Succeeded", phase)
        });
        kubectl.ok(&["logs", name])
    };
    let (told, alone) = (of("told", true), of("alone", false));
    for line in [
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_SERVICE_PORT=443",
        "KUBERNETES_SERVICE_PORT_HTTPS=443",
    ] {
        assert!(
            told.lines().any(|told| told == line) && alone.lines().any(|told| told == line),
            "{line}: {alone}"
        );
    }
    for line in [
        format!("ECHO_SERVICE_HOST={echo}"),
        "ECHO_SERVICE_PORT_HTTP=80".to_owned(),
        format!("ECHO_PORT_80_TCP=tcp://{echo}:80"),
    ] {
        assert!(told.lines().any(|told| told == line), "{line}: {told}");
    }
    assert!(!told.contains("EACH_") && !alone.contains("ECHO_"), "{told}\n{alone}");
}

fn what_becomes_unready_is_left_out(kubectl: &Kubectl, echo: Ipv4Addr) {
    let heavy = address_of_pod(kubectl, "echo-heavy");
    let request = get_path((heavy, 9090), "/control?healthy=false").unwrap();
    assert!(request.contains("healthy=false"), "{request}");
    wait::until("only the other one is asked", wait::LATER, || {
        let answers: Vec<String> = (0..20).filter_map(|_| get((echo, 80)).ok()).collect();
        let only = answers.len() == 20 && answers.iter().all(|answer| answer.contains("echo-light"));
        wait::check(only, format!("{answers:?}"))
    });
    wait::until("the older form of endpoints says so, too", wait::LATER, || {
        let path = "jsonpath={.subsets[*].notReadyAddresses[*].ip}";
        let said = kubectl.ok(&["get", "endpoints", "echo", "-o", path]);
        wait::check(said == heavy.to_string(), said)
    });
}

/// A client of UDP that asks and asks is led to whoever took over, although the kernel never had time to forget who was asked.
fn udp_goes_where_somebody_is(kubectl: &Kubectl) {
    let bird = |name: &str| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bird"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "clawbernetes.io/toolbox",
                "args": ["parrot", "--protocol", "udp"]}]}});
        kubectl.ok_with(&["apply", "-f", "-"], &pod.to_string());
        kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=600s"]);
    };
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "birds"},
        "spec": {"selector": {"app": "bird"}, "ports": [{"port": 7000, "protocol": "UDP"}]}});
    kubectl.ok_with(&["apply", "-f", "-"], &service.to_string());
    bird("bird-1");
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((address(kubectl, "birds"), 7000)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    says_back(&socket, "one");
    thread::scope(|scope| {
        // Gone with this scope, however that ends.
        let (_asking, asked) = mpsc::channel::<()>();
        let socket = &socket;
        scope.spawn(move || {
            while asked.recv_timeout(Duration::from_millis(50)) == Err(mpsc::RecvTimeoutError::Timeout) {
                // Refused while nobody is there.
                let _ = socket.send(b"and on");
            }
        });
        kubectl.ok(&["delete", "pod", "bird-1"]);
        bird("bird-2");
        says_back(socket, "two");
    });
    kubectl.ok(&["delete", "service/birds", "pod/bird-2"]);
}

fn says_back(socket: &UdpSocket, word: &str) {
    wait::until(&format!("\"{word}\" comes back"), wait::LATER, || {
        let _ = socket.send(word.as_bytes());
        let mut heard = [0; 64];
        let length = socket.recv(&mut heard).map_err(|error| error.to_string())?;
        let heard = String::from_utf8_lossy(&heard[..length]).into_owned();
        wait::check(heard == word, heard)
    });
}

fn address(kubectl: &Kubectl, service: &str) -> Ipv4Addr {
    kubectl.ok(&["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"]).parse().unwrap()
}

fn address_of_pod(kubectl: &Kubectl, pod: &str) -> Ipv4Addr {
    kubectl.ok(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"]).parse().unwrap()
}

/// The address by which this machine would call others.
fn own_address() -> Ipv4Addr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").expect("the machine has a route");
    match socket.local_addr().unwrap() {
        SocketAddr::V4(address) => *address.ip(),
        SocketAddr::V6(address) => panic!("{address}"),
    }
}

fn get(address: (Ipv4Addr, u16)) -> std::io::Result<String> {
    get_path(address, "/")
}

fn get_path(address: (Ipv4Addr, u16), path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.into(), wait::SOON)?;
    stream.set_read_timeout(Some(wait::SOON))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Code and number of answers to a question for addresses. A packet may be lost.
fn ask(server: Ipv4Addr, name: &str) -> io::Result<(u8, u16)> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // So that it is told when it is refused.
    socket.connect((server, 53))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send(&question(name))?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    Ok(code_and_count(&answer[..length]))
}

/// As resolvers do: what nobody answers is asked again.
fn resolve(server: Ipv4Addr, name: &str) -> io::Result<(u8, u16)> {
    let start = Instant::now();
    loop {
        match ask(server, name) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < wait::SOON => {}
            last => return last,
        }
    }
}

/// For the addresses of a name.
fn question(name: &str) -> Vec<u8> {
    let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn code_and_count(answer: &[u8]) -> (u8, u16) {
    (answer[3] & 15, u16::from_be_bytes([answer[6], answer[7]]))
}

/// Runs something in a network namespace, in a thread of its own.
fn inside(namespace: PathBuf, work: impl FnOnce() + Send + 'static) {
    let run = move || {
        let file = File::open(&namespace).unwrap_or_else(|error| panic!("{}: {error}", namespace.display()));
        setns(file, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
        work();
    };
    thread::spawn(run).join().expect("what was done in the pod's network went well");
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
