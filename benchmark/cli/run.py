"""The commands that run jobs: run, for all of a grid, and run-job, for one; executors call that."""

import math
import re
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from benchmark.cli.common import (
    CACHE,
    RUNS,
    TABLES,
    AllowOverlap,
    AllowPartial,
    Cache,
    DataRoot,
    GridName,
    Only,
    Runs,
    ScaleName,
    Set,
    Tables,
    Weights,
    Wide,
    asked,
    duration,
    of_what_is_there,
    opened_runs,
    render_tables,
    resolve_scale,
    selection,
)
from benchmark.errors import UserError, one_line
from benchmark.executors import launch, local
from benchmark.executors.local import Slots
from benchmark.executors.outcome import ALREADY_CLAIMED, OUT_OF_TIME, UNFINISHED, How, Outcome, exit_status
from benchmark.matrix import study
from benchmark.matrix.job import IMAGENET1K_V1, Job
from benchmark.matrix.matrix import Matrix
from benchmark.store import code, environment
from benchmark.store.run import Claimed, Run, submit
from benchmark.tables import catalogue, published


def run(
    grid_name: GridName,
    scale: ScaleName = "auto",
    sets: Set = None,
    only: Only = None,
    data_root: DataRoot = None,
    allow_partial: AllowPartial = False,
    allow_overlap: AllowOverlap = False,
    weights: Weights = None,
    workers: Annotated[
        int | None, typer.Option(help="Jobs at once; default: one per GPU, else one per core", min=1, max=4096)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    gpus: Annotated[str | None, typer.Option("--gpus", help="Numbers as nvidia-smi's: 0,1; default: all")] = None,
    jobs_per_gpu: Annotated[int, typer.Option("--jobs-per-gpu", help="Jobs at once on each GPU", min=1, max=64)] = 1,
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
    wide: Wide = False,
) -> None:
    """Train what has no result yet, resuming what was cut short, then write and print the grid's tables.

    Exit status: 0 all jobs have a result, 1 one failed, 2 wrong input, 3 the budget is used and jobs are left.
    """
    deadline = time.time() + duration("--budget", budget) if budget else math.inf
    _, scale, reason = resolve_scale(grid_name, scale, data_root, cache, allow_partial)
    question = asked(scale, sets, weights, runs)
    matrix = question.matrix(grid_name, selection(only))
    limits = Limits(timeout, hang_timeout, deadline)
    place = find_place(matrix, executor, settings_file, device, gpus, workers, jobs_per_gpu, limits, budget)
    if cuda_graph and isinstance(place.slots, Slots) and not place.slots.gpus:
        raise UserError("--cuda-graph: there is no GPU here, or --device cpu says not to use it")
    look_for_weights(matrix.jobs, weights)
    question = of_what_is_there(question, grid_name, only, data_root, cache, allow_partial, allow_overlap)
    matrix = question.matrix(grid_name, selection(only))
    print(f"scale {scale}: {protocol_of(matrix, reason)}", flush=True)
    say_what_gains_lack(matrix)
    say_what_others_cannot_look_up(matrix)
    specs = tables_of(grid_name, tables)
    catalogue.refuse_unmeasured(specs, matrix, tables)
    say_what_no_table_shows(specs, matrix, tables)
    refuse_other_data(matrix, data_root, cache)
    folders = [submit(runs, job) for job in matrix.jobs]
    announce(matrix.jobs, folders, place.slots)
    print(
        f"writes a folder for each job to {runs / scale}/, and {written_at_the_end(specs, matrix, tables)}", flush=True
    )
    arguments = ["--cache", str(cache), "--device", place.device]
    arguments += ["--study", str(study.at_hand().folder)] if study.at_hand().folder else []
    arguments += ["--data-root", str(data_root)] if data_root else []
    arguments += ["--weights", str(weights)] if weights else []
    arguments += ["--keep-weights"] if keep_weights else []
    arguments += ["--cuda-graph"] if cuda_graph else []
    arguments += ["--deadline", str(deadline)] if budget else []
    outcomes = execute(executor, folders, arguments, place.slots)
    with opened_runs() as reader:
        render_tables(specs, replace(question, reader=reader), data_root, tables, cache, wide=wide)
    report_what_is_left(folders, outcomes, budget)


def say_what_gains_lack(matrix: Matrix) -> None:
    """Of a selection without the baseline, where that has not run."""
    first = matrix.whole.methods[0]
    needed = {(job.backbone, job.train_split, job.seed) for job in matrix.jobs}
    baselines = [job for job in matrix.whole.jobs if job.method == first]
    missing = [job for job in baselines if (job.backbone, job.train_split, job.seed) in needed]
    missing = [job for job in missing if job not in matrix.jobs and Run(matrix.folder(job)).state() != "done"]
    if missing:
        print(f"note: gains will be missing: {len(missing)} jobs of {first} are neither selected nor done")


def say_what_others_cannot_look_up(matrix: Matrix) -> None:
    """Before anything trains: of runs whose code nobody will find."""
    left = any(Run(matrix.folder(job)).state() != "done" for job in matrix.jobs)
    if left and (why := code.why_unknown()):
        print(f"note: 'verify' and 'import' will take none of the runs made now: {why}", flush=True)


@dataclass(frozen=True)
class Limits:
    """Seconds that an attempt may take and may be silent; deadline: seconds since the epoch, at which to stop."""

    timeout: float | None
    hang_timeout: float
    deadline: float

    def __post_init__(self) -> None:
        for option, seconds in (("--timeout", self.timeout), ("--hang-timeout", self.hang_timeout)):
            if seconds is not None and not seconds > 0:
                raise UserError(f"{option} {seconds:g}: expected seconds, more than 0")


@dataclass(frozen=True)
class Place:
    """Where jobs run: the local executor's slots or another's settings, and the device that each job is told."""

    slots: Any
    device: str


def protocol_of(matrix: Matrix, reason: str) -> str:
    """What will be trained: why it is this scale, and what these jobs do otherwise than its grid."""
    if matrix.scale != "paper" or not matrix.departures:
        return reason
    return f"the protocol as the grid states it, but for {'; '.join(sorted(matrix.departures))}"


def say_what_no_table_shows(specs: list[published.Spec], matrix: Matrix, tables: Path) -> None:
    """Of jobs that no table has a row and column for, before they train."""
    if not specs or not matrix.grid.has_tables(matrix.scale):
        return
    unshown = catalogue.unshown(specs, matrix, tables)
    if unshown:
        others = f" and {len(unshown) - 1} more" if len(unshown) > 1 else ""
        print(f"note: no table has a row and a column for {unshown[0]}{others}; 'status' and 'export' show them")


def tables_of(grid_name: str, tables: Path) -> list[published.Spec]:
    specs = catalogue.of_grid(grid_name, tables)
    if not specs:
        print(f"note: {published.home(tables)}/ holds no table of grid {grid_name}, so none is written")
    return specs


def written_at_the_end(specs: list[published.Spec], matrix: Matrix, tables: Path) -> str:
    folder = catalogue.folder(matrix, tables)
    if not matrix.grid.has_tables(matrix.scale):
        return f"{folder / matrix.grid.name}-readings.md"
    made = [spec for spec in specs if not catalogue.why_not(spec, matrix.scale, tables)]
    return ", ".join(f"{folder / spec.name}.*" for spec in made) or "no table"


def find_place(
    matrix: Matrix, executor: str, settings_file: Path | None, device: str, gpus: str | None, workers: int | None,
    jobs_per_gpu: int, limits: Limits, budget: str | None,
) -> Place:  # fmt: skip
    """UserError for options that contradict each other or this machine."""
    from benchmark.executors import read_settings

    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: expected auto, cpu or cuda")
    if gpus is not None and device == "cpu":
        raise UserError("--gpus with --device cpu: leave one of them out")
    settings = read_settings(executor, settings_file)
    if settings is not None:
        ours = {"--workers": workers, "--gpus": gpus, "--timeout": limits.timeout, "--budget": budget}
        for option in (name for name, value in ours.items() if value is not None):
            raise UserError(f"{option} is the local executor's; --executor {executor} is told in --settings FILE")
        # A GPU that was asked for is not quietly done without.
        return Place(settings, "cuda" if settings.gpus and device == "auto" else device)
    on_gpus = local.find_gpus(device, gpus)
    ranks = max((job.ranks for job in matrix.jobs), default=1)
    slots = local.make_slots(len(matrix.jobs), workers, on_gpus, jobs_per_gpu, ranks)
    slots = replace(slots, timeout=limits.timeout, hang_timeout=limits.hang_timeout, deadline=limits.deadline)
    return Place(slots, "cuda" if on_gpus else "cpu")


def execute(executor: str, folders: list[Run], arguments: list[str], slots: Any) -> dict[str, Outcome]:
    """How each job ended. Ctrl-C ends the process, with everything kept."""
    from benchmark.executors import EXECUTORS
    from benchmark.executors.view import make_view

    with make_view() as view:
        try:
            return EXECUTORS[executor](folders, arguments, slots, view)
        except KeyboardInterrupt:
            print("\nstopped; finished runs and checkpoints are kept, call again to go on", file=sys.stderr)
            sys.exit(130)


def report_what_is_left(folders: list[Run], outcomes: dict[str, Outcome], budget: str | None) -> None:
    """Say what was not finished and what failed, and why, as the last of all, and end with the exit status that tells
    it. Jobs that failed alike share a line."""
    sys.stdout.flush()  # to a file, the tables would come after it
    by_id = {folder.id: folder for folder in folders}
    left = [by_id[job] for job, outcome in outcomes.items() if outcome.how == How.BUDGET_USED]
    status = exit_status(outcomes.values())
    if status == UNFINISHED:
        for folder in left:
            print(f"{folder.id}: {len(folder.metrics())} epochs kept{why_stopped(folder)}", file=sys.stderr)
        print(f"budget of {budget} used, {len(left)} of {len(folders)} jobs left; call again to go on", file=sys.stderr)
    alike: dict[str, list[str]] = {}
    for job, outcome in outcomes.items():
        if outcome.how not in (How.DONE, How.BUDGET_USED):
            alike.setdefault(f"{outcome}{explain_failure(by_id[job])}", []).append(job)
    for reason, jobs in alike.items():
        others = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
        print(f"{jobs[0]}{others}: {reason}", file=sys.stderr)
    if status:
        sys.exit(status)


def run_job(
    folder: Annotated[Path, typer.Argument(help="A run folder with a job.json")],
    threads: Annotated[int, typer.Option(min=1, max=4096)] = 1,
    device: str = "auto",
    data_root: DataRoot = None,
    weights: Weights = None,
    keep_weights: Annotated[bool, typer.Option("--keep-weights")] = False,
    cuda_graph: Annotated[bool, typer.Option("--cuda-graph")] = False,
    deadline: Annotated[float, typer.Option(help="Seconds since the epoch by which to stop")] = math.inf,
    cache: Cache = CACHE,
) -> None:
    """Train one job in its folder. Executors call this; a job of several ranks starts a process for each."""
    run = Run(folder)
    if launch.started_ranks() == 1 and run.state() == "running":  # known before torch is imported
        sys.exit(ALREADY_CLAIMED)
    ranks = run.job().ranks
    if ranks > 1 and launch.started_ranks() == 1:
        sys.exit(launch.in_ranks(ranks, ["-m", "benchmark", *sys.argv[1:]]))
    from benchmark.train import checkpoint, loop

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


def look_for_weights(jobs: list[Job], weights: Path | None) -> None:
    """Names weights that are missing before any job starts, and before data are looked at, which may take long."""
    for job in jobs:
        if job.weights == "imagenet1k_v1" and job.backbone not in IMAGENET1K_V1:
            raise UserError(f"{job.backbone} has no ImageNet weights; --set weights=scratch")
        named = weights / IMAGENET1K_V1[job.backbone] if weights and job.weights == "imagenet1k_v1" else None
        if named and weights and weights.is_dir() and not named.is_file():
            raise UserError(f"{named}: no such weights file")
        if job.weights.startswith("sha256:") and weights is None:
            raise UserError(
                f"these jobs start from weights with SHA-256 {job.weights[7:19]}...: name the file with "
                "--weights FILE, or make other jobs with --set weights=scratch"
            )
    if any(j.precision == "bfloat16" for j in jobs) and not environment.has_fast_bfloat16():
        print(
            "note: bfloat16 is slow on this processor; on a GPU it is not, and --set precision=float32 makes other jobs"
        )


def refuse_other_data(matrix: Matrix, data_root: Path | None, cache: Path) -> None:
    """UserError where finished runs are of other images than the rest would be: a pair of the two measures the data."""
    from benchmark.results import same_data

    other = same_data.others(matrix.jobs, matrix.runs, data_root, cache)
    if other:
        own = matrix.grid.data is not None
        where = "bring back those, as the grid's data name them," if own else "name their folder with --data-root,"
        raise UserError(f"{same_data.departure(other)}; {where} or other --runs")


def announce(jobs: list[Job], folders: list[Run], slots: Any) -> None:
    """What is about to run and, where runs like it are known, what it will cost."""
    seconds: dict[str, list[float]] = {}
    states = [folder.state() for folder in folders]
    for job, folder, state in zip(jobs, folders, states, strict=True):
        record = folder.result() if state == "done" else None
        if record is not None and record.seconds is not None:
            seconds.setdefault(job.method, []).append(record.seconds)
    left = [job for job, state in zip(jobs, states, strict=True) if state != "done"]
    text = f"{len(jobs)} jobs, {len(jobs) - len(left)} done, {len(left)} to run"
    if left and isinstance(slots, BaseModel):
        told = ", ".join(f"{key}: {value}" for key, value in slots.model_dump(exclude_defaults=True).items())
        text += f"; {told or 'with default settings'}"
    elif left:
        on = f"GPU {', '.join(slots.gpus)}" if slots.gpus else f"CPU, {slots.threads} threads each"
        text += f"; {slots.workers} at once ({on})"
        if all(job.method in seconds for job in left):
            total = sum(sum(seconds[job.method]) / len(seconds[job.method]) for job in left)
            text += f"; about {max(1, round(total / slots.workers / 60))} min, going by the finished ones"
    print(text, flush=True)


def explain_failure(folder: Run) -> str:
    try:
        failure = folder.failure()
    except UserError as error:
        return f": {error}"
    return one_line(f": {failure.kind}: {failure.error}") if failure else ""


def why_stopped(folder: Run) -> str:
    """What a job said in its last attempt when its time was up."""
    try:
        text = folder.path("log.txt").read_text(errors="replace")
    except FileNotFoundError:
        return ""
    lines = re.split(r"^--- \S+ attempt .*$", text, flags=re.MULTILINE)[-1].splitlines()
    return "".join([f"; {line}" for line in lines if line.startswith("out of time: ")][-1:])
