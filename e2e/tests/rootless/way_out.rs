//! What pods reach outside of their machine, by the program that carries their packets.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    thread,
};

use claw_e2e::{
    Kubectl,
    need::{self, Need},
    netns,
    user::User,
    wait,
};

use crate::{NODE, apply, can_run, cluster, delete_all, of_ours};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: calls}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "clawbernetes.io/toolbox:1", args: [sleep, "1000000"]}]
"#;

/// The machine, as seen from pods: its loopback, if that were theirs to call. Source: slirp4netns(1).
const LOOPBACK_FROM_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// Answers whoever calls, until the story is over; the port.
fn serve(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut caller in listener.incoming().flatten() {
            let _ = caller.read(&mut [0; 1_024]);
            let _ = write!(
                caller,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{address}",
                address.to_string().len()
            );
        }
    });
    port
}

#[test]
fn pods_of_an_ordinary_user_reach_what_the_user_reaches_and_not_the_machine_itself() {
    let story = "pods_of_an_ordinary_user_reach_what_the_user_reaches_and_not_the_machine_itself";
    if !can_run(story) || !need::all(story, &[Need::WayOut, Need::Networks]) {
        return;
    }
    netns::move_out();
    let outside = serve(netns::ADDRESS);
    let own = serve(Ipv4Addr::LOCALHOST);
    let (mut cluster, _) = cluster(User::with_tun);
    let kubectl = cluster.kubectl();
    apply(&kubectl, POD, &["calls"]);

    calls(&kubectl, outside);
    let carrier = of_ours(&cluster, "slirp4netns");
    let url = format!("http://{LOOPBACK_FROM_INSIDE}:{own}/");
    let said = kubectl.run(&["exec", "calls", "--", "/toolbox", "get", &url]);
    assert!(
        said.code != 0 && !said.stdout.contains("127.0.0.1"),
        "the machine's loopback is its own: {said:?}"
    );

    cluster.node(NODE).kill();
    cluster.node(NODE).start();
    calls(&kubectl, outside);
    assert_eq!(of_ours(&cluster, "slirp4netns"), carrier, "the way out outlives the agent");
    delete_all(&cluster, &kubectl);
}

fn calls(kubectl: &Kubectl, port: u16) {
    let url = format!("http://{}:{port}/", netns::ADDRESS);
    let said = wait::until("what is outside answers", wait::LATER, || {
        kubectl.run(&["exec", "calls", "--", "/toolbox", "get", &url]).success()
    });
    assert!(said.contains(&netns::ADDRESS.to_string()), "{said}");
}
