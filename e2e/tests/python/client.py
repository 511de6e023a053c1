"""What e2e/tests/python.rs runs: the client from PyPI against one of our servers."""

import threading

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"app": "py"}), data=data)


# Create, read, patch.
made = core.create_namespaced_config_map("default", config_map("one", a="1"))
assert made.metadata.uid and made.metadata.resource_version, made
assert core.read_namespaced_config_map("one", "default").data == {"a": "1"}
patched = core.patch_namespaced_config_map("one", "default", {"data": {"b": "2"}})
assert patched.data == {"a": "1", "b": "2"}, patched.data

# A stale update is refused with the words that clients match on.
made.data = {"a": "lost"}
try:
    core.replace_namespaced_config_map("one", "default", made)
    raise AssertionError("a stale replace was accepted")
except ApiException as error:
    assert error.status == 409 and "object has been modified" in error.body, error

# Pages of one list belong to one revision.
for number in range(25):
    core.create_namespaced_config_map("default", config_map(f"page-{number:02}", n=str(number)))
names, token, revisions = [], None, set()
while True:
    page = core.list_namespaced_config_map("default", label_selector="app=py", limit=10, _continue=token)
    names += [item.metadata.name for item in page.items]
    revisions.add(page.metadata.resource_version)
    token = page.metadata._continue
    if not token:
        break
assert names == ["one"] + [f"page-{number:02}" for number in range(25)], names
assert len(revisions) == 1, revisions

# A watch from that revision sees every later change, once and in order.
seen = []


def follow():
    stream = watch.Watch()
    for event in stream.stream(
        core.list_namespaced_config_map, "default", resource_version=revisions.copy().pop(), timeout_seconds=60
    ):
        seen.append((event["type"], event["object"].metadata.name))
        if seen[-1] == ("DELETED", "watched"):
            stream.stop()


follower = threading.Thread(target=follow)
follower.start()
core.create_namespaced_config_map("default", config_map("watched", n="0"))
for number in range(1, 6):
    core.patch_namespaced_config_map("watched", "default", {"data": {"n": str(number)}})
core.delete_namespaced_config_map("watched", "default")
follower.join(60)
wanted = [("ADDED", "watched")] + [("MODIFIED", "watched")] * 5 + [("DELETED", "watched")]
assert seen == wanted, seen

# A typed Deployment, its scale and its deletion.
template = client.V1PodTemplateSpec(
    metadata=client.V1ObjectMeta(labels={"app": "web"}),
    spec=client.V1PodSpec(containers=[client.V1Container(name="web", image="clawbernetes.io/toolbox:1")]),
)
apps.create_namespaced_deployment(
    "default",
    client.V1Deployment(
        metadata=client.V1ObjectMeta(name="web"),
        spec=client.V1DeploymentSpec(
            replicas=0, selector=client.V1LabelSelector(match_labels={"app": "web"}), template=template
        ),
    ),
)
scale = apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 2}})
assert scale.spec.replicas == 2, scale
assert apps.read_namespaced_deployment("web", "default").spec.replicas == 2
apps.delete_namespaced_deployment("web", "default")

# What does not exist says so as a Status.
try:
    core.read_namespaced_config_map("nobody", "default")
    raise AssertionError("a missing object was read")
except ApiException as error:
    assert error.status == 404 and '"reason":"NotFound"' in error.body.replace(" ", ""), error

core.delete_collection_namespaced_config_map("default", label_selector="app=py")
assert not core.list_namespaced_config_map("default", label_selector="app=py").items
print("all of it works")
