"""Shared by the tests of what is made from runs: small real ones (golden/runs), and planted ones of known truth.

`python -m tests.evidence` writes golden/tables/mini anew; read the difference before committing it.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmark.matrix import grid
from benchmark.matrix.job import Job
from benchmark.matrix.matrix import Matrix
from benchmark.results.results import Results
from benchmark.store import scores
from benchmark.store.run import Run, submit
from benchmark.tables import build, published, render
from benchmark.tables.cells import TableOfRuns

GOLDEN = Path(__file__).parent / "golden"
RUNS, TABLES = GOLDEN / "runs", GOLDEN / "tables"
SPEC = published.load("table2", TABLES)


def golden_matrix(scale: str = "mini", runs: Path = RUNS, **overrides) -> Matrix:
    """Of the pinned grid."""
    return Matrix(grid.load("voc", GOLDEN), scale, overrides, runs=runs)


def golden_results(scale: str = "mini", runs: Path = RUNS, **overrides) -> Results:
    """What its runs hold."""
    return Results.read(golden_matrix(scale, runs, **overrides))


def golden_table(scale: str = "mini", runs: Path = RUNS, spec_changes: dict | None = None, **overrides) -> TableOfRuns:
    """Table 2 of the pinned grid, from `runs`."""
    spec = SPEC.model_copy(update=spec_changes or {})
    return build.build(spec, golden_results(scale, runs, **overrides))


def plant(
    runs: Path, value: Callable[[Job, str], float | None], scale: str = "paper", moved: float = -0.1,
    of: grid.Grid | None = None, **overrides,
) -> list[Run]:  # fmt: skip
    """A finished run for each job of the grid, the pinned one, whose `value(job, class or mAP)` is given in percent.

    moved: by how much a method's maps overlap more than the baseline's."""
    classes = [row.key for row in SPEC.rows if row.key != "mAP"]
    made = []
    for job in (of or grid.load("voc", GOLDEN)).jobs(scale, overrides):
        run = submit(runs, job)
        share = {item: None if (v := value(job, item)) is None else v / 100 for item in (*classes, "mAP")}
        mean = share.pop("mAP")
        definitions = grid.EVALUATION["ap_definition"]
        record = {"job": run.id, "ap": dict.fromkeys(definitions, share), "mAP": dict.fromkeys(definitions, mean)}
        record["data"] = {split: {"num_images": 1, "sha256": "the same for all"} for split in ("train", "test")}
        run.path("result.json").write_text(json.dumps(record))
        at = 0.5 + 0.001 * job.seed + (0 if job.method == "baseline" else moved * (1 + 0.01 * job.seed))
        overlap = {f"{kind}_{layer}": at for kind in ("grad_cam", "a_ch") for layer in ("inner", "last")}
        run.path("metrics.jsonl").write_text(json.dumps({"epoch": 1, "attention_overlap": overlap}) + "\n")
        made.append(run)
    return made


def as_published(job: Job, item: str, spread: float = 0.1) -> float:
    """The paper's number, a little around it by seed."""
    return SPEC.published(item, job.method) + spread * (job.seed - 1)


def save_scores(run: Run, labels: np.ndarray, scores_NC: np.ndarray, ids: list[str] | None = None, **record) -> None:
    """Scores as a run keeps them, and a result.json that names them."""
    ids = np.arange(len(labels)).astype(str) if ids is None else np.array(ids)
    classes = sorted(next(iter(record.get("ap", {"": {}}).values())))
    digest = scores.write(run, ids, labels, scores_NC, classes)
    run.path("result.json").write_text(json.dumps({"job": run.id, "scores_sha256": digest, **record}))


if __name__ == "__main__":
    print(*render.write(golden_table(), TABLES / "mini"), sep="\n")
