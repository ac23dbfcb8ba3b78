"""A grid becomes jobs, a job a run folder, run folders become tables. From a notebook:

    import benchmark
    benchmark.table("table2", scale="subset")      a table as it is printed; .to_frame() is a line a cell
    benchmark.table("headline", scale="subset")    the gains of all tables of a scale, beside what is claimed
    benchmark.runs(scale="subset")                 a frame, a line a run
    benchmark.epochs("runs/subset/ID")             a frame, a line an epoch
    benchmark.scores("runs/subset/ID")             the test scores

runs/ and tables/ of the folder at hand are meant, unless runs= and tables= name others. table and runs take
study="mine", the folder of a study of your own. None of them imports torch, unless that study's methods.py does, trains
or writes.
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
    data_root: str | Path | None = None,
    **fields: Any,
) -> Any:
    """The table called `name`, as the command `tables` makes it.

    Args:
        name: A file of `tables`, or of the study: a table of runs, the headline of their gains, or table1.
        scale: A scale of its grid; without one mini, or paper where it has no mini, or the first that it is made at.
        runs: Folder of the run folders.
        tables: Folder of the table files.
        study: Folder of a study of your own.
        data_root: Folder of the real data, of which table1 counts the images.
        **fields: Fields of every job, instead of the grid's, as attention_weight=0.2.

    Returns:
        A benchmark.tables.cells.Table, which a notebook shows. Its `warnings` name records that cannot be read.

    Raises:
        UserError: There is no such table, scale, field or folder of runs, or the scale has no such table.
    """
    from benchmark.matrix.study import meanwhile
    from benchmark.tables import catalogue, published

    with meanwhile(study):
        folder = published.of_study(Path(tables))
        spec = published.load(name, folder)
        asked = catalogue.Asked(scale or catalogue.default_scale_of(spec, folder), Path(runs), fields)
        return catalogue.table_at(spec, asked, folder, None if data_root is None else Path(data_root))


def runs(scale: str | None = None, runs: str | Path = "runs", study: str | Path | None = None) -> Any:
    """A line a run under `runs`, of one scale or of all.

    Args:
        scale: Only runs of this one.
        runs: Folder of the run folders.
        study: Folder of the study whose methods have run.

    Returns:
        A pandas DataFrame: the job's id, scale and state, its fields, and of a finished one mAP (definition `area`) or
        top1 and top5, shares in [0, 1], and seconds. One that cannot be read, as one of another study's methods, or
        whose scores give other numbers, has state `corrupt` and no numbers. Without any run a frame
        without lines, with the same columns.

    Raises:
        UserError: There is no such folder.
    """
    from benchmark.matrix.study import meanwhile
    from benchmark.tables import catalogue

    with meanwhile(study):
        catalogue.look_at(Path(runs))
        return _runs(scale, Path(runs))


def _runs(scale: str | None, runs: Path) -> Any:
    import pandas as pd

    from benchmark.matrix.job import FIELDS
    from benchmark.results.results import Finished, Reader
    from benchmark.store.run import all_runs

    lines, reader = [], Reader()
    for run in all_runs(runs):
        line: dict[str, Any] = {"id": run.id, "scale": run.folder.parent.name, "state": "corrupt"}
        found, job = reader.open(run.folder), reader.job(run.folder)
        if job is not None:
            line |= job.model_dump() | {"normalisation": str(job.normalisation), "state": found.state}
        if job is not None and isinstance(found, Finished):
            result = found.record
            mean = result.mAP.get("area") if result.mAP else None
            line |= {"mAP": mean, "top1": result.top1, "top5": result.top5, "seconds": result.seconds}
        lines += [line] if scale in (None, line["scale"]) else []
    columns = dict.fromkeys(["id", "scale", "state", *FIELDS, "mAP", "top1", "top5", "seconds"])
    return pd.DataFrame(lines, columns=list(columns))


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
