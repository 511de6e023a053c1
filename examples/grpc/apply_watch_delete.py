"""Applies a ConfigMap, watches it change and go, over gRPC. docs/grpc.md says how to run it."""

import base64
import json
import os

import grpc
import objects_pb2 as pb
import objects_pb2_grpc
import yaml

APPLY = "application/apply-patch+yaml"
SECONDS = 30  # The server keeps this deadline too.


def connect(kubeconfig):
    """The first cluster of a kubeconfig, as its first user; both have their certificates in the file."""
    with open(kubeconfig) as file:
        config = yaml.safe_load(file)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    credentials = grpc.ssl_channel_credentials(
        base64.b64decode(cluster["certificate-authority-data"]),
        base64.b64decode(user["client-key-data"]),
        base64.b64decode(user["client-certificate-data"]),
    )
    return grpc.secure_channel(cluster["server"].removeprefix("https://"), credentials)


def config_map(name=""):
    return pb.ResourceRef(version="v1", resource="configmaps", namespace="default", name=name)


def apply(objects, colour, manager="example", force=False):
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "paint"}, "data": {"colour": colour}}
    request = pb.PatchRequest(
        resource=config_map("paint"),
        patch_type=APPLY,
        patch=json.dumps(wanted).encode(),
        options=pb.WriteOptions(field_manager=manager),
        force=force,
    )
    return json.loads(objects.Patch(request, timeout=SECONDS).body)


def main():
    with connect(os.environ["KUBECONFIG"]) as channel:
        objects = objects_pb2_grpc.ObjectsStub(channel)

        made = apply(objects, "red")
        print("applied", made["data"]["colour"])

        # From the revision that we know: nothing after it is missed.
        revision = made["metadata"]["resourceVersion"]
        watch = objects.Watch(
            pb.WatchRequest(resource=config_map(), field_selector="metadata.name=paint", resource_version=revision),
            timeout=SECONDS,
        )

        # The field is ours: another manager is refused, and says `force` if it means it.
        try:
            apply(objects, "green", manager="other")
        except grpc.RpcError as error:
            trailers = dict(error.trailing_metadata())
            status = json.loads(trailers["clawbernetes-status-bin"])
            print("refused", error.code().name, status["details"]["causes"][0]["field"])
        apply(objects, "blue", manager="other", force=True)
        objects.Delete(pb.DeleteRequest(resource=config_map("paint")), timeout=SECONDS)

        for event in watch:
            kind = pb.WatchEvent.Type.Name(event.type)
            print("saw", kind, json.loads(event.body)["data"]["colour"])
            if kind == "DELETED":
                watch.cancel()
                break


if __name__ == "__main__":
    main()
