"""Settings of the executors are read strictly, and a job never holds them."""

import re
import sys

import pytest

from benchmark.errors import UserError
from benchmark.executors import EXECUTORS, SETTINGS, read_settings, slurm
from benchmark.job import FIELDS
from tests.test_cli import bench

BAD = {
    "executor": ("rai", None, "--executor rai: there is no such executor; did you mean 'ray'?"),
    "local": ("local", "cpus: 1", "--settings {path}: the local executor has none; name --executor ray or slurm"),
    "key": ("slurm", "gpus: 1\npartitoin: a", "{path}:2: unknown key 'partitoin'; did you mean 'partition'?"),
    "other executor's key": ("ray", "cpus: 2\ntime_limit: 5", "{path}:2: unknown key 'time_limit'; expected one of: "),
    "number": ("slurm", "time_limit: '60'", "{path}:1: time_limit: expected a number (got '60')"),
    "range": ("ray", "gpus: -1", "{path}:1: gpus: Input should be greater than or equal to 0 (got -1)"),
    "whole": ("slurm", "gpus: 0.5", "{path}:1: gpus: Input should be a valid integer"),
    "text": ("slurm", "partition: [a]", "{path}:1: partition: Input should be a valid string (got ['a'])"),
    "list": ("slurm", "- gpus", "{path}: settings are a mapping with the keys time_limit, "),
    "twice": ("ray", "cpus: 1\ncpus: 2", "{path}:2: duplicate key 'cpus'; keep one of the two"),
    "no YAML": ("ray", "cpus: [", "{path}:1: not valid YAML: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_named_with_their_line(name, tmp_path):
    executor, text, message = BAD[name]
    path = tmp_path / "settings.yaml" if text is not None else None
    if path is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message.format(path=path))) as error:
        read_settings(executor, path)
    assert "\n" not in str(error.value)


def test_settings_have_defaults_and_are_no_part_of_a_job(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    for name, model in SETTINGS.items():
        assert read_settings(name, None) == read_settings(name, tmp_path / "empty.yaml") == model()
        assert not set(model.model_fields) & set(FIELDS)
    assert set(EXECUTORS) == {"local", *SETTINGS}
    assert read_settings("local", None) is None


def test_options_of_another_executor_are_refused(tmp_path, cache, mini_voc):
    ended = bench(tmp_path, "run", "--grid", "voc", "--executor", "ray", "--workers", "2", "--cache", str(cache))
    assert ended.returncode == 2
    assert ended.stderr == "error: --workers is the local executor's; --executor ray is told in --settings FILE\n"


@pytest.mark.parametrize(("executor", "package", "extra"), [("ray", "ray", "ray"), ("slurm", "submitit", "slurm")])
def test_engine_that_is_not_installed_is_named(executor, package, extra, tmp_path, make_job, monkeypatch):
    from benchmark import store

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(slurm, "_queued", lambda *_: set())
    runs = [store.submit(tmp_path, make_job())]
    with pytest.raises(UserError, match=rf"--executor {executor}: .* is not installed; pip install \.\[{extra}\]"):
        EXECUTORS[executor](runs, [], SETTINGS[executor](), lambda *_: None)
