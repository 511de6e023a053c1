"""What e2e/tests/python/informer.rs runs: it keeps a picture of a collection, as informers do.

It lists, watches from the list's revision on, goes on from the last revision after every cut, and lists again only when
that revision is gone. It says what it does on standard output, one JSON a line, and fails at the first broken promise.
The client's own informer follows beside it.
"""

import json
import logging
import time

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.informer import ERROR, SharedInformer
from urllib3.exceptions import HTTPError

GONE = 410
CHOICE = {"namespace": "default", "label_selector": "story=informer"}

config.load_kube_config()
maps = client.CoreV1Api().list_namespaced_config_map


def say(**what):
    print(json.dumps(what), flush=True)


class Picture:
    """Name → revision of everything there is, as of the revision `at`."""

    def __init__(self):
        self.held, self.at = {}, 0

    def listed(self, pages):
        revisions = {int(page.metadata.resource_version) for page in pages}
        assert len(revisions) == 1, f"pages of one list belong to one revision: {revisions}"
        revision = revisions.pop()
        assert revision >= self.at, f"a list of {revision} after {self.at} was seen"
        self.held = {i.metadata.name: int(i.metadata.resource_version) for page in pages for i in page.items}
        assert all(held <= revision for held in self.held.values()), f"newer than the list: {self.held}, {revision}"
        self.at = revision
        say(listed=revision)

    def changed(self, type, name, revision):
        what = f"{type} {name} at {revision}"
        assert revision > self.at, f"{what} came after {self.at}"
        assert (name in self.held) == (type != "ADDED"), f"{what}, but held is {self.held.get(name)}"
        if type == "DELETED":
            del self.held[name]
        else:
            self.held[name] = revision
        self.at = revision
        say(seen=[type, name, revision])

    def marked(self, revision):
        assert revision >= self.at, f"a bookmark of {revision} after {self.at}"
        self.at = revision


def pages():
    token, found = None, []
    while True:
        found.append(maps(**CHOICE, limit=20, _continue=token))
        token = found[-1].metadata._continue
        if not token:
            return found


def follow(picture):
    """Until the watch ends or breaks, or the end is seen."""
    events = watch.Watch().stream(
        maps, **CHOICE, resource_version=str(picture.at), allow_watch_bookmarks=True, timeout_seconds=3
    )
    for event in events:
        metadata = event["raw_object"]["metadata"]
        revision = int(metadata["resourceVersion"])
        if event["type"] == "BOOKMARK":
            picture.marked(revision)
        else:
            picture.changed(event["type"], metadata["name"], revision)
        if "end" in picture.held:
            return


def keep(picture):
    """Until the end is seen."""
    is_listed = False
    while "end" not in picture.held:
        try:
            if not is_listed:
                picture.listed(pages())
                is_listed = True
            follow(picture)
            say(cut="in order")
        except HTTPError as error:
            say(cut=repr(error)[:200])
            time.sleep(0.1)
        except ApiException as error:
            if error.status != GONE:
                raise
            say(cut="gone")
            is_listed = False


# It logs a trace of every lost connection, and asks again at once.
logging.disable()
shared = SharedInformer(maps, **CHOICE)
shared.add_event_handler(ERROR, lambda _: time.sleep(0.1))
shared.start()
picture = Picture()
keep(picture)
deadline = time.monotonic() + 60
while shared.cache.get_by_key("default/end") is None:
    assert time.monotonic() < deadline, "the client's own informer has stopped"
    time.sleep(0.1)
cached = {held.metadata.name: int(held.metadata.resource_version) for held in shared.cache.list()}
say(picture=picture.held, cached=cached)
