"""Costs are measured ones, or none."""

import pytest

from benchmark.store import cost
from benchmark.store import run as run_module
from benchmark.store.files import write_json


def _ran(runs, job, seconds, device="cpu", threads=2, **more):
    run = run_module.submit(runs, job)
    run.write_metrics([{"epoch": i + 1, "seconds": s} for i, s in enumerate(seconds)])
    machine = {"processor": "A processor"}
    write_json(run.path("environment.json"), {"device": device, "threads": threads, "machine": machine} | more)
    return run


def test_a_job_costs_what_its_like_took(make_job, tmp_path):
    _ran(tmp_path, make_job(seed=0, epochs=3), [50, 36, 30])
    measured = cost.epoch_seconds(tmp_path)
    assert cost.hours(make_job(seed=1, epochs=200), measured) == (pytest.approx(2.0), "A processor, 2 threads")


@pytest.mark.parametrize("change", [{"image_size": 96}, {"limit_train": 5}, {"precision": "float64"}])
def test_an_unlike_job_costs_nothing_known(change, make_job, tmp_path):
    _ran(tmp_path, make_job(), [36])
    measured = cost.epoch_seconds(tmp_path)
    assert cost.hours(make_job(), measured)
    assert cost.hours(make_job(**change), measured) is None
    assert cost.hours(make_job("icasc-a_ch"), measured) is None


def test_the_fastest_machine_is_taken_and_named(make_job, tmp_path):
    _ran(tmp_path, make_job(seed=0), [36, 36])
    _ran(tmp_path, make_job(seed=1), [18, 18], device="A GPU")
    assert cost.hours(make_job(epochs=100), cost.epoch_seconds(tmp_path)) == (pytest.approx(0.5), "A GPU")


def test_recorded_steps_are_a_machine_of_their_own(make_job, tmp_path):
    _ran(tmp_path, make_job(seed=0), [36], device="A GPU")
    _ran(tmp_path, make_job(seed=1), [18], device="A GPU", cuda_graph=True)
    (machines,) = cost.epoch_seconds(tmp_path).values()
    assert machines == {"A GPU": 36, "A GPU, recorded steps": 18}


def test_damaged_and_empty_records_measure_nothing(make_job, tmp_path):
    _ran(tmp_path, make_job(seed=0), [])
    _ran(tmp_path, make_job(seed=1), [36]).path("environment.json").write_text("{")
    _ran(tmp_path, make_job(epochs=2), [36]).path("job.json").write_text("{")
    _ran(tmp_path, make_job(epochs=3), [36]).path("environment.json").write_text("{}")
    assert cost.epoch_seconds(tmp_path) == {}


def test_hours_together_are_those_of_the_fullest_slot():
    assert cost.together([1, 1, 1, 3], 1) == 6
    assert cost.together([1, 1, 1, 3], 2) == 3
    assert cost.together([1, 1, 1, 3], 8) == 3
    assert cost.together([], 4) == 0
