"""Mini-ImageNet, from the user's own copy."""

from fewshot_bench import hookimpl


@hookimpl
def register_datasets() -> dict[str, str]:
    return {"mini-imagenet": "fsb_mini_imagenet.mini_imagenet:MiniImageNet"}
