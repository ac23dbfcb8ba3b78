"""The commands that check records and bring in those of others: verify, import."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.common import CACHE, RUNS, Cache, DataRoot, Runs, Weights
from benchmark.errors import UserError
from benchmark.matrix import grid, study


def verify(
    folder: Annotated[Path, typer.Argument(metavar="RUNS", help="A folder of runs, or of one run")] = RUNS,
    rerun: Annotated[int, typer.Option(min=0, help="Train so many of them again, chosen at random")] = 0,
    device: Annotated[str, typer.Option(help="With --rerun: auto, cpu or cuda")] = "auto",
    data_root: DataRoot = None,
    weights: Weights = None,
    cache: Cache = CACHE,
) -> None:
    """Compute every record again from its scores: id, digests, metrics, epochs, seconds, code. Exit status 0: all fit;
    1: a line for each that does not; 2: nothing to look at, or a run trained again has nothing to be judged by."""
    from benchmark.checks import audit
    from benchmark.store import code

    runs = audit.found(folder)
    done = [run for run in runs if audit.finished(run)]
    wrong = [line for run in done for line in audit.problems(run)] + audit.borrowed(done)
    print("".join(f"{line}\n" for line in wrong), end="")
    left = f"; {len(runs) - len(done)} have not ended" if len(done) < len(runs) else ""
    print(f"{folder}: {len(done)} runs computed again from their scores, {len(wrong)} problems{left}")
    if study.at_hand().folder is None and any("is not a valid value" in line for line in wrong):
        print("note: runs of a study's own methods, networks and data are read with --study DIR", file=sys.stderr)
    if not code.history_is_whole():
        print("note: without git and its whole history nobody can tell whether commits are known", file=sys.stderr)
    undecided = False
    if rerun and not wrong:
        from benchmark.checks import retrain

        arguments = ["--cache", str(cache), "--device", device]
        arguments += ["--data-root", str(data_root)] if data_root else []
        arguments += ["--weights", str(weights)] if weights else []
        arguments += ["--study", str(study.at_hand().folder)] if study.at_hand().folder else []
        for run in retrain.chosen(runs, rerun):
            if data_root is None and grid.is_official(run.job().dataset):
                raise UserError(f"{run.id} reads {run.job().dataset}: name its folder with --data-root DIR")
            took = run.result()
            print(f"{run.id}: training again; it took {took.seconds if took else 0:.0f} s", flush=True)
            with tempfile.TemporaryDirectory() as temporary:
                again = retrain.trained_again(run, Path(temporary), arguments)
                outcome = retrain.compared(run, again)
            print(f"{run.id}: {outcome.said}")
            wrong += [run.id] if outcome.agrees is False else []
            undecided = undecided or outcome.agrees is None
    if wrong or undecided:
        sys.exit(1 if wrong else 2)


def import_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Somebody else's folder of runs, or of one run")],
    origin: Annotated[str, typer.Option(help="Whose they are, as tables shall name it: a person, a group, a machine")],
    runs: Runs = RUNS,
) -> None:
    """Copy the runs of others into ours, each looked at as 'verify' does. Exit status 0: all were taken; 1: a line for
    each that was not."""
    from pydantic import ValidationError

    from benchmark.checks import audit
    from benchmark.store.records import Origin

    try:
        of = Origin(name=origin)
    except ValidationError:
        raise UserError(f"--origin {origin!r}: expected a name of up to 80 characters, in one line") from None
    if folder.absolute() == runs.absolute():
        raise UserError(f"{folder}: these are our runs already")
    taken, lines = audit.take(audit.found(folder), runs, of)
    print("".join(f"{line}\n" for line in lines), end="")
    print(f"{len(taken)} runs taken into {runs}, as of {of.name}; 'python -m benchmark tables' shows them")
    if lines:
        sys.exit(1)
