"""What `run --executor slurm` makes of its settings, on a SLURM that is four scripts: what sbatch is given."""

import json
import os
import stat
from pathlib import Path

import pytest

from benchmark.errors import UserError
from benchmark.executors import read_settings, slurm
from benchmark.executors.outcome import How
from benchmark.executors.slurm import Settings
from benchmark.matrix.job import Job
from benchmark.store.run import Run, submit
from tests.test_job import FIELDS

QUIET = lambda runs, told: None  # noqa: E731


def settings_of(folder: Path, text: str, executor: str = "slurm"):
    (folder / "settings.yaml").write_text(text)
    return read_settings(executor, folder / "settings.yaml")


@pytest.mark.parametrize("name", slurm.RESERVED)
@pytest.mark.parametrize("spelled", [str, lambda name: name.replace("-", "_"), lambda name: name[:-1]])
def test_options_that_the_suite_sets_are_refused_in_any_spelling(name, spelled, tmp_path):
    key = spelled(name)
    with pytest.raises(UserError, match=rf"settings.yaml:1: sbatch: '{key}' is not free: the suite sets \S+ itself; "):
        settings_of(tmp_path, f"sbatch: {{{key}: 1}}\n")


def test_reserved_options_name_keys_that_there_are():
    assert {key for key in slurm.RESERVED.values() if key} <= Settings.model_fields.keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{A: vision}", "'A': write an option's long name"),
        ("{--account: vision}", "'--account': write an option's long name"),
        ("{mail-type: END, mail_type: FAIL}", "'mail_type' is there twice"),
        ("{account: null}", "'account': write text, a number, or true"),
        ("{nice: 1.5}", "'nice': write text, a number, or true"),
        ("{gres: 'gpu:1'}", "'gres' asks for GPUs that jobs of gpus: 0 do not use; set 'gpus' too"),
    ],
)
def test_options_that_cannot_be_meant_so_are_refused_in_one_line(text, said, tmp_path):
    with pytest.raises(UserError) as error:
        settings_of(tmp_path, f"sbatch: {text}\n")
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["cpus: 0.00005", "gpus: 0.00005", "cpus: 1.0e-12"])
def test_shares_that_ray_cannot_give_are_refused(text, tmp_path):
    with pytest.raises(UserError, match=r"settings.yaml:1: .pus: Ray gives no less than 0.0001 of one"):
        settings_of(tmp_path, text, "ray")
    assert settings_of(tmp_path, "cpus: 0.0001\ngpus: 0\n", "ray").cpus == 0.0001


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A SLURM of scripts: sbatch keeps what it is given and the environment that it is called in; `squeue` lists what
    `queue` holds."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install .[slurm]")
    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "queue").write_text("")
    scripts = {
        "sbatch": 'n=$(ls "$0".*.sh 2>/dev/null | wc -l); cp "$1" "$0.$n.sh"; env >"$0.$n.env"; '
                  'echo "Submitted batch job $((n + 40))"',
        "squeue": f'[ -z "$SQUEUE_STATES" ] && cat {folder}/queue',
        "scontrol": 'echo "MaxArraySize            = 3"',
        "srun": "exit 1",
    }  # fmt: skip
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.0)
    return folder


def lines_of(script: Path) -> list[str]:
    return [line.removeprefix("#SBATCH --") for line in script.read_text().splitlines() if line.startswith("#SBATCH")]


def submitted(cluster: Path) -> list[list[str]]:
    return [lines_of(script) for script in sorted(cluster.glob("sbatch.*.sh"))]


def execute(runs: list[Run], **settings):
    return slurm.execute(runs, [], Settings(**settings), QUIET)


@pytest.fixture
def runs(tmp_path):
    return [submit(tmp_path / "runs", Job(**FIELDS | {"seed": seed})) for seed in range(7)]


def test_whatever_the_suite_tells_sbatch_is_reserved(cluster, runs):
    execute(runs, time_limit=10, partition="main", cpus=2, gpus=1, memory_gb=4, notice=30, at_once=2)
    given = {line.partition("=")[0] for lines in submitted(cluster) for line in lines}
    assert len(given) > 10
    # wckey is submitit's label, which a user may replace; a user's dependency is kept beside the suite's.
    assert given - {"wckey", "dependency"} <= slurm.RESERVED.keys()


def test_flags_are_flags_and_false_ones_are_left_out(cluster, runs):
    given = {"exclusive": True, "overcommit": True, "contiguous": False, "account": "vision", "nice": 1}
    execute(runs[:1], sbatch=given)
    (lines,) = submitted(cluster)
    assert {"exclusive", "overcommit", "account=vision", "nice=1", "requeue"} <= set(lines)
    assert not [line for line in lines if line.startswith("contiguous")]


def test_more_jobs_than_an_array_may_have_are_several_one_after_another(cluster, runs):
    execute(runs, at_once=2, sbatch={"dependency": "afterok:7"})
    first, second, third = submitted(cluster)
    assert "array=0-2%2" in first
    assert "array=0-2%2" in second
    assert not [line for line in third if line.startswith("array")]
    assert [[line for line in lines if line.startswith("dependency")] for lines in (first, second, third)] == [
        ["dependency=afterok:7"], ["dependency=afterok:7,afterany:40"], ["dependency=afterok:7,afterany:41"]
    ]  # fmt: skip
    ids = [json.loads(run.path("slurm.json").read_text())["id"] for run in runs]
    assert ids == ["40_0", "40_1", "40_2", "41_0", "41_1", "41_2", "42"]


@pytest.mark.parametrize(("shown", "arrays"), [("MaxArraySize = 1001", 1), ("MaxArraySize = 0", 7), ("", 1)])
def test_an_array_is_as_large_as_the_cluster_says(cluster, runs, shown, arrays):
    (cluster / "scontrol").write_text(f"#!/bin/sh\necho '{shown}'\n")
    execute(runs)
    assert len(submitted(cluster)) == arrays


def test_submitted_jobs_take_nothing_from_the_job_that_submits_them(cluster, runs, monkeypatch):
    inside = {
        "SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "7", "SUBMITIT_EXECUTOR": "slurm",
        "RANK": "1", "SBATCH_SIGNAL": "USR1@5", "SBATCH_TIMELIMIT": "1", "SQUEUE_STATES": "COMPLETED",
    }  # fmt: skip
    outside = {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "vision", "HOME": os.environ["HOME"]}
    for name, value in (inside | outside).items():
        monkeypatch.setenv(name, value)
    execute(runs[:1])
    given = dict(line.split("=", 1) for line in (cluster / "sbatch.0.env").read_text().splitlines() if "=" in line)
    assert not {name for name in inside if name in given} - {"SQUEUE_STATES"}
    assert {name: given[name] for name in outside} == outside
    assert os.environ["SLURM_ARRAY_TASK_ID"] == "7", "the caller's environment is as it was"


def test_job_that_leaves_no_record_is_told_with_the_logs_that_it_left(cluster, runs):
    """None where it never started, SLURM's where it failed before the run, and both in the run. The log of an earlier
    attempt is none."""
    never, before, within = runs[:3]
    before.path("log.txt").write_text("an earlier attempt")
    os.utime(before.path("log.txt"), (1, 1))
    submission = slurm.Submission(id="50_0", submitted=100.0)
    for run in (never, before, within):
        run.write(submission.model_copy(update={"id": f"50_{runs.index(run)}"}))
    logs = {}
    for run in (before, within):
        place = f"50_{runs.index(run)}"
        logs[run] = run.folder.parent / ".slurm" / place / f"{place}_0_log.out"
        logs[run].parent.mkdir(parents=True)
        logs[run].write_text("slurmstepd: error: something")
    within.path("log.txt").write_text("Killed")

    def told(run: Run) -> str:
        job = slurm.Watched(run, run.submission().id, missed=slurm.GONE_AFTER)
        outcome = slurm._look(job, set(), [], Settings())
        assert outcome.how == How.GONE_FROM_SLURM
        return str(outcome)

    assert told(never) == (
        "SLURM job 50_0 ended without a record; it has left no log: 'scontrol show job 50_0' says why, or the "
        "cluster's sacct; call again to resume"
    )
    assert told(before) == f"SLURM job 50_1 ended without a record; see {logs[before]}; call again to resume"
    assert told(within).count("see ") == 1
    assert f"see {logs[within]} and {within.path('log.txt')};" in told(within)
