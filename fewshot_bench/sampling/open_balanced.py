"""An open plan that uses every class alike, however many images it has."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot_bench.rng import below, permutation
from fewshot_bench.sampling.base import OpenSampler


class BalancedOpenSampler(OpenSampler):
    """A finite plan in which no image is used twice and all classes are used equally often.

    An open plan goes on while enough classes have images left, so that its later episodes are of
    the large classes alone. Here a class takes part in as many episodes as the smallest one
    can: an episode has the classes that were used least, at random among equals. So any two classes
    differ by one episode at most, at every point of the plan (within a family, with
    ``within_family``), and large classes leave images unused.
    """

    def pick(self, key: Tensor, room: Tensor, used: Tensor) -> Tensor | None:
        """The groups that were used least, while every group could be used once more."""
        n = self.task.classes
        families = [g for g in torch.arange(len(room)).split(self.families) if len(g) >= n]
        most = min(int(room[groups].min()) for groups in families)
        left = [groups[used[groups] < most] for groups in families]
        left = [groups for groups in left if len(groups) >= n]
        if not left:
            return None
        groups = left[int(below(key, "family", len(left)))]
        shuffled = groups[permutation(key, "classes", len(groups))]
        chosen = shuffled[used[shuffled].argsort(stable=True)[:n]]
        # The least used come first; a place in the episode is to tell nothing of that.
        return chosen[permutation(key, "places", len(chosen))]
