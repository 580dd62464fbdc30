"""Settings of ``--preset quick | tutorial | paper | paper-relationnet`` and of those like them."""

from __future__ import annotations

from typing import Any

from fewshot_bench import Preset, Task


def quick_steps(task: Task) -> int:
    """Steps cost more with more classes; the time is meant to stay about the same."""
    return 1000 if task.way <= 5 else max(100, 5000 // task.way)


# For two CPU cores; not the paper's schedule. The base is maml's own quick preset. Every term of
# the game is active; those of the inner loop weigh less than in the paper.
QUICK = (
    Preset(
        {
            "backbone": "conv4-strided",
            "base": "maml",
            "base_first_order": True,
            "base_inner_lr": 0.1,
            "base_inner_steps": 5,
            "base_pooling": "flatten",
            "generator_network": "small",
            "encoder_network": "small",
            "generator_fakes_per_class": 1,
            "update": "joint",
            "inner_through_fakes": False,
            "inner_real_weight": 0.1,
            "inner_fake_weight": 0.1,
            "lr": 3e-3,
            "generator_lr": 3e-3,
            "anneal": True,
            "task_batch": 4,
            # A natural image of 84x84 costs nine times a character.
            "steps": lambda task: max(100, quick_steps(task) // 9),
            "validate_every": 50,
            "validation_episodes": 50,
        }
    ),
    Preset(
        {"steps": quick_steps, "validate_every": 200, "validation_episodes": 100},
        family="characters",
    ),
)

# The MetaGAN tutorial in TensorFlow that this project started from. It turns each class by one
# random quarter turn, which is what drawing among turned classes does, two turns of one character
# never sharing a task. Its test is 131 disjoint tasks, of characters in the order in which they are
# complete when TensorFlow Datasets delivers their images (the data set's protocol).
TUTORIAL: dict[str, Any] = {
    "pixels": "signed",
    "sampling": "in-order",
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
    "generator_network": "tutorial",
    "encoder_network": "tutorial",
    "generator_z_dim": 100,
    "encoder_dropout": 0.0,
    "update": "joint",
    "inner_through_fakes": False,
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
TUTORIAL_SMALL = TUTORIAL | {
    "generator_network": "tutorial-small",
    "encoder_network": "tutorial-small",
}

# What it takes to reach 98 % in as many steps of as many tasks (benchmarks/results): no real and
# fake terms in the discriminator's loss, prototypes in place of an inner loop, random test tasks.
TUTORIAL_CORRECTED = {
    name: value for name, value in TUTORIAL_SMALL.items() if not name.startswith("base_")
} | {
    "outer_real_weight": 0.0,
    "outer_fake_weight": 0.0,
    "generator_weight": 0.0,
    "generator_fakes_per_class": 1,  # nothing learns from them
    "base": "protonet",
    "sampling": "closed",
}

# Zhang et al. 2018, MetaGAN + MAML; the signature's defaults are the paper's. The paper states
# neither its iterations nor alpha nor the inner steps: those are MAML's (Finn et al. 2017), whose
# inner loss is summed over classes, so that alpha is ``way`` times its.
OVER_MAML: dict[str, Any] = {
    "backbone_statistics": "batch",
    "base": "maml",
    "query": lambda task: task.shot,
    "steps": 60_000,
    "validate_every": 1000,
    "validation_episodes": 600,
}
PAPER = (
    Preset(  # Mini-ImageNet: one inner step, first order; its rate is halved on Omniglot alone
        OVER_MAML
        | {
            "backbone": "conv4",
            "backbone_channels": 32,
            "base_first_order": True,
            "base_inner_lr": lambda task: 0.01 * task.way,
            "base_inner_steps": 1,
            "base_pooling": "flatten",
            "halve_every": 0,
            "train_query": 15,
            "task_batch": 4,
        },
        family="natural-images",
    ),
    Preset(  # Omniglot, 5-way
        OVER_MAML
        | {
            "backbone": "conv4-strided",
            "base_first_order": False,
            "base_inner_lr": 2.0,
            "base_inner_steps": 1,
            "base_test_steps": 3,
            "base_pooling": "mean",
            "train_query": lambda task: task.shot,  # K real images a class, and as many fakes
            "task_batch": 16,
        },
        protocol="random-characters",
        way=(5, 20),
    ),
    Preset(
        {"base_inner_steps": 5, "base_test_steps": 5, "task_batch": 8},
        protocol="random-characters",
        way=(20,),
    ),
)

# Zhang et al. 2018, MetaGAN + Relation Network: one task a step. Queries a class, in training and
# at test, are those of Sung et al. 2018 and their code (see ``fsb_relationnet``), as is the
# network; the paper states no number of iterations. Omniglot's rate is halved every 10,000: 100,000
# end at 1/512 of it; on Mini-ImageNet rate and iterations are Sung et al.'s.
OVER_RELATIONNET: dict[str, Any] = {
    "backbone": "conv4-relation",
    "backbone_statistics": "batch",
    "base": "relationnet",
    "task_batch": 1,
    "validate_every": 5000,
    "validation_episodes": 600,
}
PAPER_RELATIONNET = (
    Preset(
        OVER_RELATIONNET
        | {"train_query": 10, "query": 5, "steps": 500_000, "halve_every": 100_000},
        family="natural-images",
    ),
    Preset({"train_query": 15, "query": 3}, family="natural-images", shot=(1,)),
    Preset(
        OVER_RELATIONNET | {"train_query": 15, "query": lambda task: task.shot, "steps": 100_000},
        protocol="random-characters",
        way=(5, 20),
    ),
    *(
        Preset({"train_query": queries}, protocol="random-characters", way=(way,), shot=(shot,))
        for way, shot, queries in ((5, 1, 19), (20, 1, 10), (20, 5, 5))
    ),
)

PRESETS: dict[str, Preset | tuple[Preset, ...]] = {
    "quick": QUICK,
    **{
        name: Preset(settings, protocol="metagan-tutorial", way=(5,), shot=(5,))
        for name, settings in (
            ("tutorial", TUTORIAL),
            ("tutorial-small", TUTORIAL_SMALL),
            ("tutorial-corrected", TUTORIAL_CORRECTED),
        )
    },
    "paper": PAPER,
    "paper-relationnet": PAPER_RELATIONNET,
}
