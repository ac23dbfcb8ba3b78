"""The stages of the first minutes on a GPU, rehearsed on a CPU, and what holds when one hangs or breaks."""

import json
import sys

import pytest
import torch

from benchmark import cli
from benchmark.bench import session
from benchmark.errors import UserError

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
