"""The pages that ``benchmarks/gpu/report.py`` makes of results."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fewshot_bench.config.schema import OPTION_FIELDS
from tests.gpu_measuring.gpu_scripts import BENCHMARKS, ROOT

MACHINE = {
    "date": "2026-12-24", "device": "NVIDIA H100", "short": "h100", "python": "3.12.3",
    "torch": "2.11.0", "environment": {"commit": "abc"}, "nvidia_smi": "NVIDIA H100, 580",
    "limits": {"flops": 5e13, "bytes": 3e12, "launch_us": 5.0},
    "products": {"fp32": 5e13, "tf32": 4e14, "bf16": 8e14},
}  # fmt: skip


def trained(item: str, ms: float, precision: str = "fp32", **more: Any) -> dict[str, Any]:
    return {
        "item": item, "engine": "graph", "strategy": None, "precision": precision,
        "ran_as": "graph", "step_ms": ms, "p95_ms": ms, "phases": {"sample": 0.02 * ms},
        "sampling_share": 0.02, "rate": 32e3 / ms, "unit": "tasks/s", "steps": 9,
        "flops_per_step": 2e11, "of_limit": 0.25, "peak_memory": 10**9, "said": [],
    } | more  # fmt: skip


def whole(*rows: dict[str, Any], error: str | None = None) -> dict[str, Any]:
    return {"rows": list(rows), "error": error, "seconds": 10.0}


@pytest.fixture
def made_up() -> dict[str, Any]:
    """Results of every part, none of them measured."""
    w1 = ("W1_second_order", "W1_first_order", "W1_one_shot_one_step")
    parts = {
        "machine": whole(MACHINE),
        "tests": whole(
            {"test": "test_gradients[maml]", "seconds": 1.0},
            {"test": "test_gradients[protonet]", "seconds": 1.0, "failure": "assert"},
            {"test": "test_the_same_bits[maml]", "seconds": 1.0},
            {"test": "test_the_same_bits[protonet]", "seconds": 1.0, "known": "does not repeat"},
        ),
        "repeat": whole(
            {"kind": "protonet", "switch": "none", "repeats": False, "apart": 1e-3, "step_ms": 2.0,
             "warned": []},
            {"kind": "protonet", "switch": "none", "looked": "one step", "broken_by": [
                {"operation": "aten.convolution_backward.default", "place": "in conv.py, line 12",
                 "inputs": ["float32[20, 64, 14, 14] channels-last"], "times": 3, "at": 5,
                 "of": 9}]},
            {"kind": "protonet", "switch": "cudnn.deterministic", "repeats": True, "apart": 0.0,
             "step_ms": 3.0, "warned": []},
        ),
        "precision": whole(
            {"method": "maml", "precision": "tf32", "accuracy": 0.9,
             "trained_minus_fp32": {"points": 0.5, "half_width": 1.0},
             "evaluated_minus_fp32": {"points": 0.01, "half_width": 0.02}},
        ),
        "agree": whole({"item": w1[0], "peer": "higher", "apart": 3e-6, "agrees": True}),
        "maml": whole(
            *(trained(item, 9.0) for item in w1), trained(w1[0], 5.0, "tf32"),
            trained(w1[0], 90.0, ran_as="eager"),
        ),
        "protonet": whole(trained("W2_5way", 0.6), trained("W2_5way", 0.4, "bf16")),
        "metagan": whole(trained("W5", 20.0, "tf32")),
        "evaluation": whole(
            {"item": "W4_maml", "way": "run", "ran_as": "graph", "precision": "fp32", "chunk": 200,
             "seconds": 0.3, "first_s": 1.0, "episodes": 600, "accuracy": 0.6},
            {"item": "W4_maml", "way": "eager", "ran_as": "eager", "precision": "fp32",
             "chunk": 200, "seconds": 1.3, "first_s": 2.0, "episodes": 600, "accuracy": 0.6},
            {"item": "W3", "rate": 5e4, "unit": "episodes/s", "of_limit": 0.1},
        ),
        "profile": whole(
            {"item": "W1_second_order", "precision": "tf32", "step_ms": 10.0,
             "kinds": {"sums": 4.0, "other": 4.0},
             "kernels": [{"kernel": "all", "ms": 8.0, "calls": 100.0}]},
        ),
        "peers": whole(
            *({"item": item, "peer": "higher", "unit": "tasks/s", "rate": 100.0, "turns": 3}
              for item in w1),
            {"item": w1[0], "peer": "learn2learn", "unit": "tasks/s", "error": "not there"},
            {"item": "W2_5way", "peer": "higher", "unit": "steps/s", "not_offered": "has none"},
        ),
        "rows": whole(
            {"row": "omniglot 5w1s maml paper", "began": "begun", "status": "interrupted",
             "step": 100, "steps": 60000, "seconds": 3.0, "left": "the end of it",
             "stopped": "1800 s to its end; others have their turn"},
            error="out of time before the end of it",
        ),
        "growth": whole(
            {"block": "tasks", "value": 1, "step_ms": 1.0, "work": 1, "peak_memory": 10**9},
            {"block": "tasks", "value": 512, "stopped": "OutOfMemoryError: too much"},
            {"block": "tasks", "full_from": 32, "stopped_by": "OutOfMemoryError: too much"},
        ),
    }  # fmt: skip
    return {"code": "0", "small": False, "minutes": 12.0, "parts": parts, "known": {}}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The pages that a report is written into."""
    for page in ("README.md", "docs/speed.md"):
        (tmp_path / "docs").mkdir(exist_ok=True)
        text = "Before.\n\n<!-- gpu: begin, of x-gpu.json -->\nold\n<!-- gpu: end -->\n\nBehind.\n"
        (tmp_path / page).write_text(text, "utf-8")
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    return tmp_path


def put(data: dict[str, Any], folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(data), "utf-8")
    return str(folder)


def test_a_report_has_every_stage(scripts: Any, made_up: Any, checkout: Path) -> None:
    folder = put(made_up, checkout / "DIR")
    assert scripts.report.main([folder, "--root", str(checkout)]) == 0
    results = checkout / "benchmarks/results"
    assert json.loads((results / "2026-12-24-h100-gpu.json").read_text("utf-8")) == made_up
    page = (results / "2026-12-24-h100-gpu.md").read_text("utf-8")
    for line in (
        "fp32 50, TF32 400, bf16 800",
        "at least 20 x the best peer | 35.6 x (3,556 against 100 tasks/s, higher) | 25% | met |",
        "at most 10 ms a step (fp32 or TF32) | 9 ms in fp32; 5 ms in TF32 | 25% | met |",
        "at most 0.5 ms a step (fp32 or TF32 or bf16) | 0.6 ms in fp32; 0.4 ms in bf16 | 25% | "
        "met in bf16 |",
        "| 20 ms in TF32 | 25% | met |",
        "600 MAML test episodes: at most 0.5 s | 0.3 s (fp32, 200 a call, graph) |  | met |",
        "| test_gradients | 1 | 1 | 0 | 0 | protonet |",
        "| test_the_same_bits | 1 | 0 | 1 | 0 | as known: protonet |",
        "| protonet | cudnn.deterministic | the same bits | 3 ms, x 1.50 |  |",
        "`aten.convolution_backward.default` in conv.py, line 12 of "
        "float32[20, 64, 14, 14] channels-last (3 times)",
        "| maml | TF32 | 90.00 | +0.01 ± 0.02 | +0.50 ± 1.00 |",
        "| W1_second_order | higher | 3.0e-06 | yes |",
        "8 ms in 100 kernels, of 10 ms a step in TF32 (no kernel runs in 20% of it): sums 50%, "
        "other 50%.",
        "| W1_second_order | learn2learn | not there |  |  |",
        "| W2_5way | higher | has none |  |  |",
        "| omniglot 5w1s maml paper | interrupted |  | 100 of 60000 | 3 | 1800 s to its end;",
        "| tasks | 1: 1 ms, 1.00 GB; 512: OutOfMemoryError: too much | 32 |",
        "Part `rows` is not whole: out of time before the end of it.",
        "| rows | 10 | out of time before the end of it |",
    ):
        assert line in page, line
    for name in ("README.md", "docs/speed.md"):
        text = (checkout / name).read_text("utf-8")
        assert text.startswith("Before.\n\n<!-- gpu: begin, of 2026-12-24-h100-gpu.json -->\n\n")
        assert text.endswith("\n\n<!-- gpu: end -->\n\nBehind.\n")
        assert "old" not in text
        assert (
            "| W1 MAML, second order, 32 tasks | 9 ms | 5 ms | 100 tasks/s (higher) | 35.6 |"
            in text
        )
    # Once more: the same; of another visit that day: a second file.
    assert scripts.report.main([folder, "--root", str(checkout)]) == 0
    assert len(list(results.glob("*.json"))) == 1
    put(made_up | {"code": "1"}, checkout / "DIR")
    assert scripts.report.main([folder, "--root", str(checkout)]) == 0
    assert (results / "2026-12-24-h100-2-gpu.json").exists()


def visit(checkout: Path, data: dict[str, Any], date: str, short: str, *parts: str) -> str:
    """A committed visit that has these parts, beside its machine."""
    data = copy.deepcopy(data) | {"code": date}
    data["parts"] = {name: data["parts"][name] for name in ("machine", *parts)}
    (row,) = data["parts"]["machine"]["rows"]
    row |= {"date": date, "device": f"NVIDIA {short.upper()}", "short": short}
    path = checkout / f"benchmarks/results/{date}-{short}-gpu.json"
    path.write_text(json.dumps(data), "utf-8")
    return str(path)


def lines_of(checkout: Path, start: str) -> list[str]:
    text = (checkout / "docs/speed.md").read_text("utf-8")
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_partial_visit_leaves_the_figures_of_earlier_ones(
    scripts: Any, made_up: Any, checkout: Path
) -> None:
    """And says which visit a figure is of; a ratio is of one card."""
    main, root = scripts.report.main, ["--root", str(checkout)]
    first = visit(checkout, made_up, "2026-12-01", "h100", *made_up["parts"])
    assert main([first, *root]) == 0
    before = (checkout / "README.md").read_text("utf-8")
    # Nothing that the pages have.
    assert main([visit(checkout, made_up, "2026-12-02", "h100", "tests"), *root]) == 0
    assert (checkout / "README.md").read_text("utf-8") == before
    assert "visit" not in before

    old = "[2026-12-01-h100](../benchmarks/results/2026-12-01-h100-gpu.md)"
    new = "[2026-12-03-h100](../benchmarks/results/2026-12-03-h100-gpu.md)"
    made_up["parts"]["metagan"] = whole(trained("W5", 12.0))
    assert main([visit(checkout, made_up, "2026-12-03", "h100", "metagan"), *root]) == 0
    (w5,) = lines_of(checkout, "| W5 MetaGAN of the tutorial, 32 tasks |")
    assert w5.split(" | ")[1:3] == ["12 ms", "20 ms"]
    assert w5.endswith(f"| fp32: {new}; TF32: {old} |")
    (w1,) = lines_of(checkout, "| W1 MAML, second order, 32 tasks |")
    assert w1.endswith(f"| 9 ms | 5 ms | 100 tasks/s (higher) | 35.6 | 25% | {old} |")
    assert len(lines_of(checkout, "| W1 MAML, second order, 32 tasks: at least 20 x")) == 1
    (w4,) = lines_of(checkout, "| W4 MAML")
    assert w4.endswith(f"| 0.3 s | unmeasured |  |  |  | {old} |")
    (asked,) = lines_of(checkout, "| 600 MAML")
    assert asked.endswith(f"| met | {old} |")
    assert lines_of(checkout, f"- {old}: one NVIDIA H100") != []
    assert lines_of(checkout, f"- {new}: one NVIDIA H100") != []
    (spent,) = lines_of(checkout, "- W1 MAML")
    assert f"({old})" in spent

    # Of another card, without peers: no ratio of two cards, and the rest stays.
    made_up["parts"]["maml"] = whole(trained("W1_second_order", 4.0))
    assert main([visit(checkout, made_up, "2026-12-04", "b200", "maml"), *root]) == 0
    other = "[2026-12-04-b200](../benchmarks/results/2026-12-04-b200-gpu.md)"
    (w1,) = lines_of(checkout, "| W1 MAML, second order, 32 tasks |")
    assert w1.endswith(f"| 4 ms | unmeasured |  |  | 25% | {other} |")
    (first_order,) = lines_of(checkout, "| W1 MAML, first order, 32 tasks |")
    assert first_order.endswith(
        f"| 9 ms | unmeasured | 100 tasks/s (higher) | 35.6 | 25% | {old} |"
    )
    # An older visit that is written again changes nothing.
    text = (checkout / "docs/speed.md").read_text("utf-8")
    assert main([first, *root]) == 0
    assert (checkout / "docs/speed.md").read_text("utf-8") == text


def test_the_newest_visit_of_a_day_is_the_newest(
    scripts: Any, made_up: Any, checkout: Path
) -> None:
    results = checkout / "benchmarks/results"
    for stem in ("2026-12-24-h100", *(f"2026-12-24-h100-{i}" for i in (2, 10))):
        (results / f"{stem}-gpu.json").write_text(json.dumps(made_up), "utf-8")
    (results / "2026-12-24-h100-before-gpu.json").write_text("{}", "utf-8")  # not of report.py
    files = [one.file.removesuffix("-gpu.json") for one in scripts.visits.visits(results)]
    assert files == ["2026-12-24-h100-10", "2026-12-24-h100-2", "2026-12-24-h100"]
    began = json.dumps(made_up | {"began": "2026-12-24T10:00:00+00:00"})
    (results / "2026-12-24-a100-gpu.json").write_text(began, "utf-8")
    assert scripts.visits.visits(results)[0].file == "2026-12-24-a100-gpu.json"


def test_results_of_a_cpu_are_none_of_a_gpu(
    scripts: Any, made_up: Any, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = {"device": "Some CPU, 2 cores", "short": "cpu-2core"}
    made_up["parts"]["machine"] = whole(MACHINE | machine)
    folder = put(made_up, checkout / "DIR")
    before = (checkout / "README.md").read_text("utf-8")
    for more in ([], ["--to", str(checkout / "to")]):
        assert scripts.report.main([folder, "--root", str(checkout), *more]) == 2
        assert capsys.readouterr().err == (
            "error: these results are of a CPU; measure.py and report.py are for those of a GPU\n"
        )
    assert not list((checkout / "benchmarks/results").iterdir())
    assert (checkout / "README.md").read_text("utf-8") == before
    # A rehearsal's page says what it is, and nothing of kernels that one thread did not see.
    put(made_up | {"small": True}, checkout / "DIR")
    to = checkout / "to"
    assert scripts.report.main([folder, "--root", str(checkout), "--to", str(to)]) == 0
    (page,) = to.glob("*.md")
    text = page.read_text("utf-8")
    assert "# Measured on a CPU: Some CPU" in text
    assert "8 ms in 100 kernels: sums 50%" in text
    assert "no kernel runs" not in text


def test_what_is_missing_is_unmeasured(scripts: Any, made_up: Any, checkout: Path) -> None:
    made_up["parts"] = {
        "machine": whole(MACHINE | {"products": None, "nvidia_smi": None}),
        "maml": whole({"item": "W1_second_order", "precision": "fp32", "error": "RuntimeError: no"},
                      error="exit code 1: no"),
        "evaluation": whole({"item": "W4_maml", "error": "no"}),
        "peers": whole(error="no time was left"),
        "profile": whole({"item": "W5", "error": "RuntimeError: no profile"}),
        "growth": whole({"block": "tasks", "value": 1, "error": "no"}, {"left": "the rest"}),
        "rows": whole({"row": "a row", "error": "exit status 2: error: no data"}),
        "repeat": whole({"kind": "maml", "switch": "none", "error": "no"}),
        "agree": whole({"item": "W1_first_order", "peer": "higher", "error": "not there"}),
    }  # fmt: skip
    folder = put(made_up, checkout / "DIR")
    before = (checkout / "README.md").read_text("utf-8")
    assert scripts.report.main([folder, "--root", str(checkout)]) == 0
    page = (checkout / "benchmarks/results/2026-12-24-h100-gpu.md").read_text("utf-8")
    asked = page.partition("## What was asked")[2].partition("##")[0]
    lines = [line for line in asked.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == 8
    assert all(line.endswith("| unmeasured |  | unmeasured |") for line in lines)
    assert "Part `maml` is not whole: exit code 1: no." in page
    assert "error: RuntimeError: no profile" in page
    assert "| a row | error | exit status 2: error: no data |" in page
    assert "| tests |  | not run |" in page
    assert (checkout / "README.md").read_text("utf-8") == before  # there is nothing to say


def test_a_part_that_was_left_to_published_results_is_read_from_there(
    scripts: Any, made_up: Any, checkout: Path
) -> None:
    results = checkout / "benchmarks/results"
    other = copy.deepcopy(made_up)
    other["parts"]["machine"]["rows"][0]["date"] = "2026-12-01"
    (results / "2026-12-01-h100-gpu.json").write_text(json.dumps(other), "utf-8")
    made_up["known"] = {"maml": "2026-12-01-h100-gpu.json"}
    del made_up["parts"]["maml"]
    assert scripts.report.main([put(made_up, checkout / "DIR"), "--root", str(checkout)]) == 0
    page = (results / "2026-12-24-h100-gpu.md").read_text("utf-8")
    assert "35.6 x" in page
    assert "| maml | 10 | whole (of 2026-12-01-h100-gpu.json) |" in page


def bars_of(scripts: Any, data: dict[str, Any]) -> dict[str, Any]:
    return {bar.asked: bar for bar in scripts.reading.bars(scripts.reading.Results(data))}


@pytest.mark.parametrize("measured", [("fp32", "tf32"), ("tf32",)])
def test_ours_over_a_peer_in_fp32_has_no_figure_of_tf32(
    scripts: Any, made_up: Any, measured: tuple[str, ...]
) -> None:
    own = {
        "item": "W4_maml", "way": "run", "ran_as": "graph", "chunk": 200, "first_s": 1.0,
        "episodes": 600,
    }  # fmt: skip
    rows = [own | {"precision": p, "seconds": {"fp32": 1.0, "tf32": 0.4}[p]} for p in measured]
    made_up["parts"]["evaluation"] = whole(*rows)
    peer = {"item": "W4_maml", "peer": "learn2learn", "unit": "tasks/s", "rate": 60.0, "turns": 3}
    made_up["parts"]["peers"] = whole(peer)
    results = scripts.reading.Results(made_up)
    line = scripts.report.section_peers(results)[-1]
    ratio = "10" if "fp32" in measured else ""
    assert line == f"| W4_maml | learn2learn | 60 tasks/s | 3 | {ratio} |"
    line = scripts.report.summary(results)[-1]
    full = "1 s" if "fp32" in measured else "unmeasured"
    assert line.endswith(f"| {full} | 0.4 s | 60 tasks/s (learn2learn) | {ratio} |  |")
    # Nor is a bar met that one precision alone meets, without saying so.
    bar = bars_of(scripts, made_up)["600 MAML test episodes: at most 0.5 s"]
    figures = {"fp32": "1 s (fp32, 200 a call, graph)", "tf32": "0.4 s (TF32, 200 a call, graph)"}
    assert bar.figure == "; ".join(figures[p] for p in measured)
    assert bar.verdict == ("met in TF32" if "fp32" in measured else "met")


def test_a_way_that_no_run_takes_is_no_figure_of_ours(scripts: Any, made_up: Any) -> None:
    """Grouped convolutions in a graph are timed beside the engine's own way."""
    made_up["parts"]["maml"] = whole(
        trained("W1_second_order", 12.0), trained("W1_second_order", 8.0, strategy="batched")
    )
    bar = bars_of(scripts, made_up)["W1 MAML, second order, 32 tasks: at most 10 ms a step "
                                    "(fp32 or TF32)"]  # fmt: skip
    assert (bar.figure, bar.verdict) == ("12 ms in fp32", "missed")


def test_a_switch_that_costs_the_graph_says_so(scripts: Any, made_up: Any) -> None:
    row = {"kind": "protonet", "repeats": True, "apart": 0.0}
    made_up["parts"]["repeat"] = whole(
        row | {"switch": "none", "step_ms": 2.0, "ran_as": "graph"},
        row | {"switch": "cudnn.deterministic", "step_ms": 3.0, "ran_as": "graph"},
        row | {"switch": "use_deterministic_algorithms", "step_ms": 12.0, "ran_as": "eager"},
    )
    lines = scripts.report.repeats(scripts.reading.Results(made_up))
    assert "| 3 ms, x 1.50 |" in lines[-2]
    assert "| 12 ms, x 6.00 (eager, not graph) |" in lines[-1]


def test_what_is_no_result_is_one_line(
    scripts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("{", "utf-8")
    (tmp_path / "other").write_text("[]", "utf-8")
    (tmp_path / "empty").write_text('{"parts": {}}', "utf-8")
    for name, said in (
        ("nothing", "cannot read"), ("text", "is no JSON"), ("other", "has no results"),
        ("empty", "not known what this was measured on"),
    ):  # fmt: skip
        assert scripts.report.main([str(tmp_path / name), "--to", str(tmp_path / "to")]) == 2
        assert said in capsys.readouterr().err


def test_a_finished_run_fills_its_row_of_the_published_table(scripts: Any) -> None:
    """And leaves the others as they are, whoever measured them."""
    published = scripts.published
    page = (BENCHMARKS / "results/published.md").read_text("utf-8")
    assert published.fill(page, []) == page
    figure = published.in_order(BENCHMARKS / "published.toml")[4]
    names = ["preset", "dataset", "way", "shot", "device", "checkpoint_every", "keep_checkpoints"]
    config = {"preset": "paper", "dataset": "omniglot", "way": 5, "shot": 1, "device": "cuda"}
    record = {
        "id": "maml-omniglot-5w1s-20261224T163530-5569", "method": "maml",
        "evaluated_from": None,
        "config": config | {name: {} for name in OPTION_FIELDS} | {
            "checkpoint_every": "8s", "keep_checkpoints": 1, "metrics": [], "observers": [],
            "sources": dict.fromkeys(names, "user"),
        },
        "test": {"accuracy": 0.986, "half_width": 0.002}, "training": {"seconds": 200.0},
        "environment": {"commit": "abc"}, "device": {"name": "NVIDIA H100"},
    }  # fmt: skip
    filled = published.fill(page, [SimpleNamespace(record=record)])
    changed = [
        (a, b) for a, b in zip(page.splitlines(), filled.splitlines(), strict=True) if a != b
    ]
    ((before, after),) = changed
    assert "unmeasured" in before
    assert figure.words in after
    assert "| 98.60 ± 0.20: `fsb run maml" in after
    assert "NVIDIA H100" in after


@pytest.mark.parametrize("name", ["README.md", "docs/speed.md"])
def test_the_pages_are_what_the_report_writes(scripts: Any, name: str) -> None:
    report, text = scripts.report, (ROOT / name).read_text("utf-8")
    results = BENCHMARKS / "results"
    together = scripts.visits.Together(scripts.visits.visits(results))
    assert report.filled(text, report.PAGES[name], together) == text
    for visit in together.visits:
        page = (results / visit.file).with_suffix(".md")
        assert report.page_of(results / visit.file, results) == page.read_text("utf-8")
