"""Relation networks."""

from fewshot_bench import hookimpl


@hookimpl
def register_methods() -> dict[str, str]:
    return {"relationnet": "fsb_relationnet.relationnet:RelationNet"}
