"""A table in words: what it shows, what the ± covers, what the differences mean."""

from collections.abc import Iterable, Sequence

from fewshot_bench.data.overlap import TRAINING
from fewshot_bench.results.comparison import Cell, Comparison, Difference, Row, Table
from fewshot_bench.results.record import VALIDATION
from fewshot_bench.results.runs import Setting, part_words, query_words, sampler_words
from fewshot_bench.results.stats import INTERVALS, UNEVEN, few_classes, use_words, what_it_covers
from fewshot_bench.results.training import against_words, differing, trained

BOLD = "Bold:"
TIED = "*:"  # begin the sentences on the marks; a format may mark otherwise
SEEN = "‡"  # beside an accuracy: some of its classes took part in training
MOST_NAMES = 4  # in one sentence
ROUNDING = 1e-9  # of an accuracy that is read from two files


def listed(names: Iterable[str]) -> str:
    """``a, b and c``; of many names the first ones and how many more there are."""
    names = list(names)
    if len(names) > MOST_NAMES:
        names = [*names[: MOST_NAMES - 1], f"{len(names) - MOST_NAMES + 1} more"]
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def heading(table: Table) -> str:
    """``omniglot (official), 15 queries per class, 600 closed episodes``."""
    protocol = table.protocol
    split = f" ({protocol['split']})" if protocol["split"] else ""
    within = " of one family each" if protocol["within_family"] else ""
    return (
        f"{table.dataset}{split}{part_words(protocol)}, {query_words(protocol)}, "
        f"{protocol['episodes']} {protocol['sampling']} episodes{within}{sampler_words(protocol)}"
    )


def apart(table: Table) -> list[str]:
    """A sentence on why the table stands apart from the first one; none for the first."""
    why = "; ".join(table.differs)
    return [f"Not comparable with the first table: {why}."] if why else []


def level_text(table: Table, comparison: Comparison) -> str:
    """The confidence level of a table's intervals: ``95 %``."""
    return f"{100 * comparison.level_of(table):g} %"


def accuracy_words(table: Table, comparison: Comparison) -> list[str]:
    """What the ± covers and what the marks mean."""
    words = [*_intervals(table, comparison), *_class_use(table), *_marks(table)]
    words += trained_otherwise(table)
    if any(cell.transductive for _, _, cell in table.filled):
        seen = "all queries of a task are seen together"
        words.append(f"† transductive: {seen}; the others: inductive.")
    words += [*_evaluated(table), *_overlap(table), *_looks(table)]
    if comparison.baseline is not None and not any(table.baselines):
        words.append(f"No run of the baseline {comparison.baseline} is on these episodes.")
    return words


def _intervals(table: Table, comparison: Comparison) -> list[str]:
    cells = [cell for _, _, cell in table.filled if cell.interval.half_width is not None]
    kinds = [kind for kind in INTERVALS if any(cell.kind == kind for cell in cells)]
    words = []
    for kind in kinds:
        own = [cell for cell in cells if cell.kind == kind]
        several = any(len(cell.runs) > 1 for cell in own)
        where = " where there are several" if several else " where there is one training seed"
        where = where if len(kinds) > 1 else ""
        what = f"[ ]{where} is a" if kind in UNEVEN else f"±{where} is the half width of a"
        level = level_text(table, comparison)
        words.append(f"{what} {level} interval ({INTERVALS[kind]}). {_covers(kind, table)}")
        if counts := [c.interval.clusters for c in own if c.interval.clusters is not None]:
            words.append(few_classes(counts, comparison.level_of(table)))
    return words


def _class_use(table: Table) -> list[str]:
    """Where classes fill the episodes unevenly: a sentence for each kind of unevenness."""
    found: dict[str, list[str]] = {}
    for setting, _, cell in table.filled:
        test = cell.runs[0].record["test"]
        if words := use_words(test["class_use"], test["sampling"]):
            found.setdefault(words, []).append(str(setting))
    if len(found) == 1 and len(table.settings) == 1:
        return list(found)
    return [f"{listed(dict.fromkeys(at))}: {words}" for words, at in found.items()]


def _covers(kind: str, table: Table) -> str:
    """What an interval covers, for the split that was evaluated."""
    words = what_it_covers(kind, table.protocol["sampling"])
    return words.replace("test", str(table.protocol["part"]))


def _marks(table: Table) -> list[str]:
    marks = {cell.mark for _, _, cell in table.filled}
    tests = "paired tests of all pairs of the column, Holm-corrected at 5 %"
    words = []
    if "best" in marks:
        words.append(f"{BOLD} better than every other method of its column ({tests}).")
    if "tied" in marks:
        highest = "the highest accuracy, or not significantly different from it"
        words.append(f"{TIED} {highest} ({tests}).")
    for at, setting in enumerate(table.settings):
        tied = [row.name for row, cell in table.entries(at) if cell.mark == "tied"]
        if len(tied) > 1:
            words.append(f"Tied on {setting}: {listed(tied)}.")
    if marks > {""} and any(len(cell.runs) == 1 and cell.trained for _, _, cell in table.filled):
        words.append("Where there is one training, other seeds may give another result.")
    return words


def trained_otherwise(table: Table) -> list[str]:
    """In what the trainings of a column's rows differ; empty where they do not."""
    idle = [row.name for row in table.rows if not trained(row.runs)]
    words = []
    if heads := ", ".join(trait.label for trait in table.training_differs):
        words.append(
            f"Training differs between the rows of a column: {heads}. A difference in accuracy is "
            "one of methods and trainings together."
        )
    if idle and len(idle) < len(table.rows):
        words.append(f"Nothing is trained in {listed(idle)}.")
    return words


def training_words(table: Table, shown: Sequence[str]) -> list[str]:
    """What the columns of the trainings are, whose texts are ``shown``."""
    names = {trait.name for trait in table.training_differs}
    words = ["Only what differs is shown."]
    if any("; " in text for text in shown):
        words.append("Behind a semicolon: the next setting, where it has another value.")
    if any("chosen" in text for text in shown):
        words.append("Chosen: the step whose weights validation preferred.")
    if "images" in names:
        words.append("Images seen: steps x batches a step x tasks x images of a task.")
    return [*words, "fsb compare METHOD ... --equal NAMES trains all rows in the same way."]


def best_sentences(table: Table) -> list[str]:
    """One plain sentence per setting on its highest accuracy: ``... has the highest accuracy``."""
    words = []
    for at, setting in enumerate(table.settings):
        entries = table.entries(at)
        best, cell = max(entries, key=lambda one: one[1].accuracy)
        if len(entries) == 1:
            words.append(f"On {setting}, {best.name} stands alone{_best_of(cell)}.")
            continue
        name = _subject(best, cell, len(cell.runs) > 1)
        accuracy = f"{100 * cell.accuracy:.2f} %{_best_of(cell)}"
        tied = [row.name for row, one in entries if one.mark == "tied" and row is not best]
        more = ""
        if cell.mark == "best":
            more = ", and the difference from every other method survives Holm's correction"
        elif tied:
            more = f"; it is not significantly different from that of {listed(tied)}"
        more += _other_trainings(best, cell, entries)
        words.append(f"On {setting}, {name} has the highest accuracy, {accuracy}{more}.")
    return words


def _other_trainings(best: Row, cell: Cell, rows: Sequence[tuple[Row, Cell]]) -> str:
    """``; its training differs from that of maml (way, steps)``; empty where none does."""
    words = []
    for row, other in rows:
        heads = [trait.label for trait in differing([cell.runs, other.runs])]
        if trained(cell.runs) != trained(other.runs):
            heads.insert(0, f"only {(best if cell.trained else row).name} is trained")
        if heads:
            words.append(f"{row.name} ({', '.join(heads)})")
    return f"; its training differs from that of {listed(words)}" if words else ""


def _evaluated(table: Table) -> list[str]:
    """Of cells whose weights were trained for another task, by another run."""
    words = []
    for setting, row, cell in table.filled:
        record = cell.runs[0].record
        way, shot = record["train_task"]["way"], record["train_task"]["shot"]
        if record["evaluated_from"] and (way, shot) != setting[:2]:
            words.append(f"{row.name} on {setting}: weights trained on {way}-way {shot}-shot.")
    return words


def _overlap(table: Table) -> list[str]:
    """A sentence for each cell whose classes took part in training or validation."""
    words = []
    for setting, row, cell in table.filled:
        if (overlap := cell.overlap) is None:
            continue
        parts = listed(part for part in (TRAINING, VALIDATION) if overlap[part])
        names = listed(str(one["class"]) for one in overlap["found"])
        where = f" on {setting}" if len(table.settings) > 1 else ""
        words.append(
            f"{SEEN} {row.name}{where}: {overlap['classes']} of its {overlap['of']} "
            f"{table.protocol['part']} classes took part in {parts} ({names})."
        )
    return words


def _looks(table: Table) -> list[str]:
    """How many configurations of each method were tested here, where one was more than once."""
    counts: dict[str, dict[int, list[str]]] = {}
    for setting, row, cell in table.filled:
        if cell.looks is not None:
            of_method = counts.setdefault(row.method, {})
            of_method.setdefault(cell.looks.configurations, []).append(str(setting))
    if max((count for of_method in counts.values() for count in of_method), default=0) < 2:
        return []
    several = [
        f"{method} {count}" + (f" ({listed(dict.fromkeys(at))})" if len(of_method) > 1 else "")
        for method, of_method in counts.items()
        for count, at in of_method.items()
    ]
    return [
        "Looks at the test split, configurations of one method that were tested, of all runs in "
        f"the folder: {', '.join(several)}. Training seeds are no looks. The best of several is "
        "too high by the choice, unless validation made it."
    ]


def _best_of(cell: Cell) -> str:
    """`` (best of 12 looks at the test split)``; empty where there was one."""
    if cell.looks is None or cell.looks.configurations < 2:
        return ""
    which = "best" if cell.accuracy > cell.looks.best - ROUNDING else "one"
    return f" ({which} of {cell.looks.configurations} looks at the test split)"


def difference_words(table: Table, comparison: Comparison) -> list[str]:
    """What the columns of the differences are."""
    differences = [difference for *_, difference in table.paired]
    tests = sum(one.paired.p_t is not None for one in differences)
    names = listed(dict.fromkeys(one.baseline.name for one in differences))
    over = any(one.seeds for one in differences)
    seeds = " (over seeds and episodes where both have several training seeds)" if over else ""
    level, plural = level_text(table, comparison), "s" if tests != 1 else ""
    words = [
        f"Differences from {names} on the same episodes, in points, with {level} intervals. p: "
        f"paired t test{seeds}, and after Holm's correction over {tests} test{plural} (all of this "
        "table). d_z: mean difference over its standard deviation."
    ]
    for kind, over_seeds in (("student", False), ("hierarchical", True)):  # whatever --interval is
        if any(bool(one.seeds) == over_seeds and one.paired.varies for one in differences):
            covers = _covers(kind, table).replace("It", "it", 1)
            words.append(f"The interval of a difference ({INTERVALS[kind]}): {covers}")
    missing = [str(s) for s, row in zip(table.settings, table.baselines, strict=True) if not row]
    if missing:
        words.append(f"No run of the baseline on {listed(missing)}.")
    return words


def sentences(table: Table, comparison: Comparison) -> list[str]:
    """One plain sentence per difference."""
    level = level_text(table, comparison)
    return [_sentence(*parts, level) for parts in table.paired]


def _sentence(setting: Setting, row: Row, cell: Cell, difference: Difference, level: str) -> str:
    """``On 5-way 1-shot, this trained a is better than this trained b by 0.31 points ...``."""
    paired, reference, over_seeds = difference.paired, difference.reference, difference.seeds > 0
    one = _subject(row, cell, over_seeds)
    other = _subject(difference.baseline, reference, over_seeds)
    points = f"{100 * abs(paired.difference):.2f} points"
    better = "better" if paired.difference > 0 else "worse"
    verb = "are on average" if one.startswith("the ") else "is"
    where = f"over {difference.seeds} training seeds of each" if over_seeds else "on these episodes"
    trainings = against_words(cell.runs, reference.runs)
    training = f", {trainings}" if trainings else ""
    start = f"On {setting}, {one} {verb} {better} than {other} by {points}"
    if difference.p_holm is None or paired.low is None or paired.high is None:
        if paired.n == 1:
            return f"{start}{training}; one episode allows no test."
        if not paired.difference:
            return f"On {setting}, {one} and {other} score the same on every episode{training}."
        return f"{start} on every episode{training}; without variation there is no test."
    p = f"p = {difference.p_holm:.3f}" if difference.p_holm >= 1e-3 else "p < 0.001"
    p += " after Holm"
    if difference.found:
        sign = 1 if paired.difference > 0 else -1
        low, high = sorted(100 * sign * end for end in (paired.low, paired.high))
        return f"{start} ({level} interval {low:.2f} to {high:.2f}; {p}) {where}{training}."
    text = (
        f"On {setting}, no difference found between {one} and {other} "
        f"({100 * paired.difference:+.2f} points, {level} interval {100 * paired.low:+.2f} to "
        f"{100 * paired.high:+.2f}; {p}) {where}{training}"
    )
    if difference.detectable is None:
        return f"{text}."
    found = f"{100 * difference.detectable:.2f} points would have been (power 80 %)"
    given = f"{difference.seeds} seeds and " if over_seeds else ""
    start = f"{text}. With" if training else f"{text}: with"
    return f"{start} {given}{paired.n} episodes one of {'about ' * over_seeds}{found}."


def _subject(row: Row, cell: Cell, over_seeds: bool) -> str:
    if over_seeds or not cell.trained:
        return row.name
    if len(cell.runs) > 1:
        return f"the {len(cell.runs)} trainings of {row.name}"
    return f"this trained {row.name}"


def speed_words(table: Table, comparison: Comparison) -> list[str]:
    """Caption of the timing columns: clock, device, comparability."""
    words = []
    if any(len(cell.runs) > 1 for _, _, cell in table.filled):
        words.append("Times are medians over training seeds.")
    if comparison.target is not None:
        target = f"{100 * comparison.target:g} %"
        words.append(f"To {target}: seconds of training steps until validation first reached it.")
    if len(letters := devices(table)) > 1:
        named = "; ".join(f"{letter} {name}" for name, letter in letters.items())
        words.append(f"Times of different devices cannot be compared: {named}.")
    return words


def devices(table: Table) -> dict[str, str]:
    """A letter for each device whose times the table has."""
    names = dict.fromkeys(name for _, _, cell in table.filled for name in cell.speed.devices)
    return {name: chr(ord("A") + i) for i, name in enumerate(names)}
