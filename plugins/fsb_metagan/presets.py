"""Settings of ``--preset quick | tutorial | paper | paper-relationnet`` and of those like them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewshot_bench.episode import Task

PRESETS = (
    "quick", "tutorial", "tutorial-small", "tutorial-mended", "paper", "paper-relationnet",
)  # fmt: skip

# 1200 random characters train, and the others are tested, all of them turned too, as MAML had it.
PAPERS_DATA: dict[str, Any] = {"split": "random", "test_rotations": True}

# For two CPU cores; not the paper's schedule. The base is maml's own quick preset. Every term of
# the game is active; those of the inner loop weigh less than in the paper.
QUICK: dict[str, Any] = {
    "backbone": "conv4-strided",
    "base": "maml",
    "base_first_order": True,
    "base_inner_lr": 0.1,
    "base_inner_steps": 5,
    "base_pooling": "flatten",
    "generator": "small",
    "encoder": "small",
    "fakes_per_class": 1,
    "update": "joint",
    "through_fakes": False,
    "inner_real_weight": 0.1,
    "inner_fake_weight": 0.1,
    "lr": 3e-3,
    "generator_lr": 3e-3,
    "anneal": True,
    "task_batch": 4,
    "validate_every": 200,
    "validation_episodes": 100,
}

# The MetaGAN tutorial in TensorFlow that this project started from. It turns each class by one
# random quarter turn, which is what drawing among turned classes does, two turns of one character
# never sharing a task. Its test is 131 disjoint tasks, of characters in the order in which they are
# complete when TensorFlow Datasets delivers their images.
TUTORIAL: dict[str, Any] = {
    "split": "official",
    "validation": "none",
    "resize": "bilinear",
    "image_size": 28,
    "pixels": "signed",
    "ink": "black",  # the files' polarity: paper is +1 and zero padding gray
    "train_rotations": True,
    "test_rotations": False,
    "sampling": "in-order",
    "order": "hashed",
    "backbone": "conv4-strided",
    "backbone_framework": "keras",
    "backbone_statistics": "batch",
    "base": "maml",
    "base_first_order": True,
    "base_inner_lr": 0.1,
    "base_inner_steps": 5,
    "base_pooling": "flatten",
    "head": "logsumexp",
    "generator_loss": "feature_matching",
    "generator": "tutorial",
    "encoder": "tutorial",
    "z_dim": 100,
    "dropout": 0.0,
    "update": "joint",
    "through_fakes": False,
    "lr": 1e-3,
    "generator_lr": 1e-3,
    "betas": (0.5, 0.9),
    "eps": 1e-7,
    "halve_every": 0,
    "reduction": "sum",
    "task_batch": 32,
    "steps": 600,
    "validate_every": 0,
}

# The same with networks that a CPU can bear: an eighth of the generator's and encoder's channels.
TUTORIAL_SMALL = TUTORIAL | {"generator": "tutorial-small", "encoder": "tutorial-small"}

# What it takes to reach 98 % in as many steps of as many tasks (benchmarks/results): no real and
# fake terms in the discriminator's loss, prototypes in place of an inner loop, random test tasks.
TUTORIAL_MENDED = {
    name: value for name, value in TUTORIAL_SMALL.items() if not name.startswith("base_")
} | {
    "real_weight": 0.0,
    "fake_weight": 0.0,
    "generator_weight": 0.0,
    "fakes_per_class": 1,  # nothing learns from them
    "base": "protonet",
    "sampling": "closed",
}

TUTORIALS = {
    "tutorial": TUTORIAL,
    "tutorial-small": TUTORIAL_SMALL,
    "tutorial-mended": TUTORIAL_MENDED,
}


def preset(name: str, dataset: str, task: Task) -> Mapping[str, Any] | None:
    """The settings of a preset for a data set and task, or None if there is none."""
    characters = dataset == "omniglot" and task.way in (5, 20)
    pictures = dataset not in ("omniglot", "glyphs")
    if name == "quick":
        # Steps cost more with more classes; the time is meant to stay about the same.
        steps = 1000 if task.way <= 5 else max(100, 5000 // task.way)
        if not pictures:
            return QUICK | {"steps": steps}
        # An 84x84 picture costs nine times a character.
        fewer = {"validate_every": 50, "validation_episodes": 50}
        return QUICK | fewer | {"steps": max(100, steps // 9)}
    if name in TUTORIALS and dataset == "omniglot" and (task.way, task.shot) == (5, 5):
        return TUTORIALS[name]
    if name == "paper" and (characters or pictures):
        return _paper(task) if characters else _paper_pictures(task)
    if name == "paper-relationnet" and (characters or pictures):
        return _paper_relationnet(task, characters)
    return None


def _paper(task: Task) -> Mapping[str, Any]:
    """Zhang et al. 2018, Omniglot, MetaGAN + MAML; the signature's defaults are the paper's.

    The paper states neither its iterations nor alpha nor the inner steps: those are MAML's (Finn
    et al. 2017), whose inner loss is summed over classes, so that alpha is ``way`` times its.
    """
    twenty = task.way == 20
    return PAPERS_DATA | {
        "backbone": "conv4-strided",
        "backbone_statistics": "batch",
        "base": "maml",
        "base_first_order": False,
        "base_inner_lr": 2.0,
        "base_inner_steps": 5 if twenty else 1,
        "base_test_steps": 5 if twenty else 3,
        "base_pooling": "mean",
        "train_query": task.shot,  # K real images a class, and as many fakes
        "query": task.shot,
        "task_batch": 8 if twenty else 16,
        "steps": 60_000,
        "validate_every": 1000,
        "validation_episodes": 600,
    }


def _paper_pictures(task: Task) -> Mapping[str, Any]:
    """Zhang et al. 2018, Mini-ImageNet, MetaGAN + MAML of one step, first order.

    The paper states neither its iterations nor alpha, and halves its rate on Omniglot alone; the
    rest is what MAML has there (Finn et al. 2017).
    """
    return {
        "backbone": "conv4",
        "backbone_channels": 32,
        "backbone_statistics": "batch",
        "base": "maml",
        "base_first_order": True,
        "base_inner_lr": 0.01 * task.way,
        "base_inner_steps": 1,
        "base_pooling": "flatten",
        "halve_every": 0,
        "train_query": 15,
        "query": task.shot,
        "task_batch": 4,
        "steps": 60_000,
        "validate_every": 1000,
        "validation_episodes": 600,
    }


def _paper_relationnet(task: Task, characters: bool) -> Mapping[str, Any]:
    """Zhang et al. 2018, MetaGAN + Relation Network: one task a step.

    Queries a class, in training and at test, are those of Sung et al. 2018 and their code (see
    ``fsb_relationnet``), as is the network; the paper states no number of iterations. Omniglot's
    rate is halved every 10,000: 100,000 end at 1/512 of it; on pictures rate and iterations are
    Sung et al.'s.
    """
    if characters:
        queries = {(5, 1): 19, (5, 5): 15, (20, 1): 10, (20, 5): 5}.get((task.way, task.shot), 15)
        data = PAPERS_DATA | {"train_query": queries, "query": task.shot, "steps": 100_000}
    else:
        train, test = (15, 3) if task.shot == 1 else (10, 5)
        data = {
            "train_query": train, "query": test, "steps": 500_000, "halve_every": 100_000,
        }  # fmt: skip
    return data | {
        "backbone": "conv4-relation",
        "backbone_statistics": "batch",
        "base": "relationnet",
        "task_batch": 1,
        "validate_every": 5000,
        "validation_episodes": 600,
    }
