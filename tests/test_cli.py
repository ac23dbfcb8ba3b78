"""The commands as a user types them: a whole small grid, every kind of bad input, kills and two schedulers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark import cli
from benchmark.bench import meter
from benchmark.errors import UserError
from benchmark.executors import EXECUTORS
from benchmark.executors.outcome import How, Outcome, recorded
from benchmark.matrix import grid
from benchmark.store import claim as claim_module
from benchmark.store import run as run_module
from benchmark.store.files import write_json
from tests.conftest import MAIN

ROOT = Path(__file__).parents[1]
QUICK = ["--grid", "voc", "--set", "epochs=2", "--set", "limit_train=32", "--set", "image_size=32", "--set", "seed=0"]
ONE_THREAD = ["--workers", str(os.cpu_count())]  # a job's, as `finished` had it: others split their sums otherwise


@pytest.fixture(scope="module")
def cache_option(small_cache) -> list[str]:
    return ["--cache", str(small_cache)]


@pytest.fixture
def workplace(tmp_path) -> Path:
    """An empty folder, so that nothing is written into the checkout."""
    return tmp_path


def bench(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmark", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, env=_env(), **options)


def _env() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """As from a terminal: Ctrl-C is not ignored, even where these tests run in the background, whose processes inherit
    that."""
    command = [sys.executable, "-m", "benchmark", *arguments]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a handler is not inherited, SIG_IGN would be
    try:
        return subprocess.Popen(
            command, cwd=folder, env=_env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def in_this_process(runs, arguments, slots, view) -> dict[str, Outcome]:
    """Stands for the local executor where workers are not what is tested: each would take seconds to import torch."""
    for run in runs:
        if run.state() != "done":
            words = ["run-job", str(run.folder), "--threads", "1", *arguments]
            run.path("log.txt").write_text(CliRunner().invoke(cli.app, words).output)
    view(runs, {})
    return {run.id: recorded(run, run.state()) or Outcome(How.BUDGET_USED) for run in runs}


@pytest.fixture
def call_in_this_process(call, monkeypatch):
    """`call`, whose `run` starts no workers."""
    monkeypatch.setitem(EXECUTORS, "local", in_this_process)
    return call


def saved_scores(path: Path) -> np.ndarray:
    with np.load(path) as saved:
        return saved["scores" if "scores" in saved else "top_log_probs"]


def scores(runs: Path) -> dict[str, np.ndarray]:
    return {path.parent.name: saved_scores(path) for path in sorted(runs.glob("*/*/scores.npz"))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache_option) -> tuple[Path, str]:
    """A small grid run to its end once, in this process, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(EXECUTORS, "local", in_this_process)
        ended = CliRunner().invoke(cli.app, ["run", *QUICK, *cache_option, "--device", "cpu"])
    assert ended.exit_code == 0, ended.output
    return folder, ended.stdout


def test_run_trains_and_ends_with_the_table(finished):
    folder, printed = finished
    assert printed.startswith("scale mini: no data root is given")
    assert "3 jobs, 0 done, 3 to run" in printed
    written = "tables/mini/epochs=2,image_size=32,limit_train=32,seed=0"
    assert f"writes a folder for each job to runs/mini/, and {written}/table2.*, {written}/voc.*\n" in printed
    assert f"written: {written}/table2.{{md,tex,csv,json}}\n" in printed
    assert "not comparable with the published cells" in printed
    assert "epochs: 2 (paper: 20)" in printed
    generated = folder / "tables" / "mini" / "epochs=2,image_size=32,limit_train=32,seed=0"
    assert {p.name for p in generated.iterdir()} >= {"table2.md", "table2.tex", "table2.csv", "table2.json"}


def test_second_call_only_renders_the_same_bytes(finished, cache_option, call):
    folder, _ = finished
    files = sorted((folder / "tables" / "mini").rglob("table2.*"))
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}
    ended = call(folder, "run", *QUICK, *cache_option)
    assert "3 jobs, 3 done, 0 to run" in ended.stdout
    assert ended.returncode == 0
    assert {p: p.read_bytes() for p in files} == {p: b for p, (b, _) in before.items()}


def test_tables_fit_the_terminal_unless_told_otherwise(finished, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command = ["tables", "--table", "table2", *QUICK[2:], "--scale", "mini"]
    narrow, wide = (call(finished[0], *command, *more).stdout.splitlines() for more in ([], ["--wide"]))
    assert "+ ICASC Grad-CAM; intervals over images only" in narrow
    assert max(len(line) for line in narrow if line.startswith("mAP")) <= 80
    assert max(len(line) for line in wide if line.startswith("mAP")) > 80


def test_what_is_set_otherwise_has_tables_of_its_own_only_where_it_ran_and_is_otherwise(finished, call):
    """Of 3 jobs at another size: not of the controls, not of other grids, and none for what is the grid's own value."""
    folder, _ = finished
    own = sorted(path.relative_to(folder) for path in (folder / "tables" / "mini").rglob("*.md"))
    printed = call(folder, "tables", *QUICK[2:], "--scale", "mini").stdout
    place = "tables/mini/epochs=2,image_size=32,limit_train=32,seed=0"
    assert [line for line in printed.splitlines() if line.startswith("written: ") and place in line] == [
        f"written: {place}/{name}.{{md,tex,csv,json}}" for name in ("table2", "voc")
    ]
    call(folder, "tables", "--scale", "mini", "--set", "precision=float32", "--table", "cifar100")
    made = sorted(path.relative_to(folder) for path in (folder / "tables" / "mini").rglob("*.md"))
    assert set(made) - set(own) <= {Path("tables/mini") / f"{name}.md" for name in ("cifar100", "headline", "table1")}
    assert Path("tables/mini/cifar100.md") in made


def test_plan_shows_the_estimate_beside_the_measurement_and_calls_it_one(finished, call, monkeypatch):
    counted = []

    def estimate(job, gpu):
        counted.append(job.method)
        return meter.Estimate(gpu.name, 3 * 2**30, 160e9, 6_500_000_000, 274, 0.5, 0.25)

    monkeypatch.setattr(meter, "estimate", estimate)
    monkeypatch.setattr(meter, "published_shares", lambda: [("A100", 0.5), ("V100", 0.8)])
    folder, _ = finished
    text = call(folder, "plan", *QUICK, "--gpu", "a100", "--json").stdout
    for row in json.loads(text):
        assert row["hours"] > 0
        assert row["estimate"]["hours"] == 0.5
    counted.clear()
    text = call(folder, "plan", "--grid", "voc", "--scale", "paper", "--gpu", "a100").stdout
    assert sorted(counted) == ["baseline", "icasc-a_ch", "icasc-grad_cam"]  # three seeds of each are one kind
    assert "estimate on one A100 SXM 80 GB: 4.5 h, with recorded steps 2.25 h" in text
    assert "estimates, none measured here" in text
    assert "0.50 to 0.80 of what is estimated so: expect 1.2 to 2.0 times the hours" in text
    ended = call(folder, "plan", "--grid", "voc", "--gpu", "h10")
    assert (ended.returncode, "did you mean 'h100'" in ended.stderr) == (2, True)
    assert call(folder, "plan", "--all", "--grid", "voc").returncode == 2


def test_status_and_plan_show_the_states(finished, call):
    folder, _ = finished
    rows = json.loads(call(folder, "status", "--json").stdout)
    assert [r["state"] for r in rows] == ["done"] * 3
    rows = json.loads(call(folder, "plan", *QUICK, "--json").stdout)
    assert [r["state"] for r in rows] == ["done"] * 3
    assert {"id", "grid", "scale", "backbone", "method", "seed", "state", "epochs"} <= set(rows[0])
    assert all(r["hours"] > 0 and r["machine"] for r in rows)
    assert "on 8 (as measured on " in call(folder, "plan", *QUICK, "--set", "epochs=4").stdout
    assert "cost not measured" in call(folder, "plan", "--grid", "cub200").stdout
    rows = json.loads(call(folder, "plan", "--grid", "voc", "--only", "method=icasc-a_ch", "--json").stdout)
    assert [(r["method"], r["seed"], r["state"]) for r in rows] == [("icasc-a_ch", s, "pending") for s in (0, 1)]


def test_diff_says_that_a_mini_table_is_not_comparable(finished, call):
    folder, _ = finished
    ended = call(folder, "diff", "--table", "table2", *QUICK[2:], "--json")
    assert ended.returncode == 2
    cells = json.loads(ended.stdout)["cells"]
    assert {c["outcome"] for c in cells} == {"not comparable"}


def test_corrupt_record_is_named_and_the_others_go_on(finished, tmp_path, cache_option, call_in_this_process):
    call = call_in_this_process
    folder = Path(shutil.copytree(finished[0], tmp_path / "copy"))
    victim = sorted((folder / "runs").glob("mini/*baseline*/result.json"))[0]
    victim.write_text('{"job": ')
    ended = call(folder, "tables", "--table", "table2", *QUICK[2:], "--scale", "mini")
    assert "corrupt record" in ended.stderr
    assert "sets it aside" in ended.stderr
    assert ended.returncode == 0
    assert "corrupt" in ended.stdout
    ended = call(folder, "run", *QUICK, *cache_option, "--device", "cpu")
    assert "2 done, 1 to run" in ended.stdout
    assert ended.returncode == 0


def test_killed_workers_and_scheduler_lose_nothing(finished, workplace, cache_option, call_in_this_process):
    one = ["--only", "method=icasc-a_ch", *ONE_THREAD]
    process = start(workplace, "run", *QUICK, *one, *cache_option, "--device", "cpu")
    runs = workplace / "runs"
    wait_for(lambda: list(runs.glob("*/*/checkpoint.pt")))
    process.kill()
    process.communicate()
    for claim in runs.glob("*/*/claim.json"):
        pid = json.loads(claim.read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(r.state() != "running" for r in run_module.all_runs(runs)))
    ended = call_in_this_process(workplace, "run", *QUICK, *one, *cache_option, "--device", "cpu")
    assert ended.returncode == 0, ended.stderr
    ((job, its),) = scores(runs).items()
    assert (its == scores(finished[0] / "runs")[job]).all()


def test_status_watches_until_nothing_is_left_to_run(workplace):
    """From the run folders alone: whoever runs the job, here the test itself, epoch by epoch as it is seen."""
    run = run_module.submit(workplace / "runs", grid.load("voc").jobs("mini")[0])
    process = start(workplace, "status", "--watch")
    epochs = []
    try:
        assert process.stdout.readline() == "watching: 1 pending\n"
        with run.claim():
            assert process.stdout.readline() == f"{run.id}: running\n"
            for epoch in (1, 2):
                epochs.append({"epoch": epoch, "test_mAP": epoch / 10})
                run.write_metrics(epochs)
                assert process.stdout.readline() == f"{run.id}: running, epoch {epoch}, test mAP {10 * epoch}.0\n"
            write_json(run.path("result.json"), {"job": run.id})
        printed, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert printed.splitlines()[0] == f"{run.id}: done, epoch 2, test mAP 20.0"
    assert printed.strip().endswith("1 done")


def test_status_says_how_far_a_job_is_that_was_stopped(workplace, call):
    jobs = grid.load("voc").jobs("mini")[:2]
    stopped, anew = (run_module.submit(workplace / "runs", job) for job in jobs)
    for run in (stopped, anew):
        run.write_metrics([{"epoch": 1}, {"epoch": 2}])
    stopped.path("checkpoint.pt").touch()  # without one, the run starts anew
    epochs = jobs[0].epochs
    printed = call(workplace, "status").stdout
    assert f"pending, 2 of {epochs} epochs kept" in next(line for line in printed.splitlines() if stopped.id in line)
    assert "kept" not in next(line for line in printed.splitlines() if anew.id in line)
    assert printed.strip().endswith("2 pending")
    rows = {row["id"]: (row["state"], row["epoch"]) for row in json.loads(call(workplace, "status", "--json").stdout)}
    assert rows == {stopped.id: ("pending", f"2/{epochs}"), anew.id: ("pending", f"0/{epochs}")}


def test_watching_ends_with_ctrl_c(workplace):
    run_module.submit(workplace / "runs", grid.load("voc").jobs("mini")[0])
    process = start(workplace, "status", "--watch")
    assert process.stdout.readline() == "watching: 1 pending\n"
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert (process.returncode, printed.strip().splitlines()[-1]) == (0, "1 pending"), printed


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_stopping_is_clean(workplace, cache_option, how):
    process = start(workplace, "run", *QUICK, *cache_option, "--device", "cpu", "--only", "method=icasc-a_ch")
    runs = workplace / "runs"
    wait_for(lambda: list(runs.glob("*/*/progress.json")))
    pids = [json.loads(c.read_text())["pid"] for c in runs.glob("*/*/claim.json")]
    process.send_signal(how)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else 143)
    assert "Traceback" not in printed
    assert not list(runs.glob("*/*/claim.json")), "claims are released"
    for pid in pids:
        assert claim_module.process_start(pid) is None, "workers are gone"
    assert {r.state() for r in run_module.all_runs(runs)} <= {"pending", "done"}


@pytest.mark.slow
def test_two_schedulers_share_the_work(workplace, cache_option):
    two = ["--only", "method=baseline", "--only", "method=icasc-a_ch", "--device", "cpu", "--workers", "1"]
    both = [start(workplace, "run", *QUICK, *two, *cache_option) for _ in range(2)]
    printed = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    logs = sorted((workplace / "runs").glob("*/*/metrics.jsonl"))
    assert len(logs) == 2
    assert [r.state() for r in run_module.all_runs(workplace / "runs")] == ["done"] * 2


BAD = {
    "grid": (["run", "--grid", "vok"], "unknown grid 'vok'; did you mean 'voc'"),
    "scale": (["run", "--grid", "voc", "--scale", "papr"], "no scale 'papr'; did you mean 'paper'"),
    "key": (["run", "--grid", "voc", "--set", "epoch=2"], "unknown field 'epoch'; did you mean 'epochs'"),
    "type": (["run", "--grid", "voc", "--set", "epochs=many"], "epochs: expected a number"),
    "no value": (["run", "--grid", "voc", "--set", "epochs"], "expected key=value"),
    "no plain value": (["run", "--grid", "voc", "--only", "seed=[1]"], "expected one value"),
    "huge seed": (["run", "--grid", "voc", "--set", f"seed={10**54}"], "seed: Input should be less than 4294967296"),
    "choice": (["run", "--grid", "voc", "--set", "precision=float61"], "did you mean 'float6"),
    "backbone": (
        ["run", "--grid", "voc", "--set", "backbone=resnet_18"],
        "'resnet_18' is not a valid value; did you mean 'resnet18'",
    ),
    "only": (["run", "--grid", "voc", "--only", "method=icasc"], "no job has method=icasc; did you mean"),
    "dataset": (["run", "--grid", "voc", "--set", "dataset=voc"], "unknown data set 'voc'; did you mean"),
    "no root": (["run", "--grid", "voc", "--scale", "paper"], "say where it lies with --data-root"),
    "root": (["run", "--grid", "voc", "--scale", "paper", "--data-root", "nowhere"], "nowhere: no such folder"),
    "empty root": (["run", "--grid", "voc", "--scale", "paper", "--data-root", "."], "must hold VOCdevkit/VOC2012"),
    "weights": (["run", "--grid", "voc", "--weights", "nowhere"], "nowhere: no such file or folder"),
    "weights, before any data": (
        ["run", "--grid", "voc", "--scale", "paper", "--data-root", ".", "--weights", "."],
        "resnet18-f37072fd.pth: no such weights file",
    ),
    "table": (["diff", "--table", "table3"], "unknown table 'table3'; did you mean"),
    "no gpu": (["run", "--grid", "voc", "--gpus", "0"], "--gpus 0: no GPU '0' here"),
    "gpus on the cpu": (["run", "--grid", "voc", "--gpus", "0", "--device", "cpu"], "leave one of them out"),
    "timeout": (["run", "--grid", "voc", "--timeout", "0"], "--timeout 0: expected seconds, more than 0"),
    "watch": (["status", "--watch", "--json"], "--watch with --json: leave one of them out"),
    "status scale": (["status", "--scale", "papr"], "unknown scale 'papr'; did you mean 'paper'"),
    "job folder": (["run-job", "nowhere"], "job.json: missing"),
    "no grid": (["run"], "Missing option '--grid'"),
    "option": (["run", "--gird", "voc"], "No such option"),
    "range": (["run", "--grid", "voc", "--workers", "0"], "Invalid value for '--workers'"),
    "command": (["rnu"], "No such command 'rnu'"),
    "sub-command": (["data", "verfy"], "No such command 'verfy'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_line_and_status_2(name, workplace, cache_option, call):
    arguments, message = BAD[name]
    extra = cache_option if arguments[0] == "run" else []
    ended = call(workplace, *arguments, *extra)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert message in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not list(workplace.glob("runs/*/*/result.json"))


def test_run_where_no_table_files_are_takes_the_package_s(finished, tmp_path, cache_option, call):
    folder = Path(shutil.copytree(finished[0] / "runs", tmp_path / "runs")).parent
    ended = call(folder, "run", *QUICK, *cache_option, "--tables", "empty")
    assert ended.returncode == 0
    assert list((tmp_path / "empty" / "mini").glob("*/table2.md"))


def test_plan_shows_the_whole_matrix(workplace, call):
    """Data sets x backbones x settings x methods x seeds."""
    for scale, seeds, together in (("paper", {}, 81), ("mini", {"voc": 2}, 30)):
        printed = call(workplace, "plan", "--scale", scale).stdout
        for name, cells in {"caltech256": 12, "cifar100": 3, "cub200": 6, "ilsvrc2012": 3, "voc": 3}.items():
            num_seeds = 3 if scale == "paper" else seeds.get(name, 1)
            assert f"{name}: {cells * num_seeds} jobs at scale {scale}" in printed
        assert f"together: {together} jobs" in printed


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_bad_image_of_real_data_is_named(damage, workplace, own_lists, cache_option, call_in_this_process):
    assert own_lists.parent == workplace
    image = next((own_lists / MAIN.parents[1] / "JPEGImages").iterdir())
    image.unlink() if damage == "missing" else image.write_bytes(image.read_bytes()[:300])
    options = ["--scale", "subset", "--data-root", "data", "--set", "weights=scratch", "--set", "image_size=32"]
    only = "--only", "method=baseline,seed=0"
    ended = call_in_this_process(workplace, "run", "--grid", "voc", *options, *only, *cache_option)
    assert ended.returncode == 2
    assert image.name in ended.stderr
    assert "Traceback" not in ended.stderr


def test_read_only_runs_folder(workplace, cache_option, call):
    if os.geteuid() == 0:
        (workplace / "runs").write_text("a file where the folder should be")  # root may write anywhere
    else:
        (workplace / "runs").mkdir(mode=0o500)
    ended = call(workplace, "run", *QUICK, *cache_option)
    assert ended.returncode == 2
    assert "cannot be written" in ended.stderr


def test_published_prints_cells_with_their_source(call):
    cells = json.loads(call(ROOT, "published", "--table", "table2", "--json").stdout)
    assert len(cells) == 63
    cow = next(c for c in cells if c["row"] == "cow" and c["column"] == "icasc-a_ch")
    assert (cow["value"], cow["unit"]) == (71.12, "%")
    assert "Table 2" in cow["source"]


def test_assumptions_are_printed_with_reasons(call):
    rows = json.loads(call(ROOT, "assumptions", "--grid", "voc", "--json").stdout)
    assert {"sigma", "mask_source", "second_order", "ap_definition", "weights"} <= {r["assumption"] for r in rows}
    assert all(len(r["why"]) > 20 for r in rows)


def test_a_used_budget_ends_at_a_checkpoint_and_can_be_called_again(workplace, cache_option, finished, call):
    command = ["run", *QUICK, *cache_option, "--device", "cpu", "--only", "method=baseline", *ONE_THREAD]
    ended = bench(workplace, *command, "--budget", "1s")  # shorter than importing torch
    assert ended.returncode == 3, ended.stdout + ended.stderr
    said, last = ended.stderr.splitlines()
    assert ": 0 epochs kept" in said
    assert last == "budget of 1s used, 1 of 1 jobs left; call again to go on"
    assert "1 pending" in call(workplace, "status").stdout
    ended = bench(workplace, *command, "--budget", "1h")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for job, its in scores(workplace / "runs").items():
        assert (its == scores(finished[0] / "runs")[job]).all()


@pytest.mark.parametrize("budget", ["10", "0m", "-5m", "1.5h", "10 m", "10min", "m"])
def test_a_budget_that_is_no_duration_is_named(workplace, budget, call):
    ended = call(workplace, "run", *QUICK, f"--budget={budget}")
    assert ended.returncode == 2
    assert ended.stderr == f"error: --budget {budget}: expected a whole number and a unit, as 90s, 10m or 2h\n"


def test_a_job_that_ran_out_of_time_says_where(tmp_path):
    run = run_module.Run(tmp_path)
    assert cli.run.why_stopped(run) == ""  # not begun
    first = "--- 2026-01-01T00:00:00Z attempt 1 on CPU\nout of time: in epoch 2, after 3 steps\n--- 2026-01-01 ended\n"
    run.path("log.txt").write_text(first)
    assert cli.run.why_stopped(run) == "; out of time: in epoch 2, after 3 steps"
    run.path("log.txt").write_text(first + "--- 2026-01-01T00:00:09Z attempt 1 on CPU\na later call\n")
    assert cli.run.why_stopped(run) == ""


def test_a_cuda_graph_without_a_gpu_is_refused_before_anything_is_written(tmp_path, call):
    ended = call(tmp_path, "run", "--grid", "voc", "--scale", "mini", "--device", "cpu", "--cuda-graph")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: --cuda-graph: there is no GPU here")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status", "--runs", "x" * 5000], "File name too long; name another path"),
        (["run-job", "x" * 300], "File name too long"),
        (["plan", "--grid", "voc", "--scale", "mini", "--weights", "/proc/self/mem"], "cannot be read"),
        (["plan", "--grid", "voc", "--scale", "mini", "--weights", "/dev/zero"], "is no regular file"),
        (["sensitivity", "--grid", "voc", "--scale", "mini", "--vary", "difficult_test=[x]"], "no such reading"),
        (["run", "--grid", "voc", "--workers", "1" * 24], "--workers"),
        (["run", "--grid", "voc", "--device", "cuda"], "torch sees no CUDA device"),
        (["run", "--grid", "voc", "--scale", "mini", "--set", "weights=imagenet1k_v1"], "has no ImageNet weights"),
        (["explain", "table2:mAP:baseline", "--rounds", "1000000000"], "--rounds"),
        (["report", "--rounds", "1000000000"], "--rounds"),
        (["run", "--grid", "voc", "--executor", "slurm", "--settings", "/dev/zero"], "/dev/zero: is no regular file"),
        (["diff", "pipe.json", "pipe.json"], "pipe.json: is no regular file"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_what_cannot_succeed_is_one_line_and_starts_nothing(words, message, call, tmp_path, cache):
    words += ["--cache", str(cache)] if words[0] == "run" else []
    os.mkfifo(tmp_path / "pipe.json")
    ended = call(tmp_path, *words)
    assert ended.returncode == 2, ended
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "runs").exists()


def test_a_table_asked_for_where_it_is_not_made_is_named(tmp_path):
    words = ["tables", "--table", "voc-controls", "--scale", "mini", "--tables", str(tmp_path)]
    (tmp_path / "runs").mkdir()
    words += ["--runs", str(tmp_path / "runs")]
    with pytest.raises(UserError, match="made at scale controls, reduced, subset, year2008, not at 'mini'"):
        CliRunner().invoke(cli.app, words, catch_exceptions=False)
