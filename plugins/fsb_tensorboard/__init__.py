"""TensorBoard as an observer: ``fsb run maml --with tensorboard``."""

from fewshot_bench import hookimpl


@hookimpl
def register_observers() -> dict[str, str]:
    return {"tensorboard": "fsb_tensorboard.board:TensorBoard"}
