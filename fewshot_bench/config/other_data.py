"""A trained run on other data: which options of the data set stay as they were in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewshot_bench.config.options import dataset_options, load, split_dataset
from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.registry import Registry


def kept_options(
    registry: Registry, before: str, options: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The data options that a run keeps when some settings of it change.

    The same kind of data set (the same registered name, whatever its path) keeps them all: with
    another split, or another seed of it, classes that trained would be tested. Another kind keeps
    those that decide what an image looks like to the network (``Dataset.image_options``).

    Arguments:
        registry: what is installed.
        before: the run's data set, with its path.
        options: the run's options of it.
        changes: what was typed now, ``dataset`` and data options among it.

    Raises:
        ConfigError: images would look otherwise than those that the network was trained on.
    """
    after = changes.get("dataset", before)
    own, other = (split_dataset(registry, name)[0] for name in (before, after))
    of_images = set(load(registry, "datasets", own).image_options)
    for name in of_images & options.keys() & changes.keys():
        if changes[name] != options[name]:
            raise ConfigError(
                f"--{name.replace('_', '-')} {changes[name]}: the run was trained on images of "
                f"{options[name]}; leave it out."
            )
    if _identity(registry, own) == _identity(registry, other):
        return dict(options)
    of_images &= set(load(registry, "datasets", other).image_options)
    kept = {}
    for option in dataset_options(registry, after):
        if option.name in of_images & options.keys():
            try:
                kept[option.name] = option.check(options[option.name])
            except ConfigError as error:
                raise ConfigError(f"--dataset {after} cannot give the run's images: {error}") from (
                    error
                )
    return kept


def _identity(registry: Registry, name: str) -> tuple[str, str]:
    item = registry.resolve("datasets", name)
    return item.distribution, item.name
