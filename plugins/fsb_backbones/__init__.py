"""Backbones of the few-shot literature."""

from fewshot_bench import hookimpl


@hookimpl
def register_backbones() -> dict[str, str]:
    return {
        "conv4": "fsb_backbones.conv:conv4",
        "conv4-strided": "fsb_backbones.conv:conv4_strided",
        "conv4-relation": "fsb_backbones.conv:conv4_relation",
        "resnet12": "fsb_backbones.resnet:resnet12",
        "resnet18": "fsb_backbones.resnet:resnet18",
    }
