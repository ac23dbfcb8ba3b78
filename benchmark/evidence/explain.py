"""The trace of a cell: where its number comes from, how sure it is, and the command that makes it again."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.errors import UserError, nearest
from benchmark.matrix.grid import EVALUATION, Grid
from benchmark.matrix.job import Job
from benchmark.store.code import changed_since
from benchmark.store.run import Run
from benchmark.tables import collect, published, stats
from benchmark.tables.build import paired_over, shown
from benchmark.tables.cells import Cell, Table
from benchmark.tables.published import Spec

MAX_NAMES = 8  # of what changed since a run


def locate(address: str, specs: dict[str, Spec]) -> tuple[Spec, str, str]:
    """Table, row and column of `table2:cow:icasc-a_ch`. UserError with the nearest names for a wrong one."""
    table, _, rest = address.partition(":")
    row, colon, column = rest.rpartition(":")
    if not colon:
        raise UserError(f"'{address}' is no cell; expected table:row:column, such as table2:mAP:icasc-a_ch")
    if table not in specs:
        raise UserError(f"unknown table '{table}'" + nearest(table, specs))
    spec = specs[table]
    rows, columns = [r.key for r in spec.rows], [c.key for c in spec.columns]
    if row not in rows:
        raise UserError(f"{table} has no row '{row}'" + nearest(row, rows))
    if column not in columns:
        raise UserError(f"{table} has no column '{column}'" + nearest(column, columns))
    return spec, row, column


def jobs_of(spec: Spec, grid: Grid, scale: str, jobs: list[Job], row: str, column: str) -> list[Job]:
    """The jobs that a cell shows."""
    where = next(r.where for r in spec.rows if r.key == row)
    stand_ins = grid.scales[scale].stand_ins
    return [
        job
        for job in jobs
        if job.method == column and all(getattr(job, f) == stand_ins.get(v, v) for f, v in where.items())
    ]


def trace(
    table: Table, grid: Grid, jobs: list[Job], runs: Path, cell: Cell, samples: collect.Samples, definition: str,
    sets: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Everything about a cell as plain data; numbers in the table's unit."""
    spec = table.spec
    own = jobs_of(spec, grid, table.scale, jobs, cell.row, cell.column)
    baseline = spec.columns[0].key
    row = next(r for r in spec.rows if r.key == cell.row)
    column = next(c for c in spec.columns if c.key == cell.column)
    return {
        "address": f"{spec.name}:{cell.row}:{cell.column}",
        "scale": table.scale,
        "unit": row.unit or spec.unit,
        "status": cell.status,
        "value": {"mean": cell.mean, "std": cell.std, "n": cell.n, "planned": cell.planned}
        | {"std_binomial": _binomial(runs, table.scale, cell, row.item or row.key)}
        | uncertainty(list(cell.values), collect.mean_over(samples, cell.runs, row.item or row.key)),
        "gain": None
        if cell.column == baseline
        else {"mean": cell.gain, "values": list(cell.gains), "std": stats.sample_std(cell.gains)}
        | {"sign_flip_p": stats.sign_flip_p(cell.gains) if cell.gains else None}
        | uncertainty(list(cell.gains), paired_over(samples, table, cell)),
        "verdicts": {
            "value": cell.verdict and asdict(cell.verdict),
            "gain": cell.gain_verdict and asdict(cell.gain_verdict),
            "order": asdict(table.orders[cell.row]) if cell.row in table.orders else None,
        },
        "published": {
            "value": cell.published, "gain": cell.published_gain,
            "in_one_run": _in_one_run(cell) if table.comparable else None,
            "place": published.place(spec, cell.row, column.header), "discrepancies": spec.discrepancies,
        },
        "runs": [_run(Run(runs / table.scale / job.id), job, cell) for job in own],
        "assumptions": assumptions(grid, own, definition),
        "deviations": sorted({text for job in own for text in grid.deviations(job)}),
        "command": command(grid, table.scale, sets, own, [baseline, cell.column], row.where),
    }  # fmt: skip


def uncertainty(values: list[float], sample_R: np.ndarray | None) -> dict[str, Any]:
    """Spread over seeds, sampling of test images, and both, each under its own name."""
    std = stats.sample_std(values)
    image_std = None if sample_R is None else float(np.nanstd(sample_R, ddof=1))
    return {
        "interval_seeds": stats.t_interval(values),
        "std_images": image_std,
        "interval_images": None if sample_R is None else stats.percentile_interval(sample_R),
        "interval_seeds_and_images": None if image_std is None else stats.combined_interval(values, image_std),
        "smallest_detectable": None if std is None else stats.smallest_detectable(std, len(values)),
    }


def _binomial(runs: Path, scale: str, cell: Cell, item: str) -> float | None:
    """Standard error in points of one run's accuracy, from the number of test images alone; None for AP."""
    if item not in collect.SINGLE_LABEL or not cell.runs or cell.mean is None:
        return None
    num_images = (Run(runs / scale / cell.runs[0]).read("result.json") or {}).get("num_test")
    return 100 * stats.binomial_std(cell.mean / 100, num_images) if num_images else None


def _in_one_run(cell: Cell) -> bool | None:
    """Whether the published number would be an ordinary single run of ours."""
    interval = stats.prediction_interval(cell.values)
    return None if interval is None or cell.published is None else interval[0] <= cell.published <= interval[1]


def _run(run: Run, job: Job, cell: Cell) -> dict[str, Any]:
    try:
        record, on = run.read("result.json") or {}, run.read("environment.json") or {}
        failure = run.read("failure.json") or {}
    except UserError as error:
        return {"id": run.id, "seed": job.seed, "state": str(error)}
    code = record.get("code") or on.get("code") or {}
    by_run = dict(zip(cell.seeds, cell.values, strict=True))
    return {
        "id": run.id, "seed": job.seed, "state": run.state(), "value": by_run.get(job.seed),
        "seconds": record.get("seconds"), "epoch": record.get("epoch"), "best_on_test": record.get("best_on_test"),
        "error": failure.get("error"), "commit": code.get("commit"), "dirty": code.get("dirty"),
        "code": code_state(code), "device": on.get("device"), "python": on.get("python"),
        "packages": on.get("packages"), "machine": on.get("machine"), "threads": on.get("threads"),
    }  # fmt: skip


def code_state(code: dict[str, Any]) -> str:
    """Whether what trains differs now from the run's commit: current, stale (with what changed), or unknown."""
    commit = code.get("commit")
    if commit is None:
        return "unknown: the run names no commit"
    changed = changed_since(commit)
    if changed is None:
        return f"unknown: commit {commit[:12]} is not in this checkout"
    uncommitted = "; it ran with uncommitted changes" if code.get("dirty") else ""
    if not changed:
        return "current" + uncommitted
    more = f" and {len(changed) - MAX_NAMES} more" if len(changed) > MAX_NAMES else ""
    return f"stale: changed since are {', '.join(changed[:MAX_NAMES])}{more}{uncommitted}"


def assumptions(grid: Grid, jobs: list[Job], definition: str) -> list[dict[str, Any]]:
    """Those that these jobs read, at the value that they ran with."""
    found = []
    for name, assumption in grid.assumptions.items():
        if name in EVALUATION:
            values = [definition if name == "ap_definition" else assumption.value]
        else:
            values = [v for v in dict.fromkeys(getattr(job, name) for job in jobs) if v is not None]
        if values:
            others = [shown(v) for v in (assumption.value, *assumption.alternatives) if v not in values]
            held = "/".join(map(shown, values))
            found.append({"name": name, "value": held, "alternatives": others, "why": assumption.why})
    return found


def command(
    grid: Grid, scale: str, sets: dict[str, Any], jobs: list[Job], methods: list[str], where: dict[str, Any]
) -> str:
    """The line that makes these jobs' numbers again, baseline included."""
    words = ["python", "-m", "benchmark", "run", "--grid", grid.name, "--scale", scale]
    for key, value in sets.items():
        words += ["--set", f"{key}={_yaml(value)}"]
    stand_ins = grid.scales[scale].stand_ins
    only = [f"method={m}" for m in dict.fromkeys(methods)] + [f"{k}={stand_ins.get(v, v)}" for k, v in where.items()]
    words += ["--only", ",".join(only)]
    if any(not job.dataset.endswith("-mini") for job in jobs):
        words += ["--data-root", "DIR"]
    if any(job.weights.startswith("sha256:") for job in jobs):
        words += ["--weights", "FILE"]
    return shlex.join(words)


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_yaml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def text(found: dict[str, Any]) -> str:
    """The trace for people."""
    lines = [f"{found['address']} at scale {found['scale']}, in {found['unit']}"]
    for name, rows in sections(found):
        lines += ["", *(f"{name if i == 0 else '':<13}{row}" for i, row in enumerate(rows))]
    return "\n".join(lines)


def sections(found: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The trace as named lists of lines, for a terminal or a page."""
    value, gain = found["value"], found["gain"]
    parts = [("ours", [found["status"] if value["mean"] is None else _estimate(value), *_measures(value)])]
    if gain is not None:
        parts.append(("gain", _gain_lines(gain)))
    parts += [
        ("paper", _published_lines(found["published"])),
        ("verdicts", _verdict_lines(found["verdicts"])),
        ("runs", [line for run in found["runs"] for line in _run_lines(run)] or ["none planned"]),
        ("assumptions", [_assumption_line(assumption) for assumption in found["assumptions"]]),
        ("deviations", found["deviations"] or ["none"]),
        ("again", [found["command"]]),
    ]
    return parts


def _gain_lines(gain: dict[str, Any]) -> list[str]:
    if gain["mean"] is None:
        return ["no pair of runs"]
    by_seed = ", ".join(f"{v:+.2f}" for v in gain["values"])
    lines = [f"{gain['mean']:+.2f} over the baseline, by seed {by_seed}", *_measures(gain)]
    if gain["sign_flip_p"] is not None:
        least = 2 / 2 ** len(gain["values"])
        lines.append(f"sign-flip test: p = {gain['sign_flip_p']:.3g} (the least possible: {least:.3g})")
    return lines


def _published_lines(printed: dict[str, Any]) -> list[str]:
    value = "not published" if printed["value"] is None else f"{printed['value']:g}"
    gain = "" if printed["gain"] is None else f", a gain of {printed['gain']:+.2f}"
    lines = [value + gain, printed["place"], *(f"in the paper: {text}" for text in printed["discrepancies"])]
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


def _measures(of: dict[str, Any]) -> list[str]:
    """Each uncertainty under its own name."""
    named = {
        "interval_seeds": "95% over seeds, these test images (t)",
        "interval_images": "95% over test images, these seeds (bootstrap)",
        "interval_seeds_and_images": "95% over both",
    }
    rows = [f"[{of[k][0]:.2f}, {of[k][1]:.2f}] {name}" for k, name in named.items() if of[k]]
    if of.get("std_binomial") is not None:
        rows.append(f"{of['std_binomial']:.2f} is the standard error of one run over test images (binomial)")
    if of["smallest_detectable"] is not None:
        rows.append(f"{of['smallest_detectable']:.2f} is the smallest effect that this many seeds show 4 times in 5")
    return rows


def _run_lines(run: dict[str, Any]) -> list[str]:
    value = "" if run.get("value") is None else f" {run['value']:.2f}"
    lines = [f"seed {run['seed']}:{value} {run['state']}  {run['id']}"]
    if run.get("error"):
        lines.append(f"    {run['error']}")
    if run.get("commit"):
        lines.append(f"    code {run['commit'][:12]}: {run['code']}")
    if run.get("packages"):
        machine = (run.get("machine") or {}).get("processor")
        device = run["device"] if run["device"] != "cpu" or not machine else f"cpu ({machine})"
        lines.append(
            f"    on {device}, {run['threads']} threads, Python {run['python']}, torch {run['packages']['torch']}"
        )
    return lines
