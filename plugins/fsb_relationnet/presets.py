"""Settings of ``--preset quick | paper``."""

from __future__ import annotations

from fewshot_bench import Preset

FEW, MANY = range(2, 20), range(20, 10_000)  # way

# For two CPU cores. Not the paper's schedule.
QUICK = (
    Preset(
        {
            "backbone": "conv4-relation",
            "backbone_statistics": "running",
            "train_query": 5,
            "task_batch": 2,  # one for each core
            "clip": None,
            # A natural image of 84x84 costs ten times a character.
            "steps": 200,
            "halve_every": 70,
            "validate_every": 100,
            "validation_episodes": 50,
        }
    ),
    Preset(
        {"steps": 800, "halve_every": 250, "validate_every": 200, "validation_episodes": 100},
        family="characters",
    ),
)

# Sung et al. 2018, section 4, and the authors' code (clip, batch statistics, steps, queries). The
# queries that are normalized together at test are those of the code: K a class on Omniglot; on
# Mini-ImageNet it classifies the 15 of an episode in batches of 3 (1-shot) or 5 (5-shot) a class,
# which are episodes of their own here.
COMMON = {
    "backbone": "conv4-relation",
    "backbone_statistics": "batch",
    "task_batch": 1,
    "halve_every": 100_000,
    "validate_every": 5000,
    "validation_episodes": 600,
}
PAPER = (
    Preset(
        COMMON | {"train_query": 10, "query": 5, "steps": 500_000, "episodes": 600},
        family="natural-images",
    ),
    Preset({"train_query": 15, "query": 3}, family="natural-images", shot=(1,)),
    Preset(
        COMMON | {"query": lambda task: task.shot, "steps": 1_000_000, "episodes": 1000},
        family="characters",
    ),
    Preset({"train_query": 15}, family="characters", way=FEW),
    Preset({"train_query": 19}, family="characters", way=FEW, shot=(1,)),
    Preset({"train_query": 5}, family="characters", way=MANY),
    Preset({"train_query": 10}, family="characters", way=MANY, shot=(1,)),
    # 1200 random characters train, and the others are tested, all of them turned too.
    Preset(family="characters", protocol="random-characters"),
)

PRESETS = {"quick": QUICK, "paper": PAPER}
