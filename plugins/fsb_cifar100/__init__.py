"""CIFAR-100 for few-shot learning: CIFAR-FS and FC100."""

from fewshot_bench import hookimpl


@hookimpl
def register_datasets() -> dict[str, str]:
    return {
        "cifar-fs": "fsb_cifar100.cifar100:CifarFS",
        "fc100": "fsb_cifar100.cifar100:FC100",
    }
