"""What e2e/tests/python/operator.rs runs: an operator that fills shelves with books, written as users of kopf write it.

A book is a ConfigMap that belongs to its shelf. The operator keeps nothing in memory, so it may be killed at any line.
"""

import os
import time

import kopf
from kubernetes import client, config
from kubernetes.client.rest import ApiException

config.load_kube_config()
core, custom = client.CoreV1Api(), client.CustomObjectsApi()
SHELVES = ("library.example.com", "v1", "shelves")
LABEL = "library.example.com/shelf"


@kopf.on.startup()
def configure(settings, **_):
    settings.watching.initial_streaming = os.environ["LISTS"] == "streamed"
    settings.watching.chunk_size = 2
    settings.watching.server_timeout = 5
    settings.persistence.finalizer = "library.example.com/operator"
    # A server that is away is asked again soon, and for as long as a slow machine takes to start it.
    settings.networking.error_backoffs = [0.5] * 240


def tolerate(code, call, *args):
    """Calls, and takes the one refusal that means that it was done before."""
    try:
        return call(*args)
    except ApiException as error:
        if error.status != code:
            raise
        return None


def config_map(name, labels=None, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)


def add_book(namespace, shelf, number):
    book = config_map(f"{shelf['metadata']['name']}-book-{number}", {LABEL: shelf["metadata"]["name"]}, n=str(number))
    kopf.adopt(book, owner=shelf)
    tolerate(409, core.create_namespaced_config_map, namespace, book)


def books_of(namespace, shelf):
    found = core.list_namespaced_config_map(namespace, label_selector=f"{LABEL}={shelf}").items
    return {int(book.data["n"]): book.metadata.name for book in found}


@kopf.on.create(*SHELVES)
def open_shelf(namespace, name, spec, retry, **_):
    """Counts how often it got this far: kopf keeps in the shelf's annotations that it is done."""
    if spec.get("sticky") and retry == 0:
        raise kopf.TemporaryError("it sticks", delay=0.2)
    ledger = tolerate(404, core.read_namespaced_config_map, f"{name}-ledger", namespace)
    if ledger is None:
        core.create_namespaced_config_map(namespace, config_map(f"{name}-ledger", opened="1", tries=str(retry + 1)))
    else:
        opened = str(int(ledger.data["opened"]) + 1)
        core.patch_namespaced_config_map(f"{name}-ledger", namespace, {"data": {"opened": opened}})


@kopf.on.create(*SHELVES)
def fill(namespace, spec, body, **_):
    """One half, then the gate, then the other half. What it returns goes into the status under its name."""
    half = spec["books"] // 2
    for number in range(half):
        add_book(namespace, body, number)
    while "gate" in spec and tolerate(404, core.read_namespaced_config_map, spec["gate"], namespace) is None:
        time.sleep(0.1)
    for number in range(half, spec["books"]):
        add_book(namespace, body, number)
    kopf.info(body, reason="Filled", message=f"{spec['books']} books")
    return {"books": spec["books"]}


@kopf.on.update(*SHELVES, field="spec.books")
def refill(namespace, name, body, new, patch, **_):
    held = books_of(namespace, name)
    for number in set(range(new)) - held.keys():
        add_book(namespace, body, number)
    for number in held.keys() - set(range(new)):
        tolerate(404, core.delete_namespaced_config_map, held[number], namespace)
    patch.status["refilled"] = new


@kopf.on.resume(*SHELVES)
def resume(status, patch, **_):
    patch.status["resumed"] = status.get("resumed", 0) + 1


@kopf.on.delete(*SHELVES)
def close(namespace, name, spec, **_):
    farewell = config_map(f"{name}-farewell", books=str(spec["books"]))
    tolerate(409, core.create_namespaced_config_map, namespace, farewell)


@kopf.daemon(*SHELVES, cancellation_polling=0.5)
def keep_dusted(namespace, name, stopped, **_):
    """Dusts without end. A server that is away is dusted later."""
    while not stopped:
        try:
            shelf = custom.get_namespaced_custom_object(*SHELVES[:2], namespace, SHELVES[2], name)
            dusted = {"status": {"dusted": shelf.get("status", {}).get("dusted", 0) + 1}}
            custom.patch_namespaced_custom_object_status(*SHELVES[:2], namespace, SHELVES[2], name, dusted)
        except Exception:  # noqa: BLE001, whatever the client makes of a lost connection
            pass
        stopped.wait(0.3)


@kopf.timer(*SHELVES, interval=0.5)
def tick(status, patch, **_):
    patch.status["ticks"] = status.get("ticks", 0) + 1


@kopf.on.event("", "v1", "configmaps", labels={LABEL: kopf.PRESENT})
def look_after(type, namespace, labels, annotations, body, patch, **_):
    """Stamps every book, and puts one back that somebody took away."""
    if type != "DELETED":
        if "stamped" not in annotations:
            patch.metadata.annotations["stamped"] = "yes"
        return
    shelf = tolerate(404, custom.get_namespaced_custom_object, *SHELVES[:2], namespace, SHELVES[2], labels[LABEL])
    if shelf and not shelf["metadata"].get("deletionTimestamp") and int(body["data"]["n"]) < shelf["spec"]["books"]:
        add_book(namespace, shelf, int(body["data"]["n"]))
