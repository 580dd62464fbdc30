from typing import Annotated

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from fewshot_bench import Method, Support, Task
from fewshot_bench.nn import per_task


class FirstMethod(Method):
    """A prototypical network (Snell et al. 2017) with the cosine in place of the distance."""

    def __init__(
        self,
        task: Task,
        backbone: nn.Module,
        *,
        scale: Annotated[float, "scale of the logits"] = 10.0,
    ) -> None:
        super().__init__(task, backbone)
        self.scale = scale

    def adapt(self, support: Support) -> Tensor:
        """Learn each task: the mean of each class, [T, way, d]."""
        tasks, way, shot = support.images.shape[:3]
        features = per_task(self.backbone, support.images.flatten(1, 2))
        return features.view(tasks, way, shot, -1).mean(2)

    def predict(self, state: Tensor, query: Tensor) -> Tensor:
        """Logits [T, Q, way]."""
        features = per_task(self.backbone, query).flatten(2)
        return self.scale * cosine_similarity(features.unsqueeze(2), state.unsqueeze(1), dim=-1)
