"""The commands for those who change the suite: how fast it is, and the weights that embedded data start from."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.common import (
    CACHE,
    AsJson,
    Cache,
)
from benchmark.errors import UserError, nearest
from benchmark.matrix import grid
from benchmark.matrix.job import Job


def bench_command(
    only: Annotated[str | None, typer.Option("--only", help="One group of rows, such as time or memory")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small and short: shows that the bench works")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    cache: Cache = CACHE,
    as_json: AsJson = False,
) -> None:
    """Measure speed as ratios, each of two sides that were seen to compute the same thing; minutes on a CPU."""

    import torch

    from benchmark import bench
    from benchmark.train import loop

    if only is not None and only not in bench.BENCHES:
        raise UserError(f"--only {only}: no such rows" + nearest(only, bench.BENCHES))
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: expected auto, cpu or cuda")
    settings = bench.Settings(torch.device(loop.resolve(device)), cache, quick)
    rows = []
    for row in bench.measure(only, settings):
        rows.append(asdict(row))
        if not as_json:
            value = "-" if row.value is None else f"{row.value:.3g}"
            bound = f", target {row.target}" if row.target else ""
            print(f"{row.name}: {value} {row.unit}{bound} ({row.note})", flush=True)
    if as_json:
        print(json.dumps(rows, indent=1))
    if any(row["note"].startswith("refused") for row in rows):
        sys.exit(1)


def gpu_session(
    out: Annotated[Path, typer.Argument(help="Folder for what is found")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="Small and short: shows that the stages work")] = False,
    stage: Annotated[str | None, typer.Option("--stage", help="Only this stage, in this process")] = None,
) -> None:
    """Find out all that a GPU can tell in some ten minutes, unattended; on a CPU a rehearsal."""
    import torch

    from benchmark.bench import session
    from benchmark.train import loop

    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: expected auto, cpu or cuda")
    if stage is not None and stage not in session.STAGES:
        raise UserError(f"--stage {stage}: no such stage" + nearest(stage, session.STAGES))
    its = session.Session(out, torch.device(loop.resolve(device)), quick)
    if stage is not None:
        out.mkdir(parents=True, exist_ok=True)
        session.run_stage(stage, its)
        return
    command = [sys.executable, "-m", "benchmark", "gpu-session", str(out), "--device", its.device.type]
    command += [*(["--quick"] if quick else []), "--stage"]
    ends = session.run(its, command, {name: limit for name, (_, limit) in session.STAGES.items()})
    for name, how in ends.items():
        print(f"{name}: {how}")
    print(f"findings: {out / 'found.jsonl'}")
    if any(how != "status 0" for how in ends.values()):
        sys.exit(1)


def schema() -> None:
    """Print the JSON Schema of each record of a run folder."""
    from benchmark.store.records import RECORDS

    schemas = {name: kind.model_json_schema(by_alias=True) for name, kind in RECORDS.items()}
    print(json.dumps(schemas | {"job.json": Job.model_json_schema()}, indent=1))


def pretrain_mini(
    backbone: Annotated[str, typer.Argument(help="A narrow network, such as resnet18_narrow")],
    threads: Annotated[int, typer.Option(min=1)] = 2,
    target: Annotated[Path | None, typer.Option(help="File to write; default: the packaged one")] = None,
) -> None:
    """Make the weights that mini data sets start from again: a narrow network that reads drawn numbers."""
    from benchmark.train.pretrain import RECIPES, pretrain

    if backbone not in RECIPES:
        raise UserError(f"no recipe for '{backbone}'" + nearest(backbone, RECIPES))
    target = target or grid.MINI_WEIGHTS / f"{backbone}.safetensors"
    accuracy = pretrain(backbone, target, threads)
    print(f"{target}: accuracy {accuracy:.3f} on numbers drawn afresh; jobs made from now on use it")
