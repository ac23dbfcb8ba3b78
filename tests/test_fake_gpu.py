"""What runs on a GPU, proven without one: every kind of the paper's jobs on tensors of a GPU that computes nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.bench import meter
from tests import fake_gpu

ROOT = Path(__file__).parents[1]
KINDS = meter.paper_kinds()
LATER = sorted({job.dataset for job in KINDS.values()} - {"voc2012"})  # deeper networks, and more of the same


def found(folder, dataset):
    """By check, what was wrong there."""
    if fake_gpu.COMPILER is None:
        pytest.skip("no C++ compiler, g++ or clang++")
    command = [sys.executable, "-m", "tests.fake_gpu", str(folder), dataset]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(line) for line in ended.stdout.splitlines())


def nothing_wrong(checks, dataset):
    """Every check of the data set's kinds of job was made, and found nothing."""
    names = [name for name, job in KINDS.items() if job.dataset == dataset]
    made = {f"step: {n} {p}" for n in names for p in ("float32", "bfloat16")} | {f"around: {n}" for n in names}
    assert len(names) >= 3
    assert made <= checks.keys()
    assert {name: checks[name] for name in made if checks[name]} == {}


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    return found(tmp_path_factory.mktemp("hooks"), "voc2012")


@pytest.mark.slow
def test_a_step_stays_on_the_gpu_and_so_does_what_surrounds_it(checks):
    nothing_wrong(checks, "voc2012")


@pytest.mark.slow
@pytest.mark.parametrize("dataset", LATER)
def test_so_do_those_of_the_other_data_sets(dataset, tmp_path):
    nothing_wrong(found(tmp_path, dataset), dataset)


@pytest.mark.slow
def test_a_recording_reads_only_what_stays_where_it_is_and_holds_no_rate(checks):
    of_recordings = {name: wrong for name, wrong in checks.items() if name.startswith(("recording: ", "rate: "))}
    assert len(of_recordings) == 6
    assert set(of_recordings.values()) == {""}


PLANTED = {
    "item": "DataDependent", "float": "DataDependent", "if": "DataDependent", "item in a backward": "DataDependent",
    "nonzero": "DynamicOutputShape", "boolean mask": "DynamicOutputShape", "scalar of the CPU": "OffGpuError",
    "tensor of the CPU": "", "copy to the host": "OffGpuError", "copy from the host": "OffGpuError",
    "the batch in place of its buffer": "reads", "a term in half precision": "AssertionError",
}  # fmt: skip


@pytest.mark.slow
def test_planted_faults_are_found(checks):
    of_faults = {name.removeprefix("planted: "): wrong for name, wrong in checks.items() if "planted" in name}
    assert of_faults.keys() == PLANTED.keys()
    assert {name: wrong for name, wrong in of_faults.items() if not wrong or PLANTED[name] not in wrong} == {}


PERFORMANCE = ROOT / "docs" / "performance.md"
MOST = 8 * 2**30  # bytes, the smallest GPU that the paper's jobs are to fit


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.slow] if job.dataset in LATER else []) for name, job in KINDS.items()
])  # fmt: skip
def test_every_paper_job_trains_and_tests_within_8_gib_as_documented(name):
    estimate = meter.estimate(KINDS[name], meter.GPUS["h100"])
    assert 0 < estimate.peak_bytes < MOST
    (row,) = (line for line in PERFORMANCE.read_text().splitlines() if line.startswith(f"| {name} |"))
    gib, gmac, _, _, eager, recorded = map(float, [*row.split(" | ")[2:7], row.split(" | ")[7].rstrip(" |")])
    expected = estimate.peak_bytes / 2**30, estimate.multiply_adds / 1e9, estimate.hours, estimate.hours_recorded
    assert (gib, gmac, eager, recorded) == pytest.approx(expected, rel=0.02)  # torch's versions split operations apart


def test_the_meter_counts_what_is_known_by_hand():
    """ResNet-18's published 1.8 G multiply-adds at 224, forward, and three times that with both gradients but the first
    layer's; parameters, gradients and momentum are held at least."""
    job = KINDS["voc2012 resnet18 baseline"].model_copy(update={"image_size": 224})
    its = meter.step(job)
    assert its.multiply_adds / job.batch_size == pytest.approx(3 * 1.814e9 - 0.118e9, rel=0.01)
    assert 3 * 4 * 11.2e6 < its.peak_bytes < 2**30
    assert its.seconds(meter.GPUS["h100"], "float32", True) < its.seconds(meter.GPUS["v100"], "float32", True)
    assert meter.test(job).multiply_adds / 83 == pytest.approx(1.814e9, rel=0.01)  # 83 images are 2**22 pixels


def test_published_trainings_are_no_faster_than_the_estimate():
    """It is a roofline: a share above 1 would be an error of the meter, a tiny one a useless bound."""
    shares = dict(meter.published_shares())
    assert len(shares) == len(meter.PUBLISHED)
    assert all(0.2 < share <= 1 for share in shares.values()), shares
