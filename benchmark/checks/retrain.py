"""A run trained again, to see whether its number comes out: bit for bit, as code and processor of its own give it, else
within what another seed would have changed. A processor's recorded name is no proof of its kind: one name, such as AMD
EPYC, covers generations that round differently. So other bits alone are told and are no contradiction."""

import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.errors import UserError
from benchmark.executors import launch
from benchmark.results.results import items
from benchmark.stats import intervals
from benchmark.store import environment, scores
from benchmark.store.code import changed_since
from benchmark.store.environment import processor
from benchmark.store.records import Environment
from benchmark.store.run import Run, all_runs, submit
from benchmark.store.verify import checked


@dataclass(frozen=True)
class Again:
    """How it came out. agrees: None where nothing tells how much may differ."""

    agrees: bool | None
    said: str


def chosen(runs: list[Run], count: int) -> list[Run]:
    """Some of those with a result, at random. UserError where there are not as many."""
    done = [run for run in runs if run.state() == "done"]
    if count > len(done):
        raise UserError(f"--rerun {count}: {len(done)} runs with a result are there")
    return random.SystemRandom().sample(done, count)


def trained_again(run: Run, folder: Path, arguments: list[str]) -> Run:
    """The same job in a run folder under `folder`, with as many threads. UserError where it ends without a result."""
    again, on = submit(folder, run.job()), run.environment() or Environment()
    process = launch.start(str(again.folder), arguments, on.threads or 1, str(Path.cwd()), on.device == "cpu")
    try:
        status = process.wait()
    finally:
        launch.end(process)
    if again.result() is None:
        last = again.path("log.txt").read_text(errors="replace").strip().splitlines()[-1:]
        raise UserError(f"{run.id}: trained again, it ended with status {status}: {''.join(last)}")
    return again


def compared(run: Run, again: Run, same_code: bool = False) -> Again:
    """A run and the same job trained anew. same_code: by the run's own commit, not by the code that is here."""
    one, other = scores.read(run), scores.read(again)
    if all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("ids", "labels", "predicted")):
        return Again(True, "the same scores, bit for bit")
    before, now = (_headline(each) for each in (run, again))
    told = f"{before:.2f} was recorded, {now:.2f} came out, of other bits"
    why = differences(
        run.environment() or Environment(),
        again.environment() or Environment(),
        None if same_code else _commit(run),
        same_code,
    )
    why = why or ["code, packages and the processor's name are the same; one name covers several kinds of it"]
    floor = noise_floor(run)
    if floor is None:
        return Again(None, f"{told}; no second seed tells how much may differ ({'; '.join(why)})")
    said = f"a run of another seed differs by up to {floor:.2f} ({'; '.join(why)})"
    return Again(abs(now - before) <= floor, f"{told}; {said}")


def noise_floor(run: Run) -> float | None:
    """Points by which 95% of pairs of runs differ that differ in nothing but their seed, by the spread over seeds of
    the runs that lie beside this one, of its data set and network, pooled over what else they differ in; None where
    each is the only seed of its kind."""
    job, by_kind = run.job(), dict[str, list[float]]()
    for other in all_runs(run.folder.parents[1]):
        if other.id.startswith(f"{job.dataset}-{job.backbone}-") and other.state() == "done":
            its = other.job()
            if its.scale == job.scale:
                by_kind.setdefault(its.model_copy(update={"seed": 0}).id, []).append(_headline(other))
    several = [values for values in by_kind.values() if len(values) > 1]
    if not several:
        return None
    df = sum(len(values) - 1 for values in several)
    variance = sum((len(values) - 1) * np.var(values, ddof=1) for values in several) / df
    return float(intervals.t_quantile(df, (1 + intervals.LEVEL) / 2) * math.sqrt(2 * variance))


def differences(before: Environment, now: Environment, commit: str | None, same_code: bool = False) -> list[str]:
    """What may change bits, between where a run ran and where it was trained again."""
    told = [
        f"{name} {theirs}, now {ours}"
        for name, theirs, ours in (
            ("device", before.device, now.device),
            ("processor", before.machine.processor, now.machine.processor or processor()),
            ("threads", before.threads, now.threads),
            *((name, before.packages.get(name), now.packages.get(name)) for name in environment.PACKAGES),
        )
        if theirs != ours
    ]
    if same_code:
        return told
    changed = changed_since(commit) if commit else None
    if changed is None:
        return [*told, "its code is not at hand"]
    return [*told, f"{len(changed)} definitions of the training code changed since"] if changed else told


def _commit(run: Run) -> str | None:
    record, on = run.result(), run.environment()
    ran = (record.code if record else None) or (on.code if on else None)
    return ran.commit if ran else None


def _headline(run: Run) -> float:
    """In percent."""
    record, _ = checked(run)
    value = items(record, "area")[record.headline] if record else None
    if value is None:
        raise UserError(f"{run.folder}: has no number to compare")
    return value
