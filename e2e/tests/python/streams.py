"""What e2e/tests/python runs: talks with processes and connections to ports, by the client from PyPI."""

import time

from kubernetes import client, config
from kubernetes.stream import portforward, stream

config.load_kube_config()
core = client.CoreV1Api()

container = client.V1Container(name="main", image="clawbernetes.io/toolbox:1", args=["parrot"])
core.create_namespaced_pod(
    "default",
    client.V1Pod(
        metadata=client.V1ObjectMeta(name="parrot"),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=1),
    ),
)
deadline = time.monotonic() + 180
while core.read_namespaced_pod("parrot", "default").status.phase != "Running":
    assert time.monotonic() < deadline, "the pod does not run"
    time.sleep(0.1)


def execute(*command, **more):
    asked = {"stderr": True, "stdout": True, "stdin": False, "tty": False, **more}
    return stream(core.connect_get_namespaced_pod_exec, "parrot", "default", command=list(command), **asked)


assert execute("echo", "here") == "here\n"

# Both outputs apart, and the exit code.
talk = execute("sh", "-c", "echo out; echo err >&2; exit 3", _preload_content=False)
talk.run_forever(timeout=60)
assert (talk.read_stdout(), talk.read_stderr(), talk.returncode) == ("out\n", "err\n", 3)

# Something to read, by a protocol that cannot say that there is nothing more.
talk = execute("cat", stdin=True, _preload_content=False)
talk.write_stdin("there and back\n")
assert talk.readline_stdout(timeout=60) == "there and back"
talk.close()

# A port, as a socket.
ports = portforward(core.connect_get_namespaced_pod_portforward, "parrot", "default", ports="7000")
socket = ports.socket(7000)
socket.settimeout(60)
socket.sendall(b"polly")
heard = b""
while len(heard) < 5:
    heard += socket.recv(5 - len(heard))
assert heard == b"polly", heard
socket.close()
assert ports.error(7000) is None, ports.error(7000)

print("all of it works")
