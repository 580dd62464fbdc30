"""Settings of ``--preset quick | paper``."""

from __future__ import annotations

from fewshot_bench import Preset, Task


def quick_steps(task: Task) -> int:
    """About the same time for every task: fewer steps where a task has more images to pass."""
    passes = task.way * (5 * task.shot + quick_query(task))  # 5 inner steps
    return max(100, min(2000, 300_000 // passes))


def quick_query(task: Task) -> int:
    """Query images per class in training."""
    return 15 if task.way <= 5 else 5


# For two CPU cores: first order, 4 tasks a step. Not the paper's schedule.
QUICK = (
    Preset(
        {
            "backbone": "conv4-strided",
            "first_order": True,
            "inner_lr": 0.1,
            "inner_steps": 5,
            "pooling": "flatten",
            "lr": 3e-3,
            "anneal": True,
            "task_batch": 4,
            "train_query": quick_query,
            # A natural image of 84x84 costs nine times a character.
            "steps": lambda task: quick_steps(task) // 8,
            "validate_every": 125,
            "validation_episodes": 50,
        }
    ),
    Preset(
        {"steps": quick_steps, "validate_every": 200, "validation_episodes": 100},
        family="characters",
    ),
)

# Finn et al. 2017, appendix A.1, and the authors' code. Their inner loss is summed over classes:
# alpha is way times what the paper prints. They test with as many queries as support images;
# ``--query 15`` gives the usual number.
PAPER = (
    Preset(  # Mini-ImageNet
        {
            "backbone": "conv4",
            "backbone_channels": 32,
            "backbone_statistics": "batch",
            "first_order": False,
            "pooling": "flatten",
            "inner_lr": lambda task: 0.01 * task.way,
            "inner_steps": 5,
            "test_steps": 10,
            "lr": 1e-3,
            "task_batch": 4,
            "train_query": 15,
            "query": lambda task: task.shot,
            "steps": 60_000,
            "validate_every": 1000,
            "validation_episodes": 600,
        },
        family="natural-images",
    ),
    Preset(  # Omniglot, 5-way
        {
            "backbone": "conv4-strided",
            "backbone_statistics": "batch",
            "first_order": False,
            "pooling": "mean",
            "inner_lr": 2.0,  # 0.4 x 5 classes, 0.1 x 20 classes
            "inner_steps": 1,
            "test_steps": 3,
            "lr": 1e-3,
            "task_batch": 32,
            "train_query": lambda task: task.shot,
            "query": lambda task: task.shot,
            "steps": 60_000,
            "validate_every": 1000,
            "validation_episodes": 600,
        },
        family="characters",
    ),
    Preset(
        {"inner_steps": 5, "test_steps": 5, "task_batch": 16},
        family="characters",
        way=range(20, 10_000),
    ),
    # Their code turns the characters of the test split too.
    Preset(family="characters", protocol="random-characters"),
)

PRESETS = {"quick": QUICK, "paper": PAPER}
