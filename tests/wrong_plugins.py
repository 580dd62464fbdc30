"""Wrong plugins: what each does, and the command that meets it.

``docs/reference/wrong-plugins.md`` is the table of these with the message that each gets;
``python -m tests.wrong_plugins`` writes it.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.command_line import InProcess
from tests.dist_info import write_dist_info

PAGE = Path(__file__).parents[1] / "docs/reference/wrong-plugins.md"
SMALL = (
    "--train-classes 6 --validation-classes 0 --test-classes 6 --way 3 --shot 1 --query 2 "
    "--episodes 2 --steps 1 --task-batch 2"
)
HEAD = "from fewshot_bench import Dataset, Method, hookimpl\n"
METHODS = "@hookimpl\ndef register_methods():\n    return {'wrong': 'wrong_plugin:Wrong'}\n"


@dataclass(frozen=True)
class Wrong:
    """A wrong plugin.

    Arguments:
        what: it does, for the table.
        source: of its hook module ``wrong_plugin``.
        typed: behind ``fsb``; the default shows its row.
        points: its ``entry_points.txt``.
    """

    what: str
    source: str
    typed: str = "plugins"
    points: str = field(default="[fewshot_bench]\nwrong_plugin = wrong_plugin\n")


def hook(kind: str, target: str, more: str = "") -> str:
    """A hook module that registers ``wrong`` as this kind."""
    return f"{HEAD}@hookimpl\ndef register_{kind}():\n    return {{'wrong': {target}}}\n{more}"


CASES = (
    Wrong("imports a module that is not installed", "import no_such_module"),
    Wrong("raises when it is imported", "[][0]"),
    Wrong("has a syntax error", "def register_methods(:\n    pass"),
    Wrong("ends the process when it is imported", "raise SystemExit(3)"),
    Wrong(
        "imports a name that a newer fewshot-bench has", "from fewshot_bench import Newer, hookimpl"
    ),
    Wrong(
        "says that it needs a newer interface", HEAD + "fewshot_bench_interface = 99\n" + METHODS
    ),
    Wrong("says so wrongly", HEAD + "fewshot_bench_interface = '1.0'\n" + METHODS),
    Wrong(
        "raises in a hook",
        HEAD + "@hookimpl\ndef register_methods():\n    raise RuntimeError('out of cheese')\n",
    ),
    Wrong(
        "returns a list of names",
        HEAD + "@hookimpl\ndef register_methods():\n    return ['wrong']\n",
    ),
    Wrong("returns a class, not its import string", hook("methods", "Method")),
    Wrong("returns an import string without an attribute", hook("methods", "'wrong_plugin'")),
    Wrong(
        "registers a name with a colon",
        HEAD + "@hookimpl\ndef register_methods():\n    return {'a:b': 'json:loads'}\n",
    ),
    Wrong(
        "misspells a hook",
        HEAD + "@hookimpl\ndef register_method():\n    return {}\n",
    ),
    Wrong(
        "misspells an argument",
        HEAD + "@hookimpl\ndef locate_dataset(nmae):\n    return None\n",
    ),
    Wrong(
        "asks for an argument that the hook does not give",
        HEAD + "@hookimpl\ndef register_methods(config):\n    return {}\n",
    ),
    Wrong("forgets @hookimpl", "def register_methods():\n    return {'wrong': 'json:loads'}\n"),
    Wrong(
        "wraps a hook",
        HEAD + "@hookimpl(wrapper=True)\ndef register_methods():\n    return (yield)\n",
    ),
    Wrong("implements no hook", "name = 'wrong'\n"),
    Wrong(
        "has an entry point that names no module",
        HEAD + METHODS,
        points="[fewshot_bench]\nwrong_plugin = wrong plugin\n",
    ),
    Wrong(
        "has an entry point to a module that is not there",
        HEAD + METHODS,
        points="[fewshot_bench]\nwrong_plugin = wrong_plugin.hooks\n",
    ),
    Wrong(
        "has an entry point to something in a module",
        HEAD + METHODS,
        points="[fewshot_bench]\nwrong_plugin = json:loads\n",
    ),
    Wrong("is installed with damaged metadata", HEAD + METHODS, points="[fewshot_bench]\n???\n"),
    Wrong(
        "offers one name twice",
        HEAD + METHODS,
        points="[fewshot_bench]\na = wrong_plugin\nb = wrong_plugin\n",
    ),
    Wrong(
        "registers a taken name (only the bare name is refused)",
        HEAD + "@hookimpl\ndef register_methods():\n    return {'maml': 'json:loads'}\n",
        "run maml",
    ),
    Wrong("cannot be imported, and is named", "import no_such_module", "run wrong-plugin"),
    Wrong("names a module that is not there", hook("methods", "'no_such_module:X'"), "run wrong"),
    Wrong("misspells its own class", hook("methods", "'json:laods'"), "run wrong"),
    Wrong("registers a function as a method", hook("methods", "'json:loads'"), "run wrong"),
    Wrong(
        "has an option without a default",
        hook("methods", "'wrong_plugin:Wrong'")
        + "class Wrong(Method):\n    def __init__(self, task, backbone, *, rate: float): ...\n",
        "run wrong",
    ),
    Wrong(
        "has an option that 'fsb run' has, too",
        hook("methods", "'wrong_plugin:Wrong'")
        + "class Wrong(Method):\n    def __init__(self, task, backbone, *, steps: int = 3): ...\n",
        "run wrong",
    ),
    Wrong(
        "declares something else as its presets",
        hook("methods", "'wrong_plugin:Wrong'")
        + "class Wrong(Method):\n    presets = {'quick': ['steps', 3]}\n",
        "run wrong",
    ),
    Wrong(
        "raises when it is built",
        hook("methods", "'wrong_plugin:Wrong'")
        + "class Wrong(Method):\n    def __init__(self, task, backbone, *, rate: float = 0.5):\n"
        "        raise ValueError(f'rate {rate} is odd')\n",
        f"run wrong {SMALL}",
    ),
    Wrong(
        "gives logits of a wrong shape",
        hook("methods", "'wrong_plugin:Wrong'")
        + "class Wrong(Method):\n    wants_backbone = False\n"
        "    def adapt(self, support):\n        return support.key\n"
        "    def predict(self, state, query):\n        return query.flatten(2).mean(2)\n",
        f"run wrong {SMALL}",
    ),
    Wrong(
        "raises while it learns a task",
        hook("methods", "'wrong_plugin:Wrong'")
        + "class Wrong(Method):\n    wants_backbone = False\n"
        "    def adapt(self, support):\n        return support.labels\n",
        f"run wrong {SMALL}",
    ),
    Wrong(
        "registers a backbone without out_shape",
        hook("backbones", "'wrong_plugin:thin'")
        + "def thin(image_shape):\n    import torch\n    return torch.nn.Flatten()\n",
        f"run protonet --backbone wrong {SMALL}",
    ),
    Wrong(
        "loads no splits",
        hook("datasets", "'wrong_plugin:Pile'") + "class Pile(Dataset):\n    needs_files = False\n"
        "    def load(self, root, cache):\n        return {'train': [], 'test': []}\n",
        "run nearest-centroid --dataset wrong",
    ),
    Wrong(
        "registers a sampler that is none",
        hook("samplers", "'json:loads'"),
        "run nearest-centroid --sampling wrong",
    ),
    Wrong(
        "gives one score for all tasks",
        hook("metrics", "'wrong_plugin:score'")
        + "def score(logits, target):\n    return logits.mean()\n",
        f"run nearest-centroid --metric wrong {SMALL}",
    ),
    Wrong(
        "raises in an observer",
        hook("observers", "'wrong_plugin:Watcher'")
        + "class Watcher:\n    @hookimpl\n    def run_started(self, config):\n"
        "        raise RuntimeError('no desk')\n",
        f"run nearest-centroid --with wrong {SMALL}",
    ),
    Wrong(
        "misspells a hook of an observer",
        hook("observers", "'wrong_plugin:Watcher'")
        + "class Watcher:\n    @hookimpl\n    def run_start(self, config): ...\n",
        "run nearest-centroid --with wrong",
    ),
    Wrong(
        "forgets @hookimpl in an observer",
        hook("observers", "'wrong_plugin'") + "def run_started(config): ...\n",
    ),
    Wrong(
        "registers an observer without hooks",
        hook("observers", "'json:loads'"),
        "run nearest-centroid --with wrong",
    ),
    Wrong(
        "returns no folder (a warning; the command continues)",
        HEAD + "@hookimpl\ndef locate_dataset(name):\n    return 3\n",
        "data list",
    ),
    Wrong(
        "brings a command that is no typer app",
        HEAD + METHODS,
        "wrong",
        "[fewshot_bench.commands]\nwrong = json:loads\n",
    ),
)


@contextlib.contextmanager
def installed(wrong: Wrong, site: Path) -> Iterator[None]:
    """The plugin installed as ``wrong-plugin`` 1.0, for a while."""
    write_dist_info(site, "wrong-plugin", "1.0", wrong.points)
    (site / "wrong_plugin.py").write_text(wrong.source, "utf-8")
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        sys.modules.pop("wrong_plugin", None)


def message(wrong: Wrong, site: Path) -> str:
    """The message of ``fsb``: the row's last column, or the line on standard error."""
    words = wrong.typed.split()
    if "run" in words:
        words += ["--runs-dir", str(site / "runs"), "--cache-dir", str(site / "cache")]
    site.mkdir(exist_ok=True)
    with installed(wrong, site):
        answer = InProcess()(*words, at=site, COLUMNS="1000")
    if wrong.typed == "plugins":
        [line] = [line for line in answer.out.splitlines() if " broken " in line]
        assert "wrong-plugin" in line
        text = line.partition(" broken ")[2].strip()
    else:
        found = re.search(r"^(error|warning): .*", answer.err, re.MULTILINE)
        assert found, answer
        text = found[0]
    text = re.sub(r"\(/[^)]*\)", "(...)", text.replace(str(site), "SITE"))
    return re.sub(r"\s+", " ", text)


def row(wrong: Wrong) -> str:
    """Its row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        text = message(wrong, Path(folder).resolve() / "site")
    cells = (wrong.what, f"`fsb {wrong.typed.replace(SMALL, '...').strip()}`", f"`{text}`")
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def page() -> str:
    """The whole page."""
    return "\n".join(
        [
            "# Errors of plugins",
            "",
            "How to read this page: find the message that you got, or what your plugin does, in "
            "the table. The first column is",
            "a mistake in a plugin, the second the command that meets it, the third the message of "
            "`fsb`. `fsb plugins` shows the",
            "plugin's name, distribution and version in front of the message; the other commands "
            "name the plugin. Whatever is wrong,",
            "other plugins keep working. `SITE` is the folder where packages are installed, `...` "
            "options of a run of a few seconds.",
            "",
            "The tests make every row: each mistake is a plugin that is installed as "
            "`wrong-plugin` 1.0, and",
            "`python -m tests.wrong_plugins` writes this page. Faults outside of plugins: "
            "[faults and bad input](faults.md).",
            "",
            "| a plugin that | command | message |",
            "|---|---|---|",
            *map(row, CASES),
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
