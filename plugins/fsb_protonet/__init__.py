"""Prototypical networks, supervised and semi-supervised."""

from fewshot_bench import hookimpl


@hookimpl
def register_methods() -> dict[str, str]:
    return {
        "protonet": "fsb_protonet.protonet:ProtoNet",
        "soft-kmeans": "fsb_protonet.soft_kmeans:SoftKMeans",
    }
