"""CIFAR-100 for few-shot learning: CIFAR-FS and FC100."""

from fewshot_bench.hooks import hookimpl
from fewshot_bench.hooks.specs import Names


@hookimpl
def register_datasets() -> Names:
    return {
        "cifar-fs": "fsb_cifar100.cifar100:CifarFS",
        "fc100": "fsb_cifar100.cifar100:FC100",
    }
