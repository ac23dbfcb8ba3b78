"""Shared by the tests: small jobs, small networks, a drawn data set that is made once."""

from pathlib import Path

import pytest

from benchmark import data, grid
from benchmark.job import Job


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def mini_voc(cache: Path) -> Path:
    """Root of the drawn VOC."""
    return data.locate("voc2012-mini", None, cache)


@pytest.fixture
def make_job():
    """make_job("icasc-a_ch", sigma=0.25): a mini job, one of its fields changed."""

    def make(method: str = "baseline", seed: int = 0, **changes) -> Job:
        jobs = grid.load("voc").jobs("mini", changes, {"method": [method], "seed": [seed]})
        return jobs[0]

    return make
