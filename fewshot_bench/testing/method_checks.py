"""The conformance suite of methods: what is checked, and on what."""

from __future__ import annotations

import math
import statistics
import tempfile
import timeit
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_bench.config.options import options_of
from fewshot_bench.config.schema import SETTINGS
from fewshot_bench.data import ClassTable, Dataset
from fewshot_bench.engine.checkpointing import Store
from fewshot_bench.engine.evaluation import TOLERANCE, evaluate
from fewshot_bench.engine.executors import Eager, differentiate
from fewshot_bench.engine.inspection import far_behind, inspect_test, inspect_training
from fewshot_bench.engine.training import Plan, Trainer, check_players, copy_weights
from fewshot_bench.engine.weights import load_weights, save_weights
from fewshot_bench.episode import Episode, Task
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.method import Method, accuracy, preset_settings, presets_of, trainable
from fewshot_bench.nn.norm import Statistics
from fewshot_bench.sampling import BatchSource, ClosedSampler, EpisodeSource, without_labels
from fewshot_bench.testing import checks, tiny
from fewshot_bench.testing.checks import Fault, NotClaimed, require_close
from fewshot_bench.testing.gradients import gradient_error, precision_error
from fewshot_bench.utils import devices
from fewshot_bench.utils.generators import generators_preserved, generators_used, global_generators
from fewshot_bench.utils.torch_private import tree_leaves

CHECKED = replace(tiny.TINY, image_shape=(1, 8, 8), pixel_range=(-1.0, 1.0))
RGB = (3, *CHECKED.image_shape[1:])
STEPS, TASKS = 40, 4  # of a short training
EPISODES = 50  # of a test after it
EXACT = 1e-9  # float64: only the order of a sum may differ
GRADIENT, EPSILONS = 1e-4, (1e-5, 1e-6, 1e-4)  # a kink near a weight shows at large steps only
PRECISION = 1e-4
BATCHES = 3  # of which one may have a jump that is neither a ReLU's nor of max-pooling
SWITCHES = ("wants_backbone", "batchable", "class_equivariant", "capturable", "autocast",
            "embeds", "trains", "unlabeled_tasks", "transductive")  # fmt: skip
# {what a method declares: its values}
DECLARATIONS: dict[str, tuple[object, object]] = dict.fromkeys(SWITCHES, (True, False))
DECLARATIONS |= {"source": ("episodes", "batches"), "gradient": ("exact", "surrogate")}
Shape = tuple[int, int, int]
Make = Callable[[Task, nn.Module | None], Method]


@dataclass(frozen=True)
class MethodSubject:
    """A method under test, and the episodes that it is tested on.

    With running ``statistics`` of the tiny backbone, only the method itself can make a prediction
    depend on other queries.
    """

    kind: type[Method]
    make: Make | None = None  # None: ``kind``
    task: Task = CHECKED
    statistics: Statistics = "running"
    shapes: tuple[Shape, ...] = (RGB,)  # of images, besides those of the task

    def variants(self) -> Iterator[tuple[str, MethodSubject]]:
        """The subject with each kind of statistics and accepted shape; a prefix for messages."""
        yield "", self
        statistics: Statistics = "batch" if self.kind.wants_backbone else "running"
        suffix = " and batch statistics" if self.kind.wants_backbone else ""
        for shape in self.shapes or (self.task.image_shape,):
            other = replace(self._with_images(shape), statistics=statistics)
            try:
                other.build()
            except ConfigError:
                continue
            if other != replace(self, shapes=()):
                yield f"with images {'x'.join(map(str, shape))}{suffix}: ", other

    def _with_images(self, shape: Shape) -> MethodSubject:
        return replace(self, task=replace(self.task, image_shape=shape), shapes=())

    @cached_property
    def small(self) -> MethodSubject:
        """The subject with images no larger than the suite's own, where the method accepts them.

        Larger random images are so far apart that losses are almost 0, so finite differences see
        only rounding, and an inner learning rate is too large for a tiny network of many features.
        """
        shapes = tuple(dict.fromkeys(map(self._shrunk, self.shapes)))
        return replace(self._with_images(self._shrunk(self.task.image_shape)), shapes=shapes)

    def _shrunk(self, shape: Shape) -> Shape:
        channels, height, width = shape
        less = channels, min(height, RGB[1]), min(width, RGB[2])
        other = self._with_images(less)
        try:
            if less != shape:
                with generators_preserved():
                    method = other.build()
                    predict(method, other.episode())
                    method.train().losses(other.training_episode())
        except Exception:  # needs larger images, or fails at any size, which the check will report
            return shape
        return less

    @cached_property
    def trained(self) -> Method:
        """The method after a short training (or as built, where nothing trains)."""
        method = self.build()
        trainer = Trainer(method, Eager(method), self.source("train"), Plan(STEPS, TASKS))
        if trainer.players:
            trainer.run()
        return method

    @property
    def training_task(self) -> Task:
        """What the method is built for: all training classes if it is pretrained."""
        if self.kind.source == "batches":
            return replace(self.task, way=len(self.table("train").class_start))
        return self.task

    def build(self, seed: int = 0, backbone: Callable[[Shape], nn.Module] | None = None) -> Method:
        """The method, initialized by a seed, over a backbone (default: the tiny one)."""
        make: Callable[..., Any] = self.make or self.kind
        backbone = backbone or partial(tiny.TinyBackbone, statistics=self.statistics)
        task = self.training_task
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = [backbone(task.image_shape)] if self.kind.wants_backbone else []
            method = make(task, *networks)
        if not isinstance(method, Method):
            raise Fault(f"building it gave a {type(method).__name__}, not a fewshot_bench.Method.")
        return method

    def episode(self, tasks: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32) -> Episode:
        task = self.task
        return tiny.tiny_episode(
            task.way, task.shot, task.query, tasks, task.image_shape, task.unlabeled,
            distractors=task.distractors, seed=seed, dtype=dtype,
        )  # fmt: skip

    def training_episode(
        self, tasks: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> Episode:
        """The input of ``losses``: tasks, or mini-batches for a method with that source."""
        if self.kind.source == "episodes":
            return self.episode(tasks, seed, dtype)
        source = BatchSource(self.table("train"), self.task.way * self.task.query, seed, dtype)
        return source.batch(range(tasks))

    def table(self, split: str, device: torch.device | str = "cpu") -> ClassTable:
        """The tiny separable data set; its two splits have different patterns."""
        seed = 0 if split == "train" else 1
        images = tiny.separable_images(image_shape=self.task.image_shape, seed=seed)
        return ClassTable(images, device, pixel_range=self.task.pixel_range)

    def source(self, split: str, device: torch.device | str = "cpu") -> Any:
        table = self.table(split, device)
        if split == "train" and self.kind.source == "batches":
            return BatchSource(table, self.task.way * self.task.query, 0)
        return EpisodeSource(ClosedSampler(table, self.task, 0))

    def tested(self) -> tuple[float, int]:
        """Accuracy on test tasks after the short training, and the number of their queries."""
        scores = evaluate(Eager(self.trained), self.source("test"), EPISODES, chunk=EPISODES)
        return float(scores.accuracy.mean()), EPISODES * self.task.way * self.task.query


def all_variants(run: Callable[[MethodSubject], None]) -> Callable[[MethodSubject], None]:
    """The check with both kinds of statistics and all shapes of images."""

    @wraps(run)
    def check(subject: MethodSubject) -> None:
        reason: NotClaimed | None = None
        for prefix, variant in subject.variants():
            try:
                run(variant)
            except NotClaimed as error:
                reason = reason if prefix else error
            except Exception as error:
                raise Fault(f"{prefix}{checks.explained(error)}") from error
        if reason is not None:
            raise reason

    return check


def small_images(run: Callable[[MethodSubject], None]) -> Callable[[MethodSubject], None]:
    return wraps(run)(lambda subject: run(subject.small))


def predict(method: Method, episode: Episode, *, training: bool = False) -> Tensor:
    """Logits [T, Q, way], as an evaluation gets them; ``training``: in training mode."""
    method.train(training)
    with torch.enable_grad():
        return method.predict(method.adapt(episode.support), episode.query).detach()


def _losses(method: Method, episode: Episode) -> dict[str, Tensor]:
    return {n: value.detach() for n, value in method.train().losses(episode).players.items()}


def builds_alike(subject: Any) -> None:
    """The same seed builds the same weights."""
    one, two = (subject.build(seed=3).state_dict() for _ in range(2))
    if name := checks.changed_entry(one, two):
        raise Fault(f"two builds with one seed differ in '{name}'; use torch's generator alone.")


def options(subject: MethodSubject) -> None:
    """Every keyword of __init__ is an option with a default; presets set options that exist."""
    own = options_of(subject.kind)
    known = {*SETTINGS, *(option.name for option in own)}
    prefixes = ("backbone_", *(f"{option.name}_" for option in own if option.method))
    try:
        presets = presets_of(subject.kind)
    except TypeError as error:
        raise Fault(f"{error}.") from error
    for name, entries in presets.items():
        for setting in (setting for preset in entries for setting in preset.settings):
            if setting not in known and not setting.startswith(prefixes):
                raise Fault(
                    f"preset '{name}' sets '{setting}', no option of the method or of 'fsb run'."
                )
    if preset_settings(subject.kind, "quick", Dataset, subject.task) is None:
        raise Fault("the default preset 'quick' is missing; declare one, such as Preset().")


@all_variants
def shapes(subject: MethodSubject) -> None:
    """adapt gives tensors [T, ...], predict [T, Q, way], losses [T] for each player."""
    method, tasks = subject.build().eval(), 2
    episode = subject.episode(tasks)
    with torch.enable_grad():
        state = method.adapt(episode.support)
        logits = method.predict(state, episode.query)
    for tensor in tree_leaves(state):
        if isinstance(tensor, Tensor) and tensor.shape[:1] != (tasks,):
            raise Fault(f"adapt() gave {tuple(tensor.shape)}; expected [T, ...] with T = {tasks}.")
    expected = (*episode.query.shape[:2], subject.task.way)
    if logits.shape != expected:
        raise Fault(f"predict() gave {tuple(logits.shape)}; expected [T, Q, way], {expected}.")
    losses = method.train().losses(subject.training_episode(tasks))
    for kind, values in (("player", losses.players), ("log", losses.log)):
        for name, value in values.items():
            if value.shape != (tasks,):
                got = f"losses() gave {tuple(value.shape)} for {kind} '{name}'"
                raise Fault(f"{got}; expected ({tasks},): leave the mean over tasks to the loop.")
    missing = sorted(set(check_players(method)) - set(losses.players))
    if missing:
        raise Fault(f"losses() gives no loss for player '{missing[0]}' of players().")


def dtypes(subject: MethodSubject) -> None:
    """Images of float32 and of float64 give logits and losses of the same type."""
    for dtype in (torch.float32, torch.float64):
        method = subject.build().to(dtype)
        found = {"predict()": predict(method, subject.episode(dtype=dtype)).dtype}
        losses = _losses(method, subject.training_episode(dtype=dtype))
        found |= {f"the loss of '{name}'": value.dtype for name, value in losses.items()}
        for where, got in found.items():
            if got != dtype:
                raise Fault(f"{where} is {got} for images of {dtype}; use images.dtype.")


@all_variants
def finite(subject: MethodSubject) -> None:
    """Logits, losses and logged numbers are finite, and every loss has a gradient."""
    method = subject.build()
    if not bool(predict(method, subject.episode()).isfinite().all()):
        raise Fault("predict() gives NaN or infinity on random images of unit size.")
    losses = method.train().losses(subject.training_episode())
    for name, value in (*losses.players.items(), *losses.log.items()):
        if not bool(value.isfinite().all()):
            raise Fault(f"losses() gives {value.tolist()} for '{name}' before any training.")
    for name in check_players(method):
        if not losses.players[name].requires_grad:
            raise Fault(f"the loss of player '{name}' is detached: nothing would train.")


def repeatable(subject: MethodSubject) -> None:
    """The same episode gives the same numbers, and global generators stay untouched."""
    method = subject.build()
    found = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = global_generators()
            logits = predict(method, subject.episode())
            losses = _losses(method, subject.training_episode())
            if used := generators_used(before, global_generators()):
                raise Fault(
                    f"it draws from {used[0]}; draw from fewshot_bench.rng with support.key, or "
                    "results depend on how tasks are batched."
                )
        found.append(torch.cat([logits.flatten(), *losses.values()]))
    advice = "a second call gives other numbers; store nothing between calls."
    require_close(found[0], found[1], 0.0, advice)


@all_variants
def pure_losses(subject: MethodSubject) -> None:
    """losses() changes no parameter, no buffer and no gradient."""
    method = subject.build().train()
    before = copy_weights(method.state_dict())
    method.losses(subject.training_episode())
    tensors = {n: value for n, value in method.state_dict().items() if isinstance(value, Tensor)}
    if name := checks.changed_entry(tensors, before):
        change = checks.max_difference(tensors[name], before[name])
        advice = "return buffers in Losses.buffers, and leave parameters to the loop."
        raise Fault(f"losses() changed '{name}' by {change:.3g}; {advice}")
    touched = [n for n, p in method.named_parameters() if p.grad is not None]
    if touched:
        raise Fault(f"losses() left a gradient at '{touched[0]}'; use torch.autograd.grad.")


def round_trip(subject: MethodSubject) -> None:
    """Weights saved to a file and loaded into a method of another seed predict the same."""
    one, two = subject.build(seed=1), subject.build(seed=2)
    with tempfile.TemporaryDirectory() as folder:
        save_weights(one, Path(folder))
        load_weights(two, Path(folder))
    advice = "something that depends on the seed is neither a parameter nor a registered buffer."
    expected, found = (predict(method, subject.episode()) for method in (one, two))
    require_close(expected, found, 1e-6, advice)


def players(subject: MethodSubject) -> None:
    """Players share no parameter, cover all that is trainable, and appear in turns.

    Where ``trains = False`` is declared there are none.
    """
    method = subject.build()
    found = check_players(method)
    owned = {id(p): n for player in found.values() for n, p in player.parameters.items()}
    lost = [name for name, p in trainable(method).items() if id(p) not in owned]
    if lost and method.trains:
        raise Fault(
            f"'{lost[0]}' ({len(lost)} in all) is trainable and has no player; give it one, or "
            "requires_grad_(False), or declare trains = False if nothing is to train."
        )
    inside = {id(p) for p in method.parameters()}
    foreign = [name for p, name in owned.items() if p not in inside]
    if foreign:
        raise Fault(f"'{foreign[0]}' has a player but is not a parameter of the method.")
    idle = sorted(set(found) - {name for turn in method.turns for name in turn})
    if idle:
        raise Fault(f"player '{idle[0]}' is in none of the turns {method.turns}: it never trains.")


@small_images
def gradients(subject: MethodSubject) -> None:
    """Each player's gradient is that of its loss (of the declared surrogate), in float64."""
    method = subject.build()
    worst: dict[str, float] = {}
    for eps in EPSILONS:
        episode = subject.training_episode(dtype=torch.float64)
        errors = gradient_error(method, episode, eps=eps, samples=2)
        worst = {name: min(worst.get(name, float("inf")), e) for name, e in errors.items()}
        if all(error <= GRADIENT for error in worst.values()):
            return
    name = max(worst, key=lambda n: worst[n])
    hint = "A detached or stopped term?" if method.gradient == "exact" else ""
    raise Fault(
        f"the gradient of player '{name}' differs by {worst[name]:.3g} of its size from finite "
        f"differences (tolerance {GRADIENT:g}). {hint} Stop gradients with "
        "fewshot_bench.nn.stop and declare gradient = 'surrogate'."
    )


@all_variants
def independent_tasks(subject: MethodSubject) -> None:
    """A batch of tasks gives what one task at a time gives, unless batchable = False."""
    method = subject.build().double()
    if not method.batchable:
        raise NotClaimed("batchable = False: its tasks influence each other.")
    episode = subject.episode(3, dtype=torch.float64)
    advice = "tasks influence each other: use TaskBatchNorm, per_task, or batchable = False."
    single = torch.cat([predict(method, episode.tasks(t, t + 1)) for t in range(3)])
    require_close(predict(method, episode), single, EXACT, f"predict(): {advice}")
    training = subject.training_episode(3, dtype=torch.float64)
    parts = [_losses(method, training.tasks(t, t + 1)) for t in range(3)]
    for name, value in _losses(method, training).items():
        joined = torch.cat([part[name] for part in parts])
        require_close(value, joined, EXACT, f"the loss of '{name}': {advice}")


def declarations(subject: MethodSubject) -> None:
    """Each declaration has one of its values, and a backbone that is wanted is used."""
    method = subject.build()
    for name, values in DECLARATIONS.items():
        found = getattr(method, name)
        if found not in values or not isinstance(found, type(values[0])):
            raise Fault(f"{name} = {found!r}; expected {' or '.join(map(str, values))}.")
    if not subject.kind.wants_backbone:
        return
    # Any module of the backbone counts: it may be inside another module of the method.
    ran: list[bool] = []
    backbones = [m for m in method.modules() if isinstance(m, tiny.TinyBackbone)]
    for module in (module for backbone in backbones for module in backbone.modules()):
        module.register_forward_pre_hook(lambda *_: ran.append(True))
    predict(method, subject.episode())
    method.train().losses(subject.training_episode())
    if not ran:
        raise Fault("losses() and predict() run no backbone; declare wants_backbone = False.")


@all_variants
def inductive(subject: MethodSubject) -> None:
    """Other queries change a prediction if it is declared transductive, and only then."""
    method, episode = subject.build().double(), subject.episode(dtype=torch.float64)
    others = subject.episode(seed=1, dtype=torch.float64).query
    query = torch.cat([episode.query[:, :1], others[:, 1:]], dim=1)
    whole, changed = predict(method, episode), predict(method, replace(episode, query=query))
    if method.transductive:
        if checks.max_difference(whole[:, :1], changed[:, :1]) <= EXACT:
            raise Fault("other queries change no prediction; remove transductive = True.")
        raise NotClaimed("it is transductive")
    advice = "other queries change a prediction; declare transductive = True."
    require_close(whole[:, :1], changed[:, :1], EXACT, advice)
    alone = predict(method, replace(episode, query=episode.query[:, :1]))
    require_close(whole[:, :1], alone, EXACT, advice)


def unlabeled_tasks(subject: MethodSubject) -> None:
    """unlabeled_losses gives [T] for each player, where unlabeled_tasks is declared."""
    if not subject.kind.unlabeled_tasks:
        raise NotClaimed("unlabeled_tasks = False")
    method, bare = subject.build().train(), without_labels(subject.episode())
    for name, value in method.unlabeled_losses(bare).players.items():
        if value.shape != (len(bare),) or not bool(value.isfinite().all()):
            raise Fault(
                f"the loss of '{name}' is {value.tolist()}; expected {len(bare)} finite numbers."
            )


@all_variants
def at_run_time(subject: MethodSubject) -> None:
    """The inspection before a run finds nothing: no statistics over tasks, no draws without a key.

    See :mod:`fewshot_bench.engine.inspection`.
    """
    method = subject.build()
    executor, test = Eager(method), subject.episode()
    inspect_test(executor, test)
    if check_players(method):
        notes = inspect_training(executor, subject.training_episode(), test)
        if notes:
            raise Fault(f"{notes[0]}.")


@small_images
@all_variants
def modes(subject: MethodSubject) -> None:
    """After some training, evaluation mode classifies about as well as training mode does."""
    tested, queries = subject.tested()
    method, episode = subject.trained, subject.source("test").batch(range(EPISODES))
    logits = predict(method, episode, training=True)
    method.eval()
    trained = float(accuracy(logits, episode.target).mean())
    if far_behind(trained, tested, subject.task.way, queries):
        raise Fault(
            f"accuracy {trained:.1%} in training mode and {tested:.1%} in evaluation mode with the "
            f"same weights (chance is {1 / subject.task.way:.1%}): the test runs something else "
            "than was trained. Running statistics that no pass in training mode updates, or a "
            "branch on self.training?"
        )


@all_variants
def query_order(subject: MethodSubject) -> None:
    """The order of the queries does not change their predictions."""
    method, episode = subject.build().double(), subject.episode(dtype=torch.float64)
    order = torch.arange(episode.query.shape[1]).flip(0)
    turned = replace(episode, query=episode.query[:, order])
    advice = "a prediction depends on the query's place; treat axis 1 of the queries as a set."
    require_close(predict(method, episode)[:, order], predict(method, turned), EXACT, advice)


def class_relabeling(subject: MethodSubject) -> None:
    """Relabeling the classes relabels the predictions, where class_equivariant is declared."""
    if not subject.kind.class_equivariant:
        raise NotClaimed("class_equivariant = False")
    method, episode = subject.build().double(), subject.episode(dtype=torch.float64)
    images = episode.support.images
    order = torch.arange(subject.task.way).roll(1)
    turned = replace(episode, support=replace(episode.support, images=images[:, order]))
    advice = (
        "predictions depend on a class's number; treat all alike, or class_equivariant = False."
    )
    require_close(predict(method, episode)[..., order], predict(method, turned), EXACT, advice)


def autocast(subject: MethodSubject) -> None:
    """Losses and gradients are finite and close under bf16 autocast, where it is declared."""
    if not subject.kind.autocast:
        raise NotClaimed("autocast = False")
    method, episode = subject.build().train(), subject.training_episode()
    owners = check_players(method)
    exact = differentiate(method, episode, owners, list(owners))
    with devices.autocast(torch.device("cpu"), torch.bfloat16):
        rough = differentiate(method, episode, owners, list(owners))
    for name, loss in exact.losses.items():
        advice = f"the loss of '{name}' is wrong in bf16; compute its distances in float32."
        require_close(rough.losses[name], loss, 0.1, advice)
    for name, gradient in rough.gradients.items():
        if not all(bool(g.isfinite().all()) for g in gradient):
            raise Fault(f"a gradient of player '{name}' is not finite in bf16.")


def embeds(subject: MethodSubject) -> None:
    """adapt and predict see images through embed alone, where embeds is declared."""
    if not subject.kind.embeds:
        raise NotClaimed("embeds = False")
    method: Any = subject.build().eval()
    episode = subject.episode()
    direct = predict(method, episode)
    images, _ = episode.support.labeled()
    with torch.no_grad():
        support = method.embedded(images).unflatten(1, (subject.task.way, subject.task.shot))
        query = method.embedded(episode.query)
    method.features_given = True
    features = replace(episode, support=replace(episode.support, images=support), query=query)
    advice = "it uses images without embed(); use embed() only, or declare embeds = False."
    require_close(direct, predict(method, features), TOLERANCE, advice)


def resume(subject: MethodSubject) -> None:
    """Training resumed from a checkpoint ends with the same weights as uninterrupted training."""
    if not check_players(subject.build()):
        raise NotClaimed("nothing trains")
    plan = Plan(steps=4, task_batch=2)

    def trainer(seed: int, steps: int) -> Trainer:
        method = subject.build(seed).train()
        trainer = Trainer(method, Eager(method), subject.source("train"), plan)
        for _ in range(steps):
            trainer.advance()
        return trainer

    whole, first, second = trainer(1, 4), trainer(1, 2), trainer(2, 0)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.save(first.step, first.state())
        saved = store.newest()
    assert saved is not None
    second.restore(saved)
    for _ in range(2):
        second.advance()
    advice = (
        "after resuming: a counter or other state that is neither a parameter nor a registered "
        "buffer, nor returned by get_extra_state()?"
    )
    unbroken = copy_weights(whole.method.state_dict())
    for name, value in copy_weights(second.method.state_dict()).items():
        if isinstance(value, Tensor):
            require_close(value, unbroken[name], 0.0, f"'{name}' {advice}")
        elif value != unbroken[name]:
            raise Fault(f"'{name}' is {value!r}, expected {unbroken[name]!r}, {advice}")


@small_images
def beats_chance(subject: MethodSubject) -> None:
    """A short training on separable images ends above chance on new classes."""
    (accuracy, queries), chance = subject.tested(), 1 / subject.task.way
    least = chance + 4 * math.sqrt(chance * (1 - chance) / queries)
    if not accuracy > least:
        raise Fault(
            f"accuracy {accuracy:.1%} after {STEPS} steps; expected above {least:.1%} (chance "
            f"{chance:.1%}). Does the loss compare logits and targets along the same axis?"
        )


def speed(subject: MethodSubject) -> str:
    """Time to learn and classify a task, compared with class means of pixels."""
    method, episode = subject.build().eval(), subject.episode(1)

    def baseline() -> Tensor:
        return -torch.cdist(episode.query.flatten(2), episode.support.images.flatten(3).mean(2))

    def seconds(call: Callable[[], Tensor]) -> float:
        return min(timeit.repeat(call, number=1, repeat=20))

    predict(method, episode)  # a warm-up
    own, floor = seconds(lambda: predict(method, episode)), seconds(baseline)
    return f"{1e3 * own:.3g} ms per task, {own / floor:.0f} times that of class means of pixels"


def precision(subject: MethodSubject) -> None:
    """A training step's gradients in float32 are those of float64, on images of characters."""
    labeled = subject.kind.source == "episodes"
    task = replace(subject.task, shot=5, query=15, image_shape=(1, 28, 28))
    try:
        method = replace(subject, task=task).build(0, tiny.CharacterBackbone)
        errors = [precision_error(method, tiny.character_episode(task, 0, labeled))]
    except (Fault, PluginError, ConfigError, RuntimeError, ValueError):
        # It works with the tiny images alone.
        method, errors, task = subject.build(), [], subject.task
    if not method.players():
        raise NotClaimed("nothing trains")
    for seed in range(len(errors), BATCHES):
        errors.append(precision_error(method, tiny.character_episode(task, seed, labeled)))
    for name in errors[0]:
        require_precise([each[name] for each in errors], f" of player '{name}'")


def require_precise(errors: list[float], whose: str = "") -> None:
    """Raise :class:`Fault` if the median error of float32 gradients is too large."""
    error = statistics.median(errors)
    if not error <= PRECISION:
        raise Fault(
            f"the float32 gradient{whose} differs by {error:.1e} from the float64 one (median of "
            f"{len(errors)} batches; tolerance {PRECISION:g}). Normalize with "
            "fewshot_bench.nn.TaskBatchNorm; sum many numbers with torch.sum instead of a loop; "
            "subtract a mean before squaring."
        )


METHOD_CHECKS = (
    builds_alike, options, shapes, dtypes, finite, repeatable, pure_losses, round_trip, players,
    gradients, independent_tasks, declarations, inductive, unlabeled_tasks, at_run_time, modes,
    query_order, class_relabeling, autocast, embeds, resume, beats_chance, speed,
)  # fmt: skip
