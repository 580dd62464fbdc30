from typing import Annotated

from torch.nn.functional import cosine_similarity

from fewshot_bench import Method
from fewshot_bench.nn import per_task


class FirstMethod(Method):
    """A prototypical network (Snell et al. 2017) with the cosine in place of the distance."""

    def __init__(self, task, backbone, *, scale: Annotated[float, "of the logits"] = 10.0):
        super().__init__(task, backbone)
        self.scale = scale

    def adapt(self, support):
        """Learn each task: the mean of each class, [T, way, d]."""
        features = per_task(self.backbone, support.labeled()[0]).flatten(2)
        return features.unflatten(1, support.images.shape[1:3]).mean(2)

    def predict(self, state, query):
        """Logits [T, Q, way]."""
        features = per_task(self.backbone, query).flatten(2)
        return self.scale * cosine_similarity(features.unsqueeze(2), state.unsqueeze(1), dim=-1)
