"""``captures``: each line that a GPU would wait for or refuse is named, and no other."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fewshot_bench.engine.executors import Eager
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.sampling import ClosedSampler, InOrderSampler
from fewshot_bench.testing import Outcome
from fewshot_bench.testing.captures import DeviceCheck, evaluate, train
from fewshot_bench.testing.suites import suite
from tests.command_line import InProcess

Check = Callable[[str], tuple[int, str]]
ROOT = Path(__file__).parents[2]
MAML = ROOT / "plugins/fsb_maml/maml.py"

METHOD = """
import copy

import numpy as np
import torch
from torch import nn

from fewshot_bench import Method
from fewshot_bench.nn import per_task


class Mine(Method):
    capturable = True
    wants_backbone = False
    calls = 0

    def __init__(self, task):
        super().__init__(task)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
        self.host = torch.ones(5)
        self.alone = torch.tensor(2.0)

    def embed(self, images):
        return per_task(self.net, images)

    def adapt(self, support):
        images, _ = support.labeled()
        return self.embed(images).unflatten(1, support.images.shape[1:3]).mean(2)

    def predict(self, state, query):
        x = self.embed(query)
        {plant}
        return -torch.cdist(x, state).square()
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsb: InProcess) -> Check:
    """``fsb check`` in a folder of its own, which is the working folder."""
    monkeypatch.chdir(tmp_path)

    def call(typed: str) -> tuple[int, str]:
        answer = fsb("check", *typed.split(), at=tmp_path)
        return answer.code, answer.out

    return call


def planted(text: str, before: str, line: str, path: Path) -> int:
    """Write a source file with one more line, in front of another; its number."""
    lines = text.splitlines()
    at = next(i for i, old in enumerate(lines) if old.strip().startswith(before))
    indent = len(lines[at]) - len(lines[at].lstrip())
    lines.insert(at, " " * indent + line)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return at + 1


def test_an_item_in_a_copy_of_maml_is_named_with_its_line(check: Check) -> None:
    number = planted(MAML.read_text("utf-8"), "gradient = self._gr", "largest = total.item()",
                     Path("my_maml.py"))  # fmt: skip
    code, out = check("./my_maml.py:MAML --only captures")
    assert code == 1
    assert (
        f"-> my_maml.py:{number}, `largest = total.item()` in descend(), waits for the device"
        in out
    )
    page = (ROOT / "docs/plugins.md").read_text("utf-8")
    [shown] = re.findall(r"```text\n(captures  FAILED.*?)```", page, re.DOTALL)
    *printed, _ = out.strip().splitlines()  # the last one counts
    assert words(shown) == words("\n".join(printed))


def words(text: str) -> list[str]:
    """What is printed, without line breaks and numbers of lines."""
    return re.sub(r"\.py:\d+", ".py", text).split()


@pytest.mark.parametrize(
    ("line", "name"), [("self.calls += 1", "calls"), ("self.last = x", "last")]
)
def test_an_attribute_that_every_call_changes_is_named(line: str, name: str, check: Check) -> None:
    """Nothing reads it; an engine that cannot know runs such a method directly."""
    Path("mine.py").write_text(METHOD.replace("{plant}", line), "utf-8")
    code, out = check("./mine.py:Mine --only captures")
    assert code == 1
    said = " ".join(out.split())
    assert f": each call changes '{name}' of Mine, and a CUDA graph would not; return it" in said


def test_an_attribute_that_is_the_same_in_every_call_is_not_blamed(check: Check) -> None:
    """A view of a weight, and extra state on the device."""
    more = """
    def get_extra_state(self):
        return {"weight": self.net[1].weight[0].detach(), "none": float("nan")}

    def set_extra_state(self, state):
        pass
"""
    line = "self.first = self.net[1].weight[:5].detach()"
    Path("mine.py").write_text(METHOD.replace("{plant}", line) + more, "utf-8")
    code, out = check("./mine.py:Mine --only captures")
    assert code == 0, out


def test_an_untouched_copy_of_maml_passes(check: Check) -> None:
    Path("my_maml.py").write_text(MAML.read_text("utf-8"), "utf-8")
    code, out = check("./my_maml.py:MAML --only captures --inner-steps 1")
    assert code == 0, out
    assert out.split()[:2] == ["captures", "ok"]


IMPORTS = """from __future__ import annotations

import torch
from torch import Tensor

from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.rng import below, fold, subset
from fewshot_bench.sampling import Indices, OpenSampler, Sampler


"""
CLOSED, IN_ORDER = (IMPORTS + inspect.getsource(kind) for kind in (ClosedSampler, InOrderSampler))


@pytest.mark.parametrize(
    ("text", "name", "before", "line", "told"),
    [
        (CLOSED, "ClosedSampler", "classes = table.group_start",
         "variant = variant + torch.zeros(task.classes, dtype=torch.int64)", "mixes a tensor"),
        (CLOSED, "ClosedSampler", "classes = table.group_start",
         "last = int(ids.max())", "waits for the device"),
        (CLOSED, "ClosedSampler", "class_key = fold",
         "key = key + torch.tensor([0], device=ids.device)", "copies to the device"),
        # Made in the constructor, where waits are allowed and tensors of the host are not mixed.
        (IN_ORDER, "InOrderSampler", "shape = (-1, task.classes)",
         "self.stream = self.stream + torch.zeros(1, dtype=torch.int64)", "mixes a tensor"),
    ],
    ids=["a tensor of the host", "a read", "a copy", "in the constructor"],
)  # fmt: skip
def test_a_fault_in_a_copy_of_a_sampler_is_named_with_its_line(
    text: str, name: str, before: str, line: str, told: str, check: Check
) -> None:
    number = planted(text, before, line, Path("my_sampler.py"))
    code, out = check(f"./my_sampler.py:{name} --only captures")
    assert code == 1, out
    assert re.search(rf"-> my_sampler\.py:{number}, `{re.escape(line)}` in \w+\(\), {told}", out), (
        out
    )


@pytest.mark.parametrize(
    ("text", "name"), [(CLOSED, "ClosedSampler"), (IN_ORDER, "InOrderSampler")]
)
def test_an_untouched_copy_of_a_sampler_passes(text: str, name: str, check: Check) -> None:
    Path("my_sampler.py").write_text(text, "utf-8")
    code, out = check(f"./my_sampler.py:{name}")
    assert code == 0, out
    assert re.search(r"^captures +ok", out, re.M)


def checked(source: str, folder: Path) -> tuple[Outcome, int]:
    """The outcome of ``captures`` for a method of one file, and the number of the planted line."""
    path = folder / "mine.py"
    path.write_text(source, "utf-8")
    found = suite(Registry.discover(), f"{path}:Mine")
    (outcome,) = found.run(["captures"])
    return outcome, source.splitlines().index("        x = self.embed(query)") + 2


READS = (
    "float(x.sum())", "x.sum().item()", "x.tolist()", "bool((x > 0).any())", "int(x.argmax())",
    "y = 1 if (x > 0).all() else 2", "assert x.isfinite().all()", "range(x.argmax())",
    "x.detach().numpy()", "np.asarray(x.detach())", "torch.equal(x, x)", "max(x.sum(), x.mean())",
    "0.5 in x", "assert torch.allclose(x, x)", "torch.histc(x.detach())",
    "torch.linspace(0, x.detach().sum(), 3)", "torch.tensor([x.mean(), x.sum()])",
    "x.masked_fill(x > 0, x.min())", "y = x.clone(); y.masked_fill_(x > 0, x.min())",
    "x.index_fill(-1, torch.arange(2, device=x.device), x.mean())",
    "torch.linalg.matrix_exp(x.mT @ x)", "torch.randint_like(x, x.argmax().max() + 2)",
    "torch.isin(x, torch.arange(99.0, device=x.device))",
    "torch.searchsorted(x, x, sorter=x.argsort())", "x.new_zeros(4096).mode()",
    "torch.segment_reduce(x[0], 'sum', lengths=torch.full((1,), len(x[0]), device=x.device))",
    "torch.nn.functional.cross_entropy(x[0], x[0].argmax(-1), x.new_ones(5), label_smoothing=0.1)",
)  # fmt: skip
WRONG = {
    "waits for the device, because it reads a number": READS,
    "waits for the device, because the size": (
        "x[x > 0]", "x.nonzero()", "torch.unique(x)", "x.masked_select(x > 0)",
        "x.long().clamp(0).flatten().bincount()", "torch.argwhere(x > 0)", "torch.where(x > 0)",
        "x.repeat_interleave(torch.ones(5, dtype=torch.int64, device=x.device), 2)",
        "y = x.clone(); y[x > 0] = x.mean().detach()",
        "x.clone().index_put_((x > 0,), torch.tensor(1.0), accumulate=True)",
    ),
    "waits for the device, because it prints": ("print(x)", 'y = f"{x}"', "str(x.mean())",
                                                'y = f"{x.mean():.3f}"'),
    "waits for the device, to know": ("torch.linalg.inv(x.mT @ x + 1e3)",
                                      "torch.linalg.eigvalsh(x.detach().mT @ x.detach())",
                                      "torch.linalg.pinv(x.detach())",
                                      "torch.cholesky_inverse(x.detach().mT @ x.detach())",
                                      "torch.linalg.inv_ex(x.mT @ x, check_errors=True)"),
    "waits for the device, because it copies": ("x.cpu()", 'x.to("cpu")',
                                                "torch.ones(x.shape).copy_(x)"),
    "copies to the device": (
        "torch.tensor([1.0, 2.0], device=x.device)", "x.new_tensor([1.0])",
        "torch.ones(5).to(x.device)", "torch.ones(5).to(x)",
        "torch.as_tensor(np.ones(5), device=x.device)", "torch.tensor(1.0).to(x.device)",
    ),
    "mixes a tensor": (
        "x * torch.ones(5)", "x * self.host", "torch.stack([x[0, 0, 0], self.alone])",
        "torch.where(x > 0, x, self.alone)", "x[:, :, [0, 1]]", "x[torch.tensor([0])]",
        "x.index_select(2, torch.arange(2))", "torch.cat([x, torch.zeros(*x.shape)])",
        "x[:, :, np.arange(2)]",
    ),
    "does not do the same for every batch": (
        "self.calls += 1; x * self.calls", "self.calls += 1; x.expand(self.calls, *x.shape) + 1",
        "self.calls += 1; x * torch.tensor(float(self.calls))",
    ),
}  # fmt: skip
RIGHT = (
    "x * 2.0", "x * torch.tensor(2.0)", "x * self.alone", "[row for row in x]", "len(x) * x.dim()",
    "torch.zeros(3, device=x.device) + x.new_ones(3)", "torch.where(x > 0, x, 0.0)",
    "x.masked_fill(x > 0, 0.0)", "y = x.clone(); y[y > 0] = 0.0", "y = x.clone(); y[0] = 1.0",
    "torch.full((), 0.5, device=x.device)", "x[:, :, torch.arange(2, device=x.device)]",
    "torch.linalg.solve_ex(x.mT @ x, x.mT)", "x.repeat_interleave(2, 1)",
    "x.repeat_interleave(torch.full((1,), 2, device=x.device), 1, output_size=2 * x.shape[1])",
    "x.argmax(-1) == 1",
    "x.to(torch.float64).to(x.device)", "torch.ones(3).sum().item()", "x.cumsum(1).sort(1)",
    "torch.nn.functional.one_hot(x.argmax(-1), 5)", "copy.deepcopy(self.net)",
    "y = x.clone(); y[:, :, x[0, 0] > 0] = 1", "torch.isin(x, x[0, 0, :2])",
    "x.masked_fill(x > 0, self.alone)", "y = x.clone(); y[y > 0] = self.alone",
    "x.index_fill(-1, torch.arange(2, device=x.device), self.alone)",
    "torch.histc(x.detach(), 5, 0.0, 1.0)", "torch.where(x > 0, x.min(), x)",
    "torch.nn.functional.cross_entropy(x[0], x[0].argmax(-1), x.new_ones(5))",
    'x.masked_fill(x > 1e9, float("nan"))', 'torch.full((2,), float("nan"), device=x.device)',
    'x * torch.tensor(float("nan"))', 'torch._foreach_mul([x, x], [2.0, float("nan")])',
    "with torch.autocast(x.device.type, enabled=False): x.float()",
    "with torch.autocast(x.device.type, torch.bfloat16): x = x.float()",
    "y = torch.autocast(x.device.type, enabled=False)(torch.square)(x)",
)  # fmt: skip
IN_BACKWARD = ("x = x * x.cumprod(-1)", "x = x * x.prod(-1, keepdim=True)",
               "x = x.masked_scatter(x > 0, 2 * x)")  # fmt: skip


@pytest.mark.parametrize(
    ("told", "plant"), [(told, plant) for told, plants in WRONG.items() for plant in plants]
)
def test_what_a_gpu_waits_for_or_refuses_is_named_with_its_line(
    told: str, plant: str, tmp_path: Path
) -> None:
    outcome, number = checked(METHOD.replace("{plant}", plant), tmp_path)
    assert outcome.status == "failed", outcome
    assert f"mine.py:{number}, `{plant}` in predict(), {told}" in outcome.message


@pytest.mark.parametrize("plant", RIGHT)
def test_what_a_gpu_takes_is_not_blamed(plant: str, tmp_path: Path) -> None:
    outcome, _ = checked(METHOD.replace("{plant}", plant), tmp_path)
    assert outcome.status == "passed", outcome.message


def test_every_line_is_named_at_once(tmp_path: Path) -> None:
    plant = "y = float(x.sum())\n        y = x * self.host"
    outcome, number = checked(METHOD.replace("{plant}", plant), tmp_path)
    assert f"mine.py:{number}, `y = float(x.sum())`" in outcome.message
    assert f"mine.py:{number + 1}, `y = x * self.host`" in outcome.message


def test_what_raises_on_another_device_is_named(tmp_path: Path) -> None:
    plant = 'y = 1 if x.device.type == "cpu" else {}["cuda"]'
    outcome, number = checked(METHOD.replace("{plant}", plant), tmp_path)
    assert outcome.status == "failed"
    assert f"mine.py:{number}, `{plant}` in predict(), raises on another device" in outcome.message
    assert "KeyError" in outcome.message


def test_a_method_that_could_declare_it_is_told_so(tmp_path: Path) -> None:
    modest = METHOD.replace("capturable = True", "capturable = False")
    outcome, _ = checked(modest.replace("{plant}", "pass"), tmp_path)
    assert outcome.status == "note"
    assert outcome.message.startswith("it could declare capturable = True: no wait")
    outcome, number = checked(modest.replace("{plant}", "x.tolist()"), tmp_path)
    assert outcome.status == "not claimed"
    assert outcome.message.startswith("capturable = False; ")
    assert f"mine.py:{number}, `x.tolist()`" in outcome.message


def test_a_line_of_losses_is_named_too(tmp_path: Path) -> None:
    extra = """
    def losses(self, episode: object) -> object:
        found = super().losses(episode)
        print(float(found.players["meta"].mean()))
        return found
"""
    source = METHOD.replace("{plant}", "pass") + extra
    outcome, _ = checked(source, tmp_path)
    number = len(source.splitlines()) - 1
    assert f"mine.py:{number}, `print(float(found" in outcome.message
    assert "in losses()" in outcome.message


def test_a_line_of_a_helper_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a module that lies beside the method's, or below it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "parts_of_mine").mkdir()
    helper = tmp_path / "parts_of_mine" / "norms.py"
    helper.write_text("def norm(x):\n    if x.max() > 1e9:\n        x = x / 2\n    return x\n")
    plant = "from parts_of_mine.norms import norm; x = norm(x)"
    outcome, _ = checked(METHOD.replace("{plant}", plant), tmp_path)
    assert "norms.py:2, `if x.max() > 1e9:` in norm(), waits for the device" in outcome.message
    assert "mine.py" not in outcome.message


def test_a_trained_line_is_named_once(tmp_path: Path) -> None:
    """The backward pass meets the host's tensor again, at no line of the plugin's."""
    plant = "x = x * self.host"
    trained = METHOD.replace("{plant}", plant)
    outcome, number = checked(trained, tmp_path)
    assert outcome.message.count("mixes a tensor") == 1
    assert f"mine.py:{number}, `{plant}`" in outcome.message


@pytest.mark.parametrize("plant", IN_BACKWARD)
def test_a_wait_in_a_backward_pass_is_named_with_the_line_of_the_forward(
    plant: str, tmp_path: Path
) -> None:
    outcome, number = checked(METHOD.replace("{plant}", plant), tmp_path)
    assert outcome.status == "failed", outcome
    assert (
        f"mine.py:{number}, `{plant}` in predict(), in its backward pass waits" in outcome.message
    )


BY_WAY = """
        if self.__dict__.get("eye") is None or len(self.eye) != state.shape[1]:
            self.__dict__["eye"] = torch.eye(state.shape[1], device=x.device)
        state = self.eye @ state
"""


def test_what_is_made_anew_for_another_way_is_no_fault(tmp_path: Path) -> None:
    """As a validation between two trainings does; whoever captures sees that it was replaced."""
    path = tmp_path / "mine.py"
    path.write_text(METHOD.replace("{plant}", BY_WAY.strip()), "utf-8")
    subject = suite(Registry.discover(), f"{path}:Mine").subject
    fewer = replace(subject, task=replace(subject.task, way=subject.task.way - 1))
    method = subject.build()
    watched = DeviceCheck(method)
    train(watched, subject, Eager(method))
    evaluate(watched, fewer, Eager(method))
    assert method.eye.shape == (fewer.task.way, fewer.task.way)
    train(watched, subject, Eager(method))
    assert watched.faults == []


QUIET = """
class Quiet(torch.optim.AdamW):
    def step(self, closure=None):
        return super().step(closure)
"""


@pytest.mark.parametrize(
    ("optimizer", "status"),
    [("torch.optim.SGD", "failed"), ("torch.optim.Adagrad", "failed"), ("Quiet", "passed"),
     ("torch.optim.RMSprop", "passed")],
)  # fmt: skip
def test_the_optimizer_is_the_one_of_a_graph(optimizer: str, status: str, tmp_path: Path) -> None:
    extra = f"""
    def players(self):
        return {{"meta": Player(dict(self.named_parameters()), {optimizer})}}

{QUIET}"""
    source = METHOD.replace("{plant}", "pass").replace(
        "import torch\n", "import torch\nfrom fewshot_bench.method import Player\n", 1
    )
    outcome, _ = checked(source + extra, tmp_path)
    assert outcome.status == status, outcome
    name = optimizer.rpartition(".")[2]
    assert (f"players(): {name} has no capturable form" in outcome.message) == (status == "failed")
    outcome, _ = checked(
        source.replace("capturable = True", "capturable = False") + extra, tmp_path
    )
    assert outcome.status == ("not claimed" if status == "failed" else "note"), outcome


def test_what_is_made_once_may_wait(tmp_path: Path) -> None:
    cached = """if "y" not in self.__dict__:
            self.__dict__["y"] = torch.ones(5).to(x.device)
        x = x * self.__dict__["y"]"""
    outcome, _ = checked(METHOD.replace("{plant}", cached), tmp_path)
    # A cache that is filled in the first step waits there, and a graph is captured later.
    assert outcome.status == "passed", outcome
