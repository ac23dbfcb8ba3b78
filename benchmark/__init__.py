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

from benchmark.version import VERSION

__version__ = VERSION


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
    from benchmark.matrix.own import meanwhile
    from benchmark.tables import catalogue, published, render

    with meanwhile(study):
        folder = published.of_study(Path(tables))
        spec = published.load(name, folder)
        asked = catalogue.Asked(scale or catalogue.default_scale_of(spec, folder), Path(runs), fields)
        made = catalogue.table_at(spec, asked, folder, None if data_root is None else Path(data_root))
        return render.for_notebook(made)


def runs(scale: str | None = None, runs: str | Path = "runs", study: str | Path | None = None) -> Any:
    """A line a run under `runs`, of one scale or of all.

    Args:
        scale: Only runs of this one.
        runs: Folder of the run folders.
        study: Folder of the study whose methods have run.

    Returns:
        A pandas DataFrame: the job's id, scale and state, its fields, and of a finished one mAP (definition `area`) or
        top1 and top5, shares in [0, 1], and seconds. One that cannot be read, as one of another study's methods, or
        whose scores give other numbers, has state `corrupt` and no numbers. Without any run a frame without lines.

        mAP is the number of the tables: over the classes that the run's preset counts, of which both splits have enough
        images. `mAP (all classes)` is over all that the test set shows, as result.json has it, and `num_classes` says
        how many each is over. A class without a positive test image is in neither; scikit-learn, torchmetrics and
        torcheval count such a class as 0.

    Raises:
        UserError: There is no such folder.
    """
    from benchmark.matrix.own import meanwhile
    from benchmark.tables import catalogue

    with meanwhile(study):
        catalogue.look_at(Path(runs))
        return _runs(scale, Path(runs))


def _runs(scale: str | None, runs: Path) -> Any:
    import pandas as pd

    from benchmark.matrix.job import FIELDS
    from benchmark.results.results import Finished, Reader, headline_classes
    from benchmark.store.run import all_runs

    lines: list[dict[str, Any]] = []
    measured: dict[int, tuple[Any, Any]] = {}
    reader = Reader()
    for run in all_runs(runs):
        line: dict[str, Any] = {"id": run.id, "scale": run.folder.parent.name, "state": "corrupt"}
        if scale not in (None, line["scale"]):
            continue
        found, job = reader.open(run.folder), reader.job(run.folder)
        if job is not None:
            line |= job.model_dump() | {"normalisation": str(job.normalisation), "state": found.state}
        if job is not None and isinstance(found, Finished):
            result = found.record
            line |= {"top1": result.top1, "top5": result.top5, "seconds": result.seconds}
            measured[len(lines)] = job, result
        lines.append(line)
    for (at, (_, result)), kept in zip(measured.items(), headline_classes(list(measured.values())), strict=True):
        lines[at] |= _means(result, kept) if result.ap else {}
    of_runs = ["mAP", "num_classes", "mAP (all classes)", "top1", "top5", "seconds"]
    columns = dict.fromkeys(["id", "scale", "state", *FIELDS, *of_runs])
    return pd.DataFrame(lines, columns=list(columns))


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
