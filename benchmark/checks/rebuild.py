"""What it takes to make a number as it was made: the commit, the packages, the data and weights by hash, and the
commands; and doing it. Each commit has a checkout and an environment of its own, so that nothing here is touched."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import UserError
from benchmark.matrix import grid, study
from benchmark.matrix.job import IMAGENET1K_V1, Job
from benchmark.store.code import is_commit
from benchmark.store.records import Code, Environment, Result
from benchmark.store.run import Run
from benchmark.store.verify import checked

FOLDER = Path(".cache/as-it-was")
DATA, WEIGHTS = Path("DIR"), Path("FILE")  # what is printed where neither is named


@dataclass(frozen=True)
class Made:
    """A run and how it was made."""

    run: Run
    job: Job
    record: Result
    on: Environment
    code: Code

    @property
    def commit(self) -> str:
        assert self.code.commit is not None, "looked at by `made`"
        return self.code.commit

    @property
    def checkout(self) -> Path:
        """Of its commit; two environments of one commit are two."""
        return FOLDER / f"{self.commit[:12]}-{self.on.packages.get('torch') or 'torch'}"

    @property
    def again(self) -> Run:
        return Run(self.checkout / "as-it-was" / self.job.scale / self.run.id)


def made(run: Run) -> Made:
    """UserError where the run's records do not say how."""
    (record, _), on = checked(run), run.environment()
    code = (record.code if record else None) or (on.code if on else None)
    if record is None or on is None or code is None or code.commit is None:
        raise UserError(f"{run.folder}: its records do not say by which code and packages it was made")
    return Made(run, run.job(), record, on, code)


def environment_steps(of: Made) -> list[list[str]]:
    """Commands that make the commit's checkout and, in it, the packages that were recorded."""
    at, python = of.checkout, str(of.checkout / ".venv/bin/python")
    pins = [f"{name}=={version}" for name, version in sorted(of.on.packages.items()) if version]
    version = ".".join((of.on.python or "3").split(".")[:2])
    return [
        ["git", "worktree", "add", "--detach", str(at), of.commit],
        [f"python{version}", "-m", "venv", str(at / ".venv")],
        [python, "-m", "pip", "install", "--constraint", str(at / "constraints.txt"), *pins, "--editable", str(at)],
    ]


def run_steps(of: Made, data_root: Path | None, weights: Path | None) -> list[list[str]]:
    """Commands that train the job in the commit's checkout."""
    threads, device = str(of.on.threads or 1), "cpu" if of.on.device in (None, "cpu") else "cuda"
    command = ["env", "-C", str(of.checkout), f"OMP_NUM_THREADS={threads}", f"MKL_NUM_THREADS={threads}"]
    command += [".venv/bin/python", "-m", "benchmark", "run-job", f"as-it-was/{of.job.scale}/{of.run.id}"]
    command += ["--threads", threads, "--device", device]
    own = study.at_hand().folder
    command += ["--study", str(own.absolute())] if own else []
    if grid.is_official(of.job.dataset):
        command += ["--data-root", str(data_root.absolute() if data_root else DATA)]
    if of.job.weights.startswith("sha256:"):
        command += ["--weights", str(weights.absolute() if weights else WEIGHTS)]
    folder = of.again.folder
    return [["mkdir", "-p", str(folder)], ["cp", str(of.run.path("job.json")), str(folder / "job.json")], command]


def inputs(of: Made) -> list[str]:
    """The data and weights that it read, by hash as far as it recorded them."""
    job, lines = of.job, []
    for split, name in (("train", job.train_split), ("test", job.test_split)):
        read = getattr(of.record.data, split) if of.record.data else None
        pixels = getattr(of.on.data_sha256, split) if of.on.data_sha256 else None
        count = of.record.num_train if split == "train" else of.record.num_test
        told = [f"SHA-256 {read.sha256} of ids and labels"] if read else []
        told += [f"SHA-256 {pixels} of pixels"] if pixels else []
        lines.append(f"data: {job.dataset}, {name}, {count} images: {'; '.join(told) or 'no hash was recorded'}")
    if of.code.study:
        lines.append(f"the study's methods.py: SHA-256 {of.code.study}")
    weights = job.weights
    if weights == "imagenet1k_v1":
        file = IMAGENET1K_V1[job.backbone]
        weights = f"{file}, whose SHA-256 starts with {file.rpartition('-')[2].removesuffix('.pth')}"
    elif weights.startswith("mini"):
        weights = f"benchmark/mini_weights/{job.backbone}.safetensors of the commit"
    return [*lines, f"weights: {weights.replace('sha256:', 'the file with SHA-256 ')}"]


def text(runs: Iterable[Made], data_root: Path | None, weights: Path | None) -> str:
    """All of it for people, each checkout once."""
    lines: list[str] = []
    seen: set[Path] = set()
    for of in runs:
        if of.checkout not in seen:
            seen.add(of.checkout)
            machine = of.on.machine.processor if of.on.device == "cpu" else of.on.device
            lines += ["", f"# commit {of.commit}, Python {of.on.python}, on {machine}, {of.on.threads} threads"]
            lines += [] if is_commit(of.commit) else ["# which is not in this checkout: git fetch --unshallow"]
            lines += ["# it ran with changes that the commit does not hold"] if of.code.dirty else []
            lines += map(shlex.join, environment_steps(of))
        seconds = f", {of.record.seconds:.0f} s" if of.record.seconds is not None else ""
        lines += ["", f"# {of.run.id}{seconds}", *(f"# {line}" for line in inputs(of))]
        lines += map(shlex.join, run_steps(of, data_root, weights))
        lines.append(f"# then {of.again.path('scores.npz')} has SHA-256 {of.record.scores_sha256 or 'not recorded'}")
    return "\n".join(lines[1:])


def do(of: Made, data_root: Path | None, weights: Path | None) -> Run:
    """Make the checkout where it is not there yet, and train the job in it, or find it trained there."""
    needed = {"--data-root DIR": (DATA, data_root), "--weights FILE": (WEIGHTS, weights)}
    steps = run_steps(of, data_root, weights)
    for option, (placeholder, given) in needed.items():
        if given is None and str(placeholder) in steps[-1]:
            raise UserError(f"{of.run.id}: name {option}, which it read")
    if not is_commit(of.commit):
        raise UserError(f"{of.run.id}: commit {of.commit[:12]} is not in this checkout; git fetch --unshallow gets it")
    if not (of.checkout / ".venv/complete").exists():
        for step in environment_steps(of):
            if not (step[0] == "git" and of.checkout.exists()):
                _call(step)
        (of.checkout / ".venv/complete").touch()
    if of.again.result() is None:
        for step in steps:
            _call(step)
    if of.again.result() is None:
        raise UserError(f"{of.again.folder}: ended without a result")
    return of.again


def _call(step: list[str]) -> None:
    """UserError where it fails. A Python of the recorded version is this one where it is."""
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    words = [sys.executable if step[0] == own else step[0], *step[1:]]
    print(f"+ {shlex.join(step)}", file=sys.stderr, flush=True)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        ended = subprocess.run(words, env=variables, check=False).returncode
    except OSError as error:
        raise UserError(f"{step[0]}: cannot be started ({error.strerror}); install it") from None
    if ended:
        raise UserError(f"{shlex.join(step[:6])} ...: ended with status {ended}")
