"""The commands that run jobs: run, for all of a grid, and run-job, for one; executors call that."""

import math
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from benchmark.cli.common import (
    CACHE,
    RUNS,
    TABLES,
    Cache,
    DataRoot,
    GridName,
    Only,
    Runs,
    ScaleName,
    Set,
    Tables,
    Weights,
    duration,
    overrides,
    render_tables,
    resolve_scale,
    selection,
)
from benchmark.errors import UserError
from benchmark.matrix.job import Job
from benchmark.store import environment
from benchmark.store.run import Claimed, Run, submit
from benchmark.tables import published

UNFINISHED = 3  # exit status of `run` when its budget was used before the last job ended


def run(
    grid_name: GridName,
    scale: ScaleName = "auto",
    sets: Set = None,
    only: Only = None,
    data_root: DataRoot = None,
    weights: Weights = None,
    workers: Annotated[
        int | None, typer.Option(help="Jobs at once; default: one per GPU, else one per core", min=1)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    gpus: Annotated[str | None, typer.Option("--gpus", help="Numbers as nvidia-smi's: 0,1; default: all")] = None,
    jobs_per_gpu: Annotated[int, typer.Option("--jobs-per-gpu", help="Jobs at once on each GPU", min=1)] = 1,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds that a job may run before it is stopped, to be resumed")
    ] = None,
    hang_timeout: Annotated[
        float, typer.Option("--hang-timeout", help="Seconds without progress after which a job is killed and repeated")
    ] = 1800.0,
    executor: Annotated[str, typer.Option("--executor", help="local, ray or slurm")] = "local",
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="YAML file with the settings of ray or slurm")
    ] = None,
    keep_weights: Annotated[bool, typer.Option("--keep-weights", help="Leave model.safetensors in each run")] = False,
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", help="Replay the step as a CUDA graph; check it with 'make test-gpu' first")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(help="Time after which to stop at a checkpoint, as 90s, 10m or 2h; call again to go on"),
    ] = None,
    runs: Runs = RUNS,
    tables: Tables = TABLES,
    cache: Cache = CACHE,
) -> None:
    """Train what has no result yet, resuming what was cut short, then write and print the grid's tables.

    Exit status: 0 all jobs have a result, 1 one failed, 2 wrong input, 3 the budget is used and jobs are left.
    """
    from benchmark.executors import EXECUTORS, local, read_settings
    from benchmark.executors.view import make_view

    deadline = time.time() + duration("--budget", budget) if budget else math.inf
    chosen, scale, reason = resolve_scale(grid_name, scale, data_root, cache)
    print(f"scale {scale}: {reason}", flush=True)
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: expected auto, cpu or cuda")
    if gpus is not None and device == "cpu":
        raise UserError("--gpus with --device cpu: leave one of them out")
    settings = read_settings(executor, settings_file)
    if settings is not None:
        ours = {"--workers": workers, "--gpus": gpus, "--timeout": timeout, "--budget": budget}
        for option in (name for name, value in ours.items() if value is not None):
            raise UserError(f"{option} is the local executor's; --executor {executor} is told in --settings FILE")
    on_gpus = local.named_gpus(gpus) if gpus is not None else local.visible_gpus() if device != "cpu" else ()
    if gpus is not None or (settings is not None and settings.gpus and device == "auto"):
        device = "cuda"  # a GPU that was asked for is not quietly done without
    if cuda_graph and settings is None and not on_gpus:
        raise UserError("--cuda-graph: there is no GPU here, or --device cpu says not to use it")
    for option, seconds in (("--timeout", timeout), ("--hang-timeout", hang_timeout)):
        if seconds is not None and not seconds > 0:
            raise UserError(f"{option} {seconds:g}: expected seconds, more than 0")
    changed = overrides(chosen, scale, sets, weights)
    jobs = chosen.jobs(scale, changed, selection(only))
    specs = [published.load(name, tables) for name in published.names(tables)]
    specs = [spec for spec in specs if spec.grid == grid_name]
    if not specs:
        print(f"note: {tables}/ holds no table of grid {grid_name}, so none is written; --tables names the folder")
    prepare(jobs, data_root, weights, cache)
    folders = [submit(runs, job) for job in jobs]
    warn_of_corrupt_records(folders)
    where = settings
    if where is None:
        ranks = max((job.ranks for job in jobs), default=1)
        where = local.slots(len(jobs), workers, on_gpus, jobs_per_gpu, ranks)
        where = replace(where, timeout=timeout, hang_timeout=hang_timeout, deadline=deadline)
    announce(jobs, folders, where)
    arguments = ["--cache", str(cache), "--device", device]
    arguments += ["--data-root", str(data_root)] if data_root else []
    arguments += ["--weights", str(weights)] if weights else []
    arguments += ["--keep-weights"] if keep_weights else []
    arguments += ["--cuda-graph"] if cuda_graph else []
    arguments += ["--deadline", str(deadline)] if budget else []
    with make_view() as view:
        try:
            outcome = EXECUTORS[executor](folders, arguments, where, view)
        except KeyboardInterrupt:
            print("\nstopped; finished runs and checkpoints are kept, call again to go on", file=sys.stderr)
            sys.exit(130)
    left = [Run(runs / scale / job) for job, how in outcome.items() if how == local.BUDGET_USED]
    failed = {job: how for job, how in outcome.items() if how not in ("done", local.BUDGET_USED)}
    render_tables(specs, scale, sets, data_root, weights, runs, tables, cache)
    for job, how in failed.items():
        print(f"{job}: {how}{explain_failure(Run(runs / scale / job))}", file=sys.stderr)
    if failed:
        sys.exit(2 if all(": input" in explain_failure(Run(runs / scale / j)) for j in failed) else 1)
    if left:
        for folder in left:
            print(f"{folder.id}: {len(folder.metrics())} epochs kept{why_stopped(folder)}", file=sys.stderr)
        print(f"budget of {budget} used, {len(left)} of {len(jobs)} jobs left; call again to go on", file=sys.stderr)
        sys.exit(UNFINISHED)


def run_job(
    folder: Annotated[Path, typer.Argument(help="A run folder with a job.json")],
    threads: Annotated[int, typer.Option(min=1)] = 1,
    device: str = "auto",
    data_root: DataRoot = None,
    weights: Weights = None,
    keep_weights: Annotated[bool, typer.Option("--keep-weights")] = False,
    cuda_graph: Annotated[bool, typer.Option("--cuda-graph")] = False,
    deadline: Annotated[float, typer.Option(help="Seconds since the epoch by which to stop")] = math.inf,
    cache: Cache = CACHE,
) -> None:
    """Train one job in its folder. Executors call this; a job of several ranks starts a process for each."""
    from benchmark.executors.local import ALREADY_CLAIMED, OUT_OF_TIME

    run = Run(folder)
    if "RANK" not in os.environ and run.state() == "running":  # known before torch is imported
        sys.exit(ALREADY_CLAIMED)
    ranks = run.job().ranks
    from benchmark.train import distributed, heap

    heap.keep_freed_memory()

    if ranks > 1 and distributed.started() == 1:
        sys.exit(distributed.launch(ranks, sys.argv[1:]))
    from benchmark.train import checkpoint, loop  # not for the launcher: they take as long to import as torch

    try:
        threads = max(1, threads // ranks)
        device = loop.resolve(device)
        if cuda_graph and device == "cpu":
            raise UserError("--cuda-graph: this machine has no GPU, or --device cpu says not to use it")
        execution = loop.Execution(
            data_root, weights, cache, device, threads, keep_weights, cuda_graph=cuda_graph, deadline=deadline
        )
        loop.run_job(run, execution)
    except Claimed:
        sys.exit(ALREADY_CLAIMED)
    except checkpoint.OutOfTimeError as error:
        print(f"out of time: {error}", file=sys.stderr)
        sys.exit(OUT_OF_TIME)
    except loop.DivergedError as error:
        print(f"diverged: {error}", file=sys.stderr)
        sys.exit(1)


def prepare(jobs: list[Job], data_root: Path | None, weights: Path | None, cache: Path) -> None:
    """Find bad data and missing weights before any job starts; draw what is drawn."""
    from benchmark.data import DATASETS, locate

    for name, seed, *splits in {(j.dataset, j.seed, j.train_split, j.test_split) for j in jobs}:
        root = locate(name, data_root, cache)
        for split in splits:
            DATASETS[name].load(root, split, seed)
    for job in jobs:
        if job.weights.startswith("sha256:") and weights is None:
            raise UserError(
                f"these jobs start from weights with SHA-256 {job.weights[7:19]}...: name the file with "
                "--weights FILE, or make other jobs with --set weights=scratch"
            )
    if any(j.precision == "bfloat16" for j in jobs) and not environment.has_fast_bfloat16():
        print(
            "note: bfloat16 is slow on this processor; on a GPU it is not, and --set precision=float32 makes other jobs"
        )


def warn_of_corrupt_records(folders: list[Run]) -> None:
    """Reading a corrupt record sets it aside, and the job runs anew."""
    for folder in folders:
        for name in ("result.json", "failure.json"):
            try:
                folder.read(name)
            except UserError as error:
                print(f"warning: {error}", file=sys.stderr)


def announce(jobs: list[Job], folders: list[Run], where: Any) -> None:
    """What is about to run and, where runs like it are known, what it will cost."""
    seconds, states = {}, [folder.state() for folder in folders]
    for job, folder, state in zip(jobs, folders, states, strict=True):
        if state == "done":
            seconds.setdefault(job.method, []).append((folder.read("result.json") or {}).get("seconds", 0))
    left = [job for job, state in zip(jobs, states, strict=True) if state != "done"]
    text = f"{len(jobs)} jobs, {len(jobs) - len(left)} done, {len(left)} to run"
    if left and isinstance(where, BaseModel):
        told = ", ".join(f"{key}: {value}" for key, value in where.model_dump(exclude_defaults=True).items())
        text += f"; {told or 'with default settings'}"
    elif left:
        on = f"GPU {', '.join(where.gpus)}" if where.gpus else f"CPU, {where.threads} threads each"
        text += f"; {where.workers} at once ({on})"
        if all(job.method in seconds for job in left):
            total = sum(sum(seconds[job.method]) / len(seconds[job.method]) for job in left)
            text += f"; about {max(1, round(total / where.workers / 60))} min, going by the finished ones"
    print(text, flush=True)


def explain_failure(folder: Run) -> str:
    try:
        failure = folder.read("failure.json")
    except UserError as error:
        return f": {error}"
    return f": {failure.get('kind')}: {failure.get('error')}" if failure else ""


def why_stopped(folder: Run) -> str:
    """What a job said in its last attempt when its time was up."""
    try:
        text = folder.path("log.txt").read_text(errors="replace")
    except FileNotFoundError:
        return ""
    lines = re.split(r"^--- \S+ attempt .*$", text, flags=re.MULTILINE)[-1].splitlines()
    return "".join([f"; {line}" for line in lines if line.startswith("out of time: ")][-1:])
