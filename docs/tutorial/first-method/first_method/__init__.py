"""What the distribution registers. Nothing heavy is imported here."""

from fewshot_bench import hookimpl


@hookimpl
def register_methods() -> dict[str, str]:
    return {"first-method": "first_method.method:FirstMethod"}
