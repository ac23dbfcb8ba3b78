"""Processor time of the commands that look, over many run folders: `python -m tests.many_runs 10000`.

Nine in ten are finished, with scores of ten images that give their numbers; made in seconds, in a temporary folder.
"""

import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmark.matrix import grid

ROOT = Path(__file__).parents[1]


def make(runs: Path, count: int) -> list[int]:
    """`count` runs of CIFAR-100's three methods under `runs`; their seeds."""
    seeds = list(range(-(-count // 3)))
    labels = np.arange(10)
    top = np.tile(np.arange(5, dtype=np.uint16), (10, 1))
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, ids=labels.astype(str), labels=labels, top_classes=top, top_log_probs=np.zeros((10, 5), np.float32)
    )
    saved = buffer.getvalue()
    result = {"top1": 0.1, "top5": 0.5, "epoch": 13, "num_test": 10, "seconds": 13.0}
    result["scores_sha256"] = hashlib.sha256(saved).hexdigest()
    epochs = "".join(json.dumps({"epoch": k + 1, "test_top1": 0.1, "seconds": 1.0}) + "\n" for k in range(13))
    environment = json.dumps({"device": "cpu", "threads": 1, "machine": {"processor": "synthetic"}})
    for number, job in enumerate(grid.load("cifar100").jobs("mini", {"seed": seeds})[:count]):
        folder = runs / "mini" / job.id
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(json.dumps(job.model_dump(mode="json", exclude_none=True)))
        if number % 10 != 9:
            (folder / "result.json").write_text(json.dumps(result | {"job": job.id}))
            (folder / "scores.npz").write_bytes(saved)
            (folder / "metrics.jsonl").write_text(epochs)
            (folder / "environment.json").write_text(environment)
    return seeds


def seconds(folder: Path, *arguments: str) -> float:
    """Of the processor: the clock would count what else the machine does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    (folder / "words.json").write_text(json.dumps(["benchmark", *arguments]))  # longer than a command line may be
    code = "import json, sys; from benchmark.__main__ import main; sys.argv = json.load(open('words.json')); main()"
    command = [sys.executable, "-c", code]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(count: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        seeds = make(folder / "runs", count)
        chosen = ["--scale", "mini", "--set", f"seed=[{','.join(map(str, seeds))}]"]
        for name, arguments in {
            "status": ["status"],
            "plan": ["plan", "--grid", "cifar100", *chosen],
            "tables": ["tables", "--table", "cifar100", *chosen],
        }.items():
            first, again = (seconds(folder, *arguments) for _ in range(2))
            print(f"{count} runs, {name}: {first:.1f} s, again {again:.1f} s", flush=True)


if __name__ == "__main__":
    for each in sys.argv[1:]:
        measure(int(each))
