"""The controller of sweeps in Python with kopf: the same kind and the same behaviour as in Rust (../controller).

    pip install kopf kubernetes
    kubectl apply -f examples/controller/definition.yaml
    kopf run --all-namespaces examples/controller-kopf/sweep_operator.py

It looks at each sweep once a second, and at nothing but what the server says: it may be killed at any line. kopf does not
elect a leader (it has "peering" for that), so run one of it.
"""

import datetime
import hashlib

import kopf
from kubernetes import client, config
from kubernetes.client.rest import ApiException

SWEEPS = GROUP, VERSION, PLURAL = "tuning.example.com", "v1", "sweeps"
LABEL = "tuning.example.com/sweep"


@kopf.on.startup()
def configure(settings, **_):
    config.load_config()
    settings.persistence.finalizer = f"{GROUP}/operator"
    # A sweep under deletion waits for its timer to end: look at that soon.
    settings.background.cancellation_polling = 1
    # A server that is away is asked again soon, and for as long as it takes.
    settings.networking.error_backoffs = [1] * 600


@kopf.timer(*SWEEPS, interval=1, backoff=1)
def keep(namespace, name, **_):
    """Makes one sweep true. What fails is tried again: kopf calls it once a second, and for one sweep never twice at a time."""
    reconcile(namespace, name)


def reconcile(namespace, name):
    core, custom = client.CoreV1Api(), client.CustomObjectsApi()
    sweep = custom.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
    if "deletionTimestamp" in sweep["metadata"]:
        return  # Its pods go with it: they name it as their owner.
    values = {pod_name(name, value): value for value in sweep["spec"]["values"]}
    pods = pods_of(core, sweep)
    wanted = {pod.metadata.name: pod for pod in pods if pod.metadata.name in values}

    for pod in pods:
        if pod.metadata.name not in values and pod.metadata.deletion_timestamp is None:
            tolerate(404, core.delete_namespaced_pod, pod.metadata.name, namespace)
    active = [pod for pod in pods if phase(pod) not in ("Succeeded", "Failed")]
    room = max(0, sweep["spec"].get("parallelism", 1) - len(active))
    for missing in sorted(values.keys() - wanted.keys())[:room]:
        if tolerate(409, core.create_namespaced_pod, namespace, new_pod(sweep, missing, values[missing])):
            kopf.info(sweep, reason="Started", message=f"{missing} runs with {values[missing]}")

    status = status_of(sweep, len(values), [phase(pod) for pod in wanted.values()], len(active))
    if status != sweep.get("status"):
        custom.patch_namespaced_custom_object_status(GROUP, VERSION, namespace, PLURAL, name, {"status": status})
    if is_over(sweep, status["conditions"][0]):
        tolerate(404, custom.delete_namespaced_custom_object, GROUP, VERSION, namespace, PLURAL, name)


def pods_of(core, sweep):
    selector = f"{LABEL}={sweep['metadata']['name']}"
    pods = core.list_namespaced_pod(sweep["metadata"]["namespace"], label_selector=selector).items
    owned = lambda pod: any(it.uid == sweep["metadata"]["uid"] for it in pod.metadata.owner_references or [])
    return [pod for pod in pods if owned(pod)]


def new_pod(sweep, name, value):
    spec, labels = sweep["spec"], {LABEL: sweep["metadata"]["name"]}
    env = [client.V1EnvVar(name="VALUE", value=value)]
    container = client.V1Container(name="main", image=spec["image"], args=spec.get("args"), env=env)
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(name=name, labels=labels),
        spec=client.V1PodSpec(containers=[container], restart_policy="Never"),
    )
    kopf.append_owner_reference(pod, sweep)
    return pod


def status_of(sweep, total, phases, active):
    succeeded, failed = phases.count("Succeeded"), phases.count("Failed")
    left = total - succeeded - failed
    if left:
        now = {"status": "False", "reason": "Running", "message": f"{left} to go"}
    elif failed:
        now = {"status": "True", "reason": "SomeFailed", "message": f"{failed} failed"}
    else:
        now = {"status": "True", "reason": "AllSucceeded", "message": ""}
    old = next(iter(sweep.get("status", {}).get("conditions", [])), {})
    since = old.get("lastTransitionTime")
    if old.get("status") != now["status"]:
        since = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    generation = sweep["metadata"]["generation"]
    condition = {"type": "Complete", "observedGeneration": generation, "lastTransitionTime": since, **now}
    return {"active": active, "succeeded": succeeded, "failed": failed, "conditions": [condition]}


def is_over(sweep, complete):
    kept = sweep["spec"].get("ttlSecondsAfterFinished")
    if kept is None or complete["status"] != "True":
        return False
    since = datetime.datetime.fromisoformat(complete["lastTransitionTime"].replace("Z", "+00:00"))
    return (datetime.datetime.now(datetime.timezone.utc) - since).total_seconds() >= kept


def pod_name(sweep_name, value):
    """Follows from the value, so that no value is ever run by two pods."""
    return f"{sweep_name}-{hashlib.sha256(value.encode()).hexdigest()[:10]}"


def phase(pod):
    return pod.status.phase or "Pending"


def tolerate(code, call, *args):
    """Calls, and takes the one refusal that means that it was done before. Whether it was done now."""
    try:
        call(*args)
    except ApiException as error:
        if error.status != code:
            raise
        return False
    return True
