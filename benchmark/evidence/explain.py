"""The trace of a cell: where its number comes from, how sure it is, and the command that makes it again."""

from dataclasses import asdict
from typing import Any

import numpy as np

from benchmark.errors import UserError, nearest, one_line
from benchmark.matrix import study
from benchmark.matrix.grid import EVALUATION
from benchmark.matrix.job import Job
from benchmark.matrix.matrix import Matrix
from benchmark.results.pairing import Samples, each_over
from benchmark.results.results import SINGLE_LABEL, Finished, Missing
from benchmark.stats import claims, intervals
from benchmark.store.code import changed_since
from benchmark.store.records import Code, Environment, Result
from benchmark.tables import published
from benchmark.tables.build import paired_over, shown
from benchmark.tables.cells import Cell, Table, TableOfRuns
from benchmark.tables.published import Spec

MAX_NAMES = 8  # of what changed since a run


def locate(address: str, specs: dict[str, Spec]) -> tuple[Spec, str, str]:
    """Table, row and column of `table2:cow:baseline`. UserError with the nearest names for a wrong one."""
    table, _, rest = address.partition(":")
    row, colon, column = rest.rpartition(":")
    if not colon:
        raise UserError(f"'{address}' is no cell; expected table:row:column, such as table2:mAP:baseline")
    if table not in specs:
        raise UserError(f"unknown table '{table}'" + nearest(table, specs))
    spec = specs[table]
    rows, columns = [r.key for r in spec.rows], [c.key for c in spec.columns]
    if row not in rows:
        raise UserError(f"{table} has no row '{row}'" + nearest(row, rows))
    if column not in columns:
        raise UserError(f"{table} has no column '{column}'" + nearest(column, columns))
    return spec, row, column


def trace(table: TableOfRuns, cell: Cell, samples: Samples) -> dict[str, Any]:
    """Everything about a cell as plain data; numbers in the table's unit. samples: of its runs and the baseline's."""
    spec, matrix, row = table.spec, table.matrix, table.row(cell)
    own = matrix.jobs_of(row.where, cell.column)
    spread = uncertainty(list(cell.values), each_over(samples, cell.runs, table.item(cell)))
    baseline = spec.columns[0].key
    column = next(c for c in spec.columns if c.key == cell.column)
    return {
        "address": f"{spec.name}:{cell.row}:{cell.column}",
        "scale": table.scale,
        "unit": row.unit or spec.unit,
        "status": cell.status,
        "value": {"mean": cell.mean, "std": cell.std, "n": cell.n, "planned": cell.planned}
        | {"std_binomial": _binomial(table, cell)}
        | clipped(spread, intervals.SHARES),
        "gain": None if cell.column == baseline else _gain(table, cell, samples),
        "verdicts": {
            "value": cell.verdict and asdict(cell.verdict),
            "gain": cell.gain_verdict and asdict(cell.gain_verdict),
            "order": asdict(table.orders[cell.row]) if cell.row in table.orders else None,
        },
        "published": {
            "value": cell.published, "gain": cell.published_gain, "over_classes": cell.published_over,
            "in_one_run": _in_one_run(cell) if table.comparable else None,
            "place": published.place(spec, cell.row, column.header), "discrepancies": spec.discrepancies,
        },
        "runs": [_run(table.results.of(job), job, cell) for job in own],
        "assumptions": assumptions(matrix, own),
        "deviations": sorted({text for job in own for text in matrix.grid.deviations(job)}),
        "command": matrix.command([baseline, cell.column], row.where),
    }  # fmt: skip


RULE = (
    "reproduced where the whole interval of the gain lies beyond half of the claim, not reproduced where it lies short"
    " of it, else inconclusive",
    "the interval is over seeds and test images; after {looks} seeds alone, each look at {level:.1%} (Bonferroni)",
    "of all claims that are judged in the headline a decision stands only where Holm's p is below 1 - that level",
)


def trace_claim(table: Table, cell: Cell, source: dict[str, Any]) -> dict[str, Any]:
    """A headline cell: the trace of the cell whose gain it shows, held against what the abstract claims, with the rule
    behind its verdict."""
    spec = table.spec
    column = next(c for c in spec.columns if c.key == cell.column)
    claimed, interval = cell.published, cell.gain_interval
    known = interval.estimate if interval else None
    ratio = claims.effect_ratio(known, claimed) if known and claimed else None
    size = claims.claim_size(claimed, interval) if interval and claimed else None
    gain = source["gain"] and source["gain"] | {
        "size": size, "share_of_claim": ratio and {"ratio": ratio[0], "interval": ratio[1]},
    }  # fmt: skip
    level = claims.level_of_look(spec.looks[0], spec.looks) if spec.looks else None
    rule = [text.format(looks=", ".join(map(str, spec.looks or ())), level=level or intervals.LEVEL) for text in RULE]
    told = [note for note in table.notes if note.startswith(("Verdicts", "Lock", "Exploratory"))]
    untested = {"outcome": "not run", "reason": f"untested: {cell.status}", "seeds": None}
    return source | {
        "address": f"{spec.name}:{cell.row}:{cell.column}", "shows": source["address"], "gain": gain,
        "verdicts": {"gain": asdict(cell.gain_verdict) if cell.gain_verdict else untested},
        "rule": rule + told + ([cell.lock] if cell.lock else []),
        "published": {
            "value": None, "gain": claimed, "over_classes": cell.published_over, "in_one_run": None,
            "place": published.place(spec, cell.row, column.header), "discrepancies": spec.discrepancies,
        },
    }  # fmt: skip


def _gain(table: TableOfRuns, cell: Cell, samples: Samples) -> dict[str, Any]:
    interval = cell.gain_interval
    known, claimed = interval.estimate if interval else None, cell.published_gain
    ratio = claims.effect_ratio(known, claimed) if known and claimed else None
    return {
        "over_method": table.row(cell).over.get(cell.column),
        "mean": cell.gain, "values": list(cell.gains), "std": intervals.sample_std(cell.gains),
        "interval": interval and [interval.low, interval.high], "over": interval and interval.over,
        "size": interval and cell.published_gain and claims.claim_size(cell.published_gain, interval),
        "share_of_claim": ratio and {"ratio": ratio[0], "interval": ratio[1]},
        "crosses": cell.crosses, "unpaired": list(cell.unpaired),
        "trained_by": _trained_by(table, cell) if cell.crosses else None,
        "smallest_detectable": known.detectable() if known and len(cell.gains) > 1 else None,
        "treatment": cell.treatment and asdict(cell.treatment) | {"told": cell.treatment.told},
        "sign_flip_p": intervals.sign_flip_p(cell.gains) if cell.gains else None,
    } | {
        name: value  # the interval of both is the table's, above
        for name, value in clipped(
            uncertainty(list(cell.gains), paired_over(samples, table, cell)), claims.BOUNDS
        ).items()
        if name != "interval_seeds_and_images"
    }  # fmt: skip


def _trained_by(table: TableOfRuns, cell: Cell) -> str:
    """The commits of the cell's runs and of the baseline's."""
    sides = []
    for side in (cell, table.baseline(cell)):
        codes = [found.record.code for found in table.results.finished(side.runs)]
        commits = [code.commit[:12] if code and code.commit else "an unnamed commit" for code in codes]
        sides.append(", ".join(dict.fromkeys(commits)) or "an unnamed commit")
    return f"{sides[0]}; the baseline by {sides[1]}"


def uncertainty(values: list[float], draws_NR: np.ndarray | None) -> dict[str, Any]:
    """Spread over seeds, sampling of test images, and both, each under its own name. draws_NR: the values, one a seed,
    in each sample of the test images."""
    sample_R = None if draws_NR is None else draws_NR.mean(axis=0)
    both = claims.gain_interval(values, draws_NR, bounds=None) if draws_NR is not None and len(values) > 1 else None
    return {
        "interval_seeds": intervals.t_interval(values),
        "std_images": None if sample_R is None else float(np.nanstd(sample_R, ddof=1)),
        "interval_images": _over_images(values, sample_R),
        "interval_seeds_and_images": both and (both.low, both.high),
    }


def clipped(measured: dict[str, Any], bounds: intervals.Interval) -> dict[str, Any]:
    """The uncertainties with each interval cut to what its quantity can be, in percent or in points."""
    return {
        name: intervals.clip(value, bounds) if name.startswith("interval") and value is not None else value
        for name, value in measured.items()
    }


def _over_images(values: list[float], sample_R: np.ndarray | None) -> intervals.Interval | None:
    if sample_R is None or not values:
        return None
    return intervals.image_interval(float(np.mean(values)), sample_R)


def _binomial(table: TableOfRuns, cell: Cell) -> float | None:
    """Standard error in points of one run's accuracy, from the number of test images alone; None for AP."""
    first = next(iter(table.results.finished(cell.runs[:1])), None)
    if table.item(cell) not in SINGLE_LABEL or first is None or cell.mean is None:
        return None
    record = first.record
    return 100 * intervals.binomial_std(cell.mean / 100, record.num_test) if record.num_test else None


def _in_one_run(cell: Cell) -> bool | None:
    """Whether the published number would be an ordinary single run of ours."""
    interval = intervals.prediction_interval(cell.values)
    return None if interval is None or cell.published is None else interval[0] <= cell.published <= interval[1]


def _run(found: Finished | Missing, job: Job, cell: Cell) -> dict[str, Any]:
    on, origin, failure = found.environment or Environment(), found.origin, found.failure
    damaged = [line for name, line in found.damage.items() if name.endswith(".json")]
    if damaged:
        return {"id": job.id, "seed": job.seed, "state": damaged[0]}
    record = found.record if isinstance(found, Finished) else Result(job=job.id)
    code = record.code or on.code
    by_seed = dict(zip(cell.seeds, cell.values, strict=True))
    return {
        "id": job.id, "seed": job.seed, "state": found.state, "value": by_seed.get(job.seed),
        "unverified": found.unverified if isinstance(found, Finished) else "", "origin": origin and origin.name,
        "seconds": record.seconds, "epoch": record.epoch,
        "best_on_test": record.best_on_test and record.best_on_test.model_dump(exclude_none=True),
        "error": failure and failure.error, "commit": code and code.commit, "dirty": code and code.dirty,
        "code": code_state(code), "device": on.device, "python": on.python, "packages": on.packages,
        "machine": on.machine.model_dump(), "threads": on.threads,
    }  # fmt: skip


def code_state(code: Code | None) -> str:
    """Whether what trains differs now from the run's commit: current, stale (with what changed), or unknown."""
    if code is None or code.commit is None:
        return "unknown: the run names no commit"
    if code.study is not None and code.study != study.at_hand().sha256:
        return "stale: the study's methods.py is another" if study.at_hand().sha256 else "unknown: of another study"
    changed = changed_since(code.commit)
    if changed is None:
        return f"unknown: commit {code.commit[:12]} is not in this checkout"
    uncommitted = "; it ran with uncommitted changes, so 'verify' and 'import' do not take it" if code.dirty else ""
    if not changed:
        return "current" + uncommitted
    more = f" and {len(changed) - MAX_NAMES} more" if len(changed) > MAX_NAMES else ""
    return f"stale: changed since are {', '.join(changed[:MAX_NAMES])}{more}{uncommitted}"


def assumptions(matrix: Matrix, jobs: list[Job]) -> list[dict[str, Any]]:
    """Those that these jobs read, at the value that they ran with."""
    lines = []
    for name, assumption in matrix.grid.assumptions.items():
        if name in EVALUATION:
            values = [matrix.definition if name == "ap_definition" else assumption.value]
        else:
            values = [v for v in dict.fromkeys(job.value(name) for job in jobs) if v is not None]
        if values:
            others = [shown(v) for v in (assumption.value, *assumption.alternatives) if v not in values]
            value = "/".join(map(shown, values))
            lines.append({"name": name, "value": value, "alternatives": others, "why": assumption.why})
    return lines


def text(cell_trace: dict[str, Any]) -> str:
    """The trace for people."""
    lines = [f"{cell_trace['address']} at scale {cell_trace['scale']}, in {cell_trace['unit']}"]
    lines += [f"the gain of {cell_trace['shows']}"] if "shows" in cell_trace else []
    for name, rows in sections(cell_trace):
        lines += ["", *(f"{name if i == 0 else '':<13}{row}" for i, row in enumerate(rows))]
    return "\n".join(lines)


def sections(cell_trace: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The trace as named lists of lines, for a terminal or a page."""
    value, gain = cell_trace["value"], cell_trace["gain"]
    parts = [("ours", [cell_trace["status"] if value["mean"] is None else _estimate(value), *_measures(value)])]
    if gain is not None:
        parts.append(("gain", _gain_lines(gain)))
    parts += [
        ("paper", _published_lines(cell_trace["published"])),
        ("verdicts", _verdict_lines(cell_trace["verdicts"])),
        *([("rule", cell_trace["rule"])] if "rule" in cell_trace else []),
        ("runs", [line for run in cell_trace["runs"] for line in _run_lines(run)] or ["none planned"]),
        ("assumptions", [_assumption_line(assumption) for assumption in cell_trace["assumptions"]]),
        ("deviations", cell_trace["deviations"] or ["none"]),
        ("again", [cell_trace["command"]]),
    ]
    return parts


def _gain_lines(gain: dict[str, Any]) -> list[str]:
    if gain["mean"] is None:
        return ["no pair of runs"]
    by_seed = ", ".join(f"{v:+.2f}" for v in gain["values"])
    lines = [f"{gain['mean']:+.2f} over {gain['over_method'] or 'the baseline'}, by seed {by_seed}"]
    if gain["interval"]:
        lines.append(f"[{gain['interval'][0]:+.2f}, {gain['interval'][1]:+.2f}] 95% over {gain['over']}, as in tables")
    lines += _measures(gain, sign="+")
    if gain["smallest_detectable"] is not None:
        lines.append(f"{gain['smallest_detectable']:.2f}: smallest gain that such runs tell from zero 4 times in 5")
    if gain["sign_flip_p"] is not None and len(gain["values"]) > 1:
        least = 2 / 2 ** len(gain["values"])
        lines.append(f"sign-flip test: p = {gain['sign_flip_p']:.3g} (the least possible: {least:.3g})")
    if gain["share_of_claim"]:
        ratio, interval = gain["share_of_claim"]["ratio"], gain["share_of_claim"]["interval"]
        span = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
        lines.append(f"{ratio:.2f}{span} of the paper's gain: {gain['size']}")
    lines += [f"treatment: {gain['treatment']['told']}"] if gain["treatment"] else []
    blank = gain["treatment"]["blank"] if gain["treatment"] else {}
    if blank:
        shares = ", ".join(f"{name} {ours:.0%} ({theirs:.0%})" for name, (ours, theirs) in blank.items())
        lines.append(f"maps that are blank, in parentheses of what it is compared with: {shares}")
    lines += [f"not all trained by one version of the training code: {gain['trained_by']}"] if gain["crosses"] else []
    return [*lines, *gain["unpaired"]]


def _published_lines(printed: dict[str, Any]) -> list[str]:
    numbers = [] if printed["value"] is None else [f"{printed['value']:g}"]
    numbers += [] if printed["gain"] is None else [f"a gain of {printed['gain']:+.2f}"]
    classes = printed["over_classes"]
    over = f", taken anew over the {classes} classes that ours is over" if classes else ""
    lines = [
        (", ".join(numbers) or "not published") + over,
        printed["place"],
        *(f"in the paper: {text}" for text in printed["discrepancies"]),
    ]
    if printed["in_one_run"] is not None:
        lines.append(f"{'within' if printed['in_one_run'] else 'outside'} the 95% range of a single run of ours")
    return lines


def _assumption_line(assumption: dict[str, Any]) -> str:
    others = f" (or {', '.join(assumption['alternatives'])})" if assumption["alternatives"] else ""
    return f"{assumption['name']} {assumption['value']}{others}"


def _verdict_lines(verdicts: dict[str, dict[str, Any] | None]) -> list[str]:
    """One line for each different answer, with the levels that it answers."""
    answers: dict[str, list[str]] = {}
    for level, verdict in verdicts.items():
        if verdict:
            answers.setdefault(f"{verdict['outcome']} ({verdict['reason']})", []).append(level)
    return [f"{', '.join(levels)}: {answer}" for answer, levels in answers.items()] or ["nothing to judge by"]


def _estimate(value: dict[str, Any]) -> str:
    spread = "" if value["std"] is None else f" ± {value['std']:.2f} (sample standard deviation)"
    return f"{value['mean']:.2f}{spread}, {value['n']} of {value['planned']} seeds"


def _measures(measured: dict[str, Any], sign: str = "") -> list[str]:
    """Each uncertainty under its own name; sign "+": of differences."""
    named = {
        "interval_seeds": "95% over seeds, these test images (t, by their own spread)",
        "interval_images": "95% over test images, these seeds (bootstrap)",
        "interval_seeds_and_images": "95% over both",
    }
    rows = [
        f"[{measured[k][0]:{sign}.2f}, {measured[k][1]:{sign}.2f}] {name}"
        for k, name in named.items()
        if measured.get(k)
    ]
    if measured.get("std_binomial") is not None:
        rows.append(f"{measured['std_binomial']:.2f} is the standard error of one run over test images (binomial)")
    return rows


def _run_lines(run: dict[str, Any]) -> list[str]:
    value = "" if run.get("value") is None else f" {run['value']:.2f}"
    lines = [f"seed {run['seed']}:{value} {run['state']}  {run['id']}"]
    if run.get("unverified"):
        lines.append(f"    unverified: {run['unverified']}")
    if run.get("origin"):
        lines.append(f"    made by {run['origin']}")
    if run.get("error"):
        lines.append(f"    {run['error']}")
    if run.get("commit"):
        lines.append(f"    code {run['commit'][:12]}: {run['code']}")
    elif run.get("value") is not None:
        lines.append(f"    code {run['code']}, so 'verify' and 'import' do not take it")
    if run.get("packages"):
        machine = (run.get("machine") or {}).get("processor")
        device = run["device"] if run["device"] != "cpu" or not machine else f"cpu ({machine})"
        lines.append(
            f"    on {device}, {run['threads']} threads, Python {run['python']}, torch {run['packages'].get('torch')}"
        )
    return [one_line(line) for line in lines]  # all of it is from the disk
