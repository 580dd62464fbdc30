"""Mini-ImageNet, from the user's own copy."""

from fewshot_bench.hooks import hookimpl
from fewshot_bench.hooks.specs import Names


@hookimpl
def register_datasets() -> Names:
    return {"mini-imagenet": "fsb_mini_imagenet.mini_imagenet:MiniImageNet"}
