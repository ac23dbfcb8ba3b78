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

__version__ = "0.2.0"


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
    from benchmark.matrix.study import meanwhile
    from benchmark.tables import build, locks, published

    with meanwhile(study):
        folder = published.of_study(Path(tables))
        spec = published.load(name, folder)
        if spec.grid is None:
            raise UserError(f"table {name} is not of runs: 'python -m benchmark tables --table {name}' makes it")
        chosen = grid.load(spec.grid)
        scale = scale or ("mini" if "mini" in chosen.scales else "paper")
        return build.build(spec, Matrix(chosen, scale, fields, runs=Path(runs)), locks.read(folder))


def runs(scale: str | None = None, runs: str | Path = "runs", study: str | Path | None = None) -> Any:
    """A pandas DataFrame, a line a run under `runs`, of one scale or of all: the job's id, its fields, its state, and
    of a finished one mAP (definition `area`) or top1 and top5, shares in [0, 1], and seconds. One that cannot be read,
    as one of another study's methods, has state `corrupt` and no numbers.

    mAP is the number of the tables: over the classes that the run's preset counts, of which both splits have enough
    images. `mAP (all classes)` is over all that the test set shows, as result.json has it, and `num_classes` says how
    many each is over. A class without a positive test image is in neither; scikit-learn, torchmetrics and torcheval
    count such a class as 0."""
    from benchmark.matrix.study import meanwhile

    with meanwhile(study):
        return _runs(scale, Path(runs))


def _runs(scale: str | None, runs: Path) -> Any:
    import pandas as pd

    from benchmark.errors import UserError
    from benchmark.store.run import all_runs
    from benchmark.tables import collect

    lines: list[dict[str, Any]] = []
    found: dict[int, tuple[Any, Any]] = {}
    for run in all_runs(runs):
        line: dict[str, Any] = {"id": run.id, "scale": run.folder.parent.name, "state": "corrupt"}
        try:
            line |= run.job().model_dump() | {"state": run.state()}
            result = run.result()
        except UserError:
            line["state"], result = "corrupt", None
        if result is not None:
            line |= {"top1": result.top1, "top5": result.top5, "seconds": result.seconds}
        if scale in (None, line["scale"]):
            found |= {len(lines): (run.job(), result)} if result is not None else {}
            lines.append(line)
    for at, (job, result) in found.items():
        if result.ap:
            lines[at] |= _means(result, collect.headline_classes(job, result, found.values()))
    return pd.DataFrame(lines)


def _means(result: Any, kept: set[str] | None) -> dict[str, Any]:
    """mAP over the classes that count, and over all that the test set shows; shares in [0, 1]."""
    from benchmark.store.metrics import mean_ap

    shown = {name: value for name, value in result.ap["area"].items() if value is not None}
    counting = [value for name, value in shown.items() if kept is None or name in kept]
    return {
        "mAP": mean_ap(counting), "num_classes": f"{len(counting)} of {len(shown)}",
        "mAP (all classes)": result.mAP["area"],
    }  # fmt: skip


def epochs(run: str | Path) -> Any:
    """A pandas DataFrame, a line an epoch of the run folder: epoch (from 1), each loss term (mean over the training
    images), test_mAP (over all classes that the test set shows) or test_top1 (shares in [0, 1]), and seconds."""
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
