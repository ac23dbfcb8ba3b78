"""The commands that print the matrix: what would run, what has run, what it costs."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.cli.common import (
    CACHE,
    RUNS,
    TABLES,
    AllowOverlap,
    AllowPartial,
    AsJson,
    Cache,
    DataRoot,
    Only,
    Runs,
    ScaleName,
    Set,
    Tables,
    Weights,
    asked,
    of_what_is_there,
    print_rows,
    resolve_scale,
    selection,
)
from benchmark.errors import UserError, nearest
from benchmark.matrix import grid
from benchmark.matrix.grid import Grid
from benchmark.matrix.job import Job
from benchmark.matrix.matrix import Matrix
from benchmark.store import cost
from benchmark.store.run import STATES, Run, all_runs
from benchmark.tables import catalogue
from benchmark.tables.published import Spec

MAX_WARNINGS = 10  # of one kind


def plan(
    grid_name: Annotated[str | None, typer.Option("--grid", help="A file of benchmark/grids; default: all")] = None,
    scale: ScaleName = "auto",
    sets: Set = None,
    only: Only = None,
    data_root: DataRoot = None,
    allow_partial: AllowPartial = False,
    allow_overlap: AllowOverlap = False,
    weights: Weights = None,
    runs: Runs = RUNS,
    tables: Tables = TABLES,
    cache: Cache = CACHE,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu", help="Estimate costs there: h100, a100, v100, rtx4090, rtx3090, l4, or what a gpu-session found"
        ),
    ] = None,
    all_grids: Annotated[bool, typer.Option("--all", help="All grids, as without --grid")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the matrix of a grid, or of all: every job, its state, its hours by what jobs like it took, and how many
    seeds its claims take; with --gpu also memory and hours on that GPU, an estimate. Nothing runs."""
    from benchmark.results import same_data

    if all_grids and grid_name:
        raise UserError(f"--all with --grid {grid_name}: leave one of them out")
    if allow_partial and not grid_name:
        raise UserError("--allow-partial: name the grid with --grid")
    if allow_overlap and not grid_name:
        raise UserError("--allow-overlap: name the grid with --grid")
    estimate = estimates(gpu) if gpu else None
    listed: list[dict[str, Any]] = []
    counts, measured = [], cost.epoch_seconds(runs)
    specs = {} if as_json else catalogue.every(tables)
    for name in [grid_name] if grid_name else grid.names():
        try:
            its_scale = resolve_scale(name, scale, data_root, cache, allow_partial)[1]
        except UserError as error:
            if grid_name:
                raise
            print(f"warning: {name} is left out: {error}", file=sys.stderr)
            continue
        question = asked(its_scale, sets, weights, runs)
        if allow_partial or allow_overlap:
            question = of_what_is_there(question, name, only, data_root, cache, allow_partial, allow_overlap)
        matrix = question.matrix(name, selection(only))
        rows: list[dict[str, Any]] = []
        other = same_data.others(matrix.jobs, runs, data_root, cache)
        for job in matrix.jobs:
            hours, machine = cost.hours(job, measured) or (None, None)
            state = Run(matrix.folder(job)).state()
            rows.append({"id": job.id, "grid": name, "state": state, "hours": hours, "machine": machine})
            rows[-1] |= job.model_dump(mode="json") | {"other_data": other.get(job.id, [])}
            rows[-1] |= {"estimate": estimate(job)} if estimate else {}
        if not as_json:
            shown = [row | {"hours": "" if row["hours"] is None else f"{row['hours']:.3g}"} for row in rows]
            shown = [row | ({"state": f"{row['state']}, of other data"} if row["other_data"] else {}) for row in shown]
            shown = [row | printed(row["estimate"]) for row in shown] if estimate else shown
            columns = "id", *matrix.grid.matrix_axes(its_scale), "state", "hours"
            print_rows(shown, (*columns, *ESTIMATED) if estimate else columns)
            print_power(matrix, specs)
        listed += rows
        counts.append(f"{name}: {len(rows)} jobs at scale {its_scale}; {costs(rows)}{estimated(rows)}")
    print(json.dumps(listed, indent=1) if as_json else "\n".join(counts))
    if not as_json and len(counts) > 1:
        print(f"together: {len(listed)} jobs; {costs(listed)}{estimated(listed)}")
    if not as_json and estimate:
        print_trust()


ESTIMATED = "est. GiB", "est. GMAC", "est. GB", "est. kernels", "est. hours", "est. recorded"


def estimates(gpu: str) -> Callable[[Job], dict[str, Any]]:
    """What a job will need on a GPU, by the meter; jobs of one kind are counted once."""
    from benchmark.bench import meter

    if gpu in meter.GPUS:
        its = meter.GPUS[gpu]
    elif Path(gpu).suffix == ".jsonl":
        its = meter.measured_gpu(Path(gpu))
    else:
        raise UserError(f"--gpu {gpu}: no figures of it, nor a gpu-session's found.jsonl" + nearest(gpu, meter.GPUS))
    known: dict[str, dict[str, Any]] = {}

    def estimate(job: Job) -> dict[str, Any]:
        kind = job.model_copy(update={"seed": 0}).canonical_json()
        if kind not in known:
            known[kind] = asdict(meter.estimate(job, its))
        return known[kind]

    return estimate


def printed(estimate: dict[str, Any]) -> dict[str, str]:
    scaled = (
        estimate["peak_bytes"] / 2**30, estimate["multiply_adds"] / 1e9, estimate["bytes_moved"] / 1e9,
        estimate["kernels"], estimate["hours"], estimate["hours_recorded"],
    )  # fmt: skip
    return {
        name: f"{value:.3g}" if value < 1000 else f"{value:.0f}" for name, value in zip(ESTIMATED, scaled, strict=True)
    }


def print_trust() -> None:
    """What the estimates are of, and how far published figures are from such ones."""
    from benchmark.bench import meter

    shares = [share for _, share in meter.published_shares()]
    print(
        "estimates, none measured here: GiB at most; of a step multiply-adds, GB moved and kernels; hours on one GPU "
        "by its peaks, eager and with --cuda-graph.\nPublished trainings of ResNet-50 reach "
        f"{min(shares):.2f} to {max(shares):.2f} of what is estimated so: expect {1 / max(shares):.1f} to "
        f"{1 / min(shares):.1f} times the hours (docs/performance.md)"
    )


def estimated(rows: list[dict[str, Any]]) -> str:
    """Hours of all jobs, done or not: what it costs to check them."""
    if not rows or "estimate" not in rows[0]:
        return ""
    eager, recorded = (sum(row["estimate"][key] for row in rows) for key in ("hours", "hours_recorded"))
    return f"; estimate on one {rows[0]['estimate']['gpu']}: {eager:.3g} h, with recorded steps {recorded:.3g} h"


def print_power(matrix: Matrix, specs: dict[str, Spec]) -> None:
    """The seeds that each claim of a grid takes, where real data run."""
    from benchmark import data
    from benchmark.results.results import Results
    from benchmark.tables import build, seeds_needed

    claims = list(seeds_needed.claims_of_grid(matrix.grid.name, specs))
    if not claims or not matrix.grid.has_tables(matrix.scale) or all(data.find(j.dataset).draw for j in matrix.jobs):
        return
    built = {}
    if any(Run(matrix.folder(job)).state() == "done" for job in matrix.jobs):
        results = Results.read(matrix)
        sources = {claim.source.name: claim.source for claim in claims}
        built = {name: build.build(spec, results, resample=False) for name, spec in sources.items()}
    rows = []
    for claim in claims:
        cell = built[claim.source.name].cells[claim.of.key, claim.column] if built else None
        of = seeds_needed.text(seeds_needed.needs(claim, cell))
        rows.append({"claim": claim.address, "claimed": f"{claim.claimed:+.2f}", "seeds for a decision in 80%": of})
    print()
    print_rows(rows, tuple(rows[0]))
    print()


def costs(rows: list[dict[str, Any]]) -> str:
    """Hours of the jobs that are left, on one machine and on several."""
    left = [row for row in rows if row["state"] != "done"]
    known = [row["hours"] for row in left if row["hours"] is not None]
    if not left:
        return "all done"
    if not known:
        return "cost not measured"
    of = "" if len(known) == len(left) else f" for {len(known)} of the {len(left)} left, the others not measured"
    on = ", ".join(f"{cost.together(known, n):.3g} h on {n}" for n in cost.SLOTS)
    machines = sorted({row["machine"] for row in left if row["machine"]})
    return f"{on}{of} (as measured on {'; '.join(machines)})"


def status(
    grid_name: Annotated[str | None, typer.Option("--grid", help="Only this grid's jobs")] = None,
    scale: Annotated[str | None, typer.Option("--scale", help="Only this scale")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until nothing is left to run")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End what runs these jobs on this machine; all is kept")] = False,
    data_root: DataRoot = None,
    runs: Runs = RUNS,
    cache: Cache = CACHE,
    as_json: AsJson = False,
) -> None:
    """List the jobs under runs/ by state, whichever executor runs them."""
    from benchmark.executors import local, view
    from benchmark.results import same_data

    if watch and as_json:
        raise UserError("--watch with --json: leave one of them out")
    chosen = grid.load(grid_name) if grid_name else None
    grids = [chosen] if chosen else [grid.load(name) for name in grid.names()]
    scales = sorted({name for one in grids for name in one.scales} | {p.name for p in runs.glob("*") if p.is_dir()})
    if scale not in (None, *scales):
        raise UserError(f"unknown scale '{scale}'" + nearest(scale, scales))
    if watch:
        try:
            view.watch(lambda: [folder for folder, _ in jobs_on_disk(chosen, scale, runs)])
        except KeyboardInterrupt:
            print()
    if stop:
        for told in local.stop_here([folder for folder, _ in jobs_on_disk(chosen, scale, runs)]):
            print(told, file=sys.stderr)
    rows = []
    for folder, job in jobs_on_disk(chosen, scale, runs, warn=True):
        try:
            state = folder.state()
            kept = state != "pending" or folder.path("checkpoint.pt").exists()
            epochs = len(folder.metrics()) if kept else 0  # without a checkpoint it starts anew
        except UserError as error:
            print(f"warning: {error}", file=sys.stderr)
            continue
        said = f"pending, {epochs} of {job.epochs} epochs kept" if state == "pending" and kept else state
        if state == "running" and (holder := folder.holder()):
            said = f"running, by process {holder.pid} on {holder.host}"
        if state == "done" and data_root is not None and same_data.others([job], runs, data_root, cache):
            said = "done, of other data"
        row = {"id": job.id, "scale": job.scale, "state": state, "epoch": f"{epochs}/{job.epochs}"}
        rows.append((row, said))
    rows.sort(key=lambda row: STATES.index(row[0]["state"]))
    if as_json:
        print(json.dumps([row for row, _ in rows], indent=1))
        return
    print_rows([row | {"state": said} for row, said in rows], ("state", "scale", "id", "epoch"))
    print(view.counted([row["state"] for row, _ in rows]) or f"no jobs under {runs}/")


def jobs_on_disk(chosen: Grid | None, scale: str | None, runs: Path, warn: bool = False) -> list[tuple[Run, Job]]:
    """The runs under `runs`, of one grid and scale or of all. Folders that hold no job are left out, with a warning."""
    datasets = {chosen.base["dataset"], *(s.set.get("dataset") for s in chosen.scales.values())} if chosen else None
    runs_of_jobs, problems = [], []
    for folder in all_runs(runs):
        if scale not in (None, folder.folder.parent.name):
            continue
        try:
            job = folder.job()
        except UserError as error:
            problems.append(str(error))
            continue
        if datasets is None or job.dataset in datasets:
            runs_of_jobs.append((folder, job))
    for problem in problems[:MAX_WARNINGS] if warn else []:
        print(f"warning: {problem}", file=sys.stderr)
    if warn and len(problems) > MAX_WARNINGS:
        print(f"warning: and {len(problems) - MAX_WARNINGS} more folders that hold no job", file=sys.stderr)
    return runs_of_jobs
