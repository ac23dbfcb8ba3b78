"""A grid becomes jobs, a job a run folder, run folders become tables. From a notebook:

    import benchmark
    benchmark.table("table2", scale="subset")      a table as it is printed; .to_frame() is a line a cell
    benchmark.runs(scale="subset")                 a frame, a line a run
    benchmark.epochs("runs/subset/ID")             a frame, a line an epoch
    benchmark.scores("runs/subset/ID")             the test scores

table and runs take study="mine", the folder of a study of your own. None of them imports torch, unless that study's
methods.py does, trains or writes.
"""

from pathlib import Path
from typing import Any

from benchmark.version import VERSION

__version__ = VERSION


def table(
    name: str,
    scale: str | None = None,
    runs: str | Path = "runs",
    tables: str | Path = "tables",
    study: str | Path | None = None,
    **fields: Any,
) -> Any:
    """The table of runs called `name` (a file of `tables`, or of the study) at `scale`, by default mini, or paper where
    its grid has no mini: a benchmark.tables.cells.Table, which a notebook shows. fields: of every job, instead of the
    grid's, as attention_weight=0.2. UserError for a wrong name."""
    from benchmark.errors import UserError
    from benchmark.matrix import grid
    from benchmark.matrix.matrix import Matrix
    from benchmark.matrix.own import meanwhile
    from benchmark.tables import build, locks, published, render

    with meanwhile(study):
        folder = published.of_study(Path(tables))
        spec = published.load(name, folder)
        if spec.grid is None:
            raise UserError(f"table {name} is not of runs: 'python -m benchmark tables --table {name}' makes it")
        chosen = grid.load(spec.grid)
        scale = scale or ("mini" if "mini" in chosen.scales else "paper")
        made = build.build(spec, Matrix(chosen, scale, fields, runs=Path(runs)), locks.read(folder))
        return render.for_notebook(made)


def runs(scale: str | None = None, runs: str | Path = "runs", study: str | Path | None = None) -> Any:
    """A pandas DataFrame, a line a run under `runs`, of one scale or of all: the job's id, its fields, its state, and
    of a finished one mAP (definition `area`) or top1 and top5, shares in [0, 1], and seconds. One that cannot be read,
    as one of another study's methods, has state `corrupt` and no numbers."""
    from benchmark.matrix.own import meanwhile

    with meanwhile(study):
        return _runs(scale, Path(runs))


def _runs(scale: str | None, runs: Path) -> Any:
    import pandas as pd

    from benchmark.errors import UserError
    from benchmark.store.run import all_runs

    lines = []
    for run in all_runs(runs):
        line: dict[str, Any] = {"id": run.id, "scale": run.folder.parent.name, "state": "corrupt"}
        try:
            line |= run.job().model_dump() | {"state": run.state()}
            result = run.result()
        except UserError:
            line["state"], result = "corrupt", None
        if result is not None:
            mean = result.mAP.get("area") if result.mAP else None
            line |= {"mAP": mean, "top1": result.top1, "top5": result.top5, "seconds": result.seconds}
        lines += [line] if scale in (None, line["scale"]) else []
    return pd.DataFrame(lines)


def epochs(run: str | Path) -> Any:
    """A pandas DataFrame, a line an epoch of the run folder: epoch (from 1), each loss term (mean over the training
    images), test_mAP or test_top1 (shares in [0, 1]), and seconds."""
    import pandas as pd

    from benchmark.store.run import Run

    logged = Run(Path(run)).metrics()
    lines: list[dict[str, Any]] = [
        {"epoch": e.epoch} | e.train | {"test_mAP": e.test_mAP, "test_top1": e.test_top1, "seconds": e.seconds}
        for e in logged
    ]
    return pd.DataFrame(lines).dropna(axis="columns", how="all")


def scores(run: str | Path) -> Any:
    """The test scores of the run folder after the last epoch: logits (N, num_classes), targets, ids and classes, as
    benchmark.store.scores describes them. UserError where there are none."""
    from benchmark.store import scores as stored
    from benchmark.store.run import Run

    return stored.read(Run(Path(run)))
