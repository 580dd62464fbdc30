"""Prototypical networks."""

from fewshot_bench import hookimpl


@hookimpl
def register_methods() -> dict[str, str]:
    return {"protonet": "fsb_protonet.protonet:ProtoNet"}
