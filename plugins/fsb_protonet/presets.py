"""Settings of ``--preset quick | paper``."""

from __future__ import annotations

from fewshot_bench import Preset

# Minutes on two CPU cores. Not the paper's schedule.
QUICK = (
    Preset(
        {
            "backbone": "conv4",
            "train_query": 5,
            "task_batch": 2,  # one for each core
            # A natural image of 84x84 costs ten times a character, and there may be few classes
            # to train on.
            "train_way": lambda task: task.way,
            "steps": 300,
            "halve_every": 100,
            "validate_every": 100,
            "validation_episodes": 50,
        }
    ),
    Preset(
        {
            "train_way": 20,
            "steps": 800,
            "halve_every": 250,
            "validate_every": 200,
            "validation_episodes": 200,
        },
        family="characters",
    ),
)

# Snell et al. 2017, sections 3.1 (Omniglot) and 3.2 (Mini-ImageNet).
COMMON = {
    "backbone": "conv4",
    "backbone_statistics": "running",
    "task_batch": 1,
    "steps": 20_000,
    "lr": 1e-3,
    "halve_every": 2000,
    "validate_every": 1000,
    "validation_episodes": 600,
}
PAPER = (
    Preset(COMMON | {"train_way": 20, "train_query": 15, "episodes": 600}, family="natural-images"),
    Preset({"train_way": 30}, family="natural-images", shot=(1,)),
    Preset(COMMON | {"train_way": 60, "train_query": 5, "episodes": 1000}, family="characters"),
    Preset(family="characters", protocol="vinyals"),
)

PRESETS = {"quick": QUICK, "paper": PAPER}
