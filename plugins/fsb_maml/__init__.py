"""Model-agnostic meta-learning."""

from fewshot_bench import hookimpl


@hookimpl
def register_methods() -> dict[str, str]:
    return {"maml": "fsb_maml.maml:MAML"}
