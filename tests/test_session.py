"""The stages of the first minutes on a GPU, rehearsed on a CPU, and what holds when one hangs or breaks."""

import json
import os
import sys

import pytest
import torch

from benchmark import cli, data
from benchmark.bench import meter, session
from benchmark.errors import UserError
from benchmark.matrix import grid

SHORT = [
    name for name in session.STAGES if name not in ("tests", "jobs", "times")
]  # which start processes, or take their time


def findings(out):
    return [json.loads(line) for line in (out / "found.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in SHORT else [pytest.mark.slow]) for n in session.STAGES]
)
def test_a_stage_finds_something_and_no_error(name, tmp_path):
    session.run_stage(name, session.Session(tmp_path, torch.device("cpu"), quick=True))
    found = findings(tmp_path)
    assert {each["stage"] for each in found} == {name}
    assert not any(each.get("error") or each.get("failures") or each.get("failed") for each in found)
    assert all(each.get("status", 0) == 0 for each in found)


def test_all_stages_fit_into_ten_minutes():
    assert sum(limit for _, limit in session.STAGES.values()) <= 600


def test_plan_takes_the_ceilings_that_a_session_measured(tmp_path):
    session.run_stage("machine", session.Session(tmp_path, torch.device("cpu"), quick=True))
    gpu = meter.measured_gpu(tmp_path / "found.jsonl")
    found = {each["ceiling"]: each for each in findings(tmp_path) if "ceiling" in each}
    assert (gpu.float32, gpu.bandwidth) == (found["float32"]["tflops"], found["copy"]["gb_per_second"] / 1e3)
    job = meter.paper_kinds()["voc2012 resnet18 baseline"]
    slow, fast = meter.estimate(job, gpu), meter.estimate(job, meter.GPUS["h100"])
    assert slow.hours > 10 * fast.hours
    assert "as measured" in slow.gpu


def _of_every_grid_and_scale():
    for name in grid.names():
        for scale in grid.load(name).scales:
            yield from grid.load(name).jobs(scale, {}, {})


def test_every_split_of_every_grid_and_scale_has_a_size_before_it_is_read():
    """Parts of official splits too, whose lists lie with the data: they made a plan end in a KeyError."""
    gpu, splits = meter.GPUS["h100"], {}
    for job in _of_every_grid_and_scale():
        for split in (job.train_split, job.test_split):
            assert data.most_images(job.dataset, split) > 0
        splits.setdefault((job.dataset, job.train_split, job.test_split), job)
    assert {split for _, split, _ in splits} >= {"present_train", "train_45k", "train_2008"}
    costs = (meter.Cost(0, ()),) * 3
    for job in splits.values():
        assert meter._hours(job, gpu, *costs, recorded=False) >= 0
        assert meter.resident_bytes(job) >= 0


def test_a_part_of_a_split_has_no_more_images_than_the_whole():
    voc = data.find("voc2012")
    assert data.most_images("voc2012", "train") == 5717
    assert data.most_images("voc2012", "train_2008") == voc.parts["train_2008"]
    assert data.most_images("voc2012", "present_train") == max(voc.num_images.values())
    assert data.most_images("cifar100", "validation_5k") == 5000


@pytest.mark.parametrize(
    "content", ["", "{", '{"ceiling": "copy", "gb_per_second": 3}\n', "[]\n", None],
)  # fmt: skip
def test_a_file_without_ceilings_is_refused(content, tmp_path):
    path = tmp_path / "found.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"found\.jsonl: (holds no measured ceilings|no such file)"):
        cli.matrix.estimates(str(path))
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"found\.jsonl: is no regular file"):  # and is not waited for
        cli.matrix.estimates(str(path))
    with pytest.raises(UserError, match=r"h1OO: no figures of it.*h100, a100"):
        cli.matrix.estimates("h1OO")


def test_replays_and_losses_agree_with_themselves_on_a_cpu(tmp_path):
    its = session.Session(tmp_path, torch.device("cpu"), quick=True)
    assert [max(found["apart"]) for found in session.replays(its)] == [0, 0]
    assert [found["apart"] for found in session.losses(its)] == [0]


def test_a_stage_that_hangs_or_breaks_takes_nothing_along(tmp_path):
    code = (
        "import pathlib, sys, time\n"
        f"pathlib.Path({str(tmp_path)!r}, 'found.jsonl').open('a').write('{{\"stage\": \"%s\"}}\\n' % sys.argv[1])\n"
        "print('said by', sys.argv[1], flush=True)\n"
        "time.sleep(60 if sys.argv[1] == 'hangs' else 0); sys.exit(3 if sys.argv[1] == 'breaks' else 0)"
    )
    its = session.Session(tmp_path, torch.device("cpu"))
    ends = session.run(its, [sys.executable, "-c", code], {"hangs": 0.5, "breaks": 60, "ends": 60})
    assert ends == {"hangs": "out of time after 0.5 s", "breaks": "status 3", "ends": "status 0"}
    assert [(found["stage"], found.get("ended", "")) for found in findings(tmp_path)] == [
        ("hangs", ""), ("hangs", "out of time after 0.5 s"), ("breaks", ""), ("breaks", "status 3"), ("ends", ""),
        ("ends", "status 0"),
    ]  # fmt: skip
    assert (tmp_path / "breaks.log").read_text() == "said by breaks\n"


@pytest.mark.parametrize("options", [{"stage": "tmes"}, {"device": "tpu"}])
def test_bad_options_are_named(options, tmp_path):
    with pytest.raises(UserError, match=r"tmes.*'times'|tpu: expected auto, cpu or cuda"):
        cli.develop.gpu_session(tmp_path, **options)
