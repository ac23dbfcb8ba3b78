"""Whole jobs on a few drawn scenes: resuming equals not stopping, divergence is an outcome, weights must fit."""

import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmark import data
from benchmark.checks import audit
from benchmark.errors import UserError
from benchmark.matrix import grid, study
from benchmark.matrix import own as own_study
from benchmark.matrix.study import Method
from benchmark.methods import models
from benchmark.methods.baseline import baseline
from benchmark.methods.models import BACKBONES
from benchmark.results import same_data
from benchmark.store import metrics, scores
from benchmark.store import run as run_module
from benchmark.store.records import Progress
from benchmark.store.run import Run
from benchmark.train import batches, checkpoint, loop, recording, weights
from tests import networks
from tests.networks import PAPER_METHODS

QUICK = {"limit_train": 48, "epochs": 3, "image_size": 32}


@pytest.fixture
def execution(small_cache) -> loop.Execution:
    return loop.Execution(data_root=None, weights_file=None, cache=small_cache, device="cpu", threads=1)


def _run(folder, job, execution) -> run_module.Run:
    run = run_module.submit(folder, job)
    loop.run_job(run, execution)
    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """undisturbed(name, job, execution): that job run to its end when nothing happens, once for each name."""
    made = {}

    def get(name: str, job, execution) -> run_module.Run:
        if name not in made:
            made[name] = _run(tmp_path_factory.mktemp("undisturbed"), job, execution)
        return made[name]

    return get


def _scores(run) -> np.ndarray:
    with np.load(run.path("scores.npz")) as saved:
        return saved["scores"]


@pytest.mark.parametrize("method", PAPER_METHODS)
@pytest.mark.parametrize("stop_in", ["the second epoch", "the test after the last epoch"])
def test_resuming_equals_not_stopping(method, stop_in, make_job, execution, undisturbed, tmp_path, monkeypatch):
    job = make_job(method, warmup_epochs=1, **QUICK) if method != "baseline" else make_job(method, **QUICK)
    whole = undisturbed(method, job, execution)

    calls = {"n": 0}
    module, name, limit = (loop, "learning_rate", 5) if stop_in == "the second epoch" else (scores, "write", 1)
    real = getattr(module, name)

    def interrupted(*args):
        calls["n"] += 1
        if calls["n"] == limit:
            raise SystemExit(143)  # what the signal handler raises
        return real(*args)

    cut = run_module.submit(tmp_path / "cut", job)
    monkeypatch.setattr(module, name, interrupted)
    with pytest.raises(SystemExit):
        loop.run_job(cut, execution)
    monkeypatch.undo()
    assert cut.state() == "pending"
    assert cut.path("checkpoint.pt").exists()
    # Another number of threads is asked for, but the run goes on with the number that it began with.
    loop.run_job(cut, dataclasses.replace(execution, threads=2))
    assert (_scores(cut) == _scores(whole)).all()
    mine, theirs = (
        [{k: v for k, v in e.model_dump().items() if k != "seconds"} for e in r.metrics()] for r in (cut, whole)
    )
    assert mine == theirs


@pytest.mark.parametrize("why", ["SIGTERM", "its time is up"])
@pytest.mark.parametrize(
    ("where", "moment"),
    [("in epoch 2, after 1 steps", 4), ("in epoch 2, after 3 steps", 6), ("in the test after epoch 2", 6)],
)
def test_a_run_that_is_stopped_loses_no_step(
    where, moment, why, make_job, execution, undisturbed, tmp_path, monkeypatch
):
    """And ends with the same scores and metrics as one that was not, dropout's draws included."""
    job, real_step, real_predict = make_job("icasc-a_ch", **QUICK), loop.Step.__call__, loop.predict

    def drawing(step, images, *args):
        return real_step(step, images * torch.rand(()), *args)  # as dropout would

    monkeypatch.setattr(loop.Step, "__call__", drawing)
    whole, cut = undisturbed("with dropout", job, execution), run_module.submit(tmp_path / "cut", job)
    now, taken = {"time": 0.0}, []

    def up() -> None:
        if why == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            now["time"] = 1e9

    def step(*args):
        taken.append(drawing(*args))
        if len(taken) == moment and "test" not in where:
            up()
        return taken[-1]

    def predict(model, test, view, job, after_batch):
        if len(taken) == moment and "test" in where:
            up()
        return real_predict(model, test, view, job, after_batch)

    monkeypatch.setattr(checkpoint, "clock", lambda: now["time"])
    monkeypatch.setattr(loop.Step, "__call__", step)
    monkeypatch.setattr(loop, "predict", predict)
    ending = SystemExit if why == "SIGTERM" else checkpoint.OutOfTimeError
    with pytest.raises(ending) as ended:
        loop.run_job(cut, dataclasses.replace(execution, deadline=1e6))
    monkeypatch.undo()
    assert str(ended.value) == ("143" if why == "SIGTERM" else where)
    assert cut.state() == "pending"
    assert len(cut.metrics()) == 1

    taken.clear()
    shown, real_write = [], Run.write
    monkeypatch.setattr(Run, "write", lambda run, record: shown.append(record) or real_write(run, record))
    monkeypatch.setattr(loop.Step, "__call__", lambda *args: taken.append(None) or drawing(*args))
    loop.run_job(cut, execution)
    assert len(taken) == 9 - moment, "no step is taken twice"
    assert next(record.done for record in shown if isinstance(record, Progress)) == round(moment / 9, 4)
    assert (_scores(cut) == _scores(whole)).all()
    mine, theirs = (
        [{k: v for k, v in e.model_dump().items() if k != "seconds"} for e in r.metrics()] for r in (cut, whole)
    )
    assert mine == theirs


@pytest.fixture
def drawing_method():
    """Of a study: it draws from torch's global generator, as benchmark/methods says it may."""

    def drawing(model, images_BCHW, labels, job, epoch):
        return baseline(model, images_BCHW + 0.1 * torch.randn_like(images_BCHW), labels, job, epoch)

    built_in = study.built_in()
    study._at_hand = dataclasses.replace(built_in, methods={**built_in.methods, "drawing": Method(drawing)})
    yield "drawing"
    own_study.use(None)


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_resumed_run_draws_what_an_undisturbed_one_does(
    how, drawing_method, make_job, execution, undisturbed, tmp_path, monkeypatch
):
    job = make_job("baseline", **QUICK).model_copy(update={"method": drawing_method})
    whole, cut = undisturbed(drawing_method, job, execution), run_module.submit(tmp_path / "cut", job)
    assert (_scores(whole) != _scores(undisturbed("baseline", make_job("baseline", **QUICK), execution))).any()
    real, taken, now = loop.Step.__call__, [], {"time": 0.0}

    def step(*args):
        taken.append(1)
        if len(taken) == 5 and how == "killed":  # in the second epoch, whose steps are lost
            raise SystemExit(137)
        now["time"] = 1e9 if len(taken) == 5 else 0.0
        return real(*args)

    monkeypatch.setattr(checkpoint, "clock", lambda: now["time"])
    monkeypatch.setattr(loop.Step, "__call__", step)
    with pytest.raises(SystemExit if how == "killed" else checkpoint.OutOfTimeError):
        loop.run_job(cut, dataclasses.replace(execution, deadline=1e6))
    monkeypatch.undo()
    torch.manual_seed(99)  # another process's generator stands elsewhere
    loop.run_job(cut, execution)
    assert (_scores(cut) == _scores(whole)).all()


def test_sigterm_s_own_handler_is_back_afterwards(make_job, execution, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    _run(tmp_path, make_job(**QUICK), execution)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_deadline_that_has_passed_begins_nothing(make_job, execution, tmp_path):
    run = run_module.submit(tmp_path, make_job(**QUICK))
    with pytest.raises(checkpoint.OutOfTimeError, match="no time is left"):
        loop.run_job(run, dataclasses.replace(execution, deadline=1.0))
    assert run.state() == "pending"
    assert not run.path("checkpoint.pt").exists()


def test_result_can_be_recomputed_from_the_saved_scores(make_job, execution, tmp_path):
    run = _run(tmp_path, make_job(**QUICK), execution)
    record = json.loads(run.path("result.json").read_bytes())
    with np.load(run.path("scores.npz")) as saved:
        for definition in metrics.DEFINITIONS:
            ap = metrics.per_class_ap(saved["scores"], saved["labels"], definition)
            assert list(record["ap"][definition].values()) == ap
            assert record["mAP"][definition] == metrics.mean_ap(ap)
    assert record["epoch"] == 3
    assert record["num_train"] == 48
    assert not run.path("checkpoint.pt").exists()
    assert json.loads(run.path("environment.json").read_bytes())["packages"]["torch"]


def test_baseline_and_icasc_of_a_seed_start_alike_and_see_the_same_data(make_job, execution, tmp_path, monkeypatch):
    seen = {}
    real = batches.View.__call__
    for method in ("baseline", "icasc-a_ch"):
        mine = seen.setdefault(method, [])
        monkeypatch.setattr(batches.View, "__call__", lambda *a, b=mine: b.append(real(*a)) or b[-1])
        _run(tmp_path, make_job(method, flip=True, pad_crop=4, **QUICK), execution)
    assert len(seen["baseline"]) == 9
    for a, b in zip(*seen.values(), strict=True):
        assert torch.equal(a, b)
    start = [loop.start(make_job(m), 20, execution).model.state_dict() for m in seen]
    assert all(torch.equal(a, b) for a, b in zip(start[0].values(), start[1].values(), strict=True))


def test_seeds_differ(make_job, execution):
    a, b = (loop.start(make_job(seed=s), 20, execution).model.net.fc.weight for s in (0, 1))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("precision", ["tf32", "float32", "bfloat16"])
def test_a_gpu_rounds_to_tf32_only_where_the_job_says_so(precision, make_job, execution):
    loop.start(make_job(precision=precision), 20, execution)
    assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    assert not torch.backends.cuda.matmul.allow_tf32  # the maps' einsum is float32 at least


def test_a_gpu_s_test_batch_is_bounded_in_pixels_and_a_cpu_s_is_what_it_was():
    sizes = (32, 80, 224, 299, 448)
    assert [loop.test_batch(torch.device("cpu"), size) for size in sizes] == [64] * 5
    on_gpu = [loop.test_batch(torch.device("cuda"), size) for size in sizes]
    assert on_gpu[0] == 512
    assert all(64 * batch * size**2 < 2**31 for batch, size in zip(on_gpu, sizes, strict=True))  # VGG's first layer
    assert loop.test_batch(torch.device("cuda"), 10_000) == 1


def test_voc_s_pixels_stay_on_a_gpu():
    assert data.DATASETS["voc2012"].num_images["train"] * 299 * 299 * 3 <= batches.RESIDENT_BYTES


def test_out_of_memory_within_a_capture_is_told_by_what_came_before():
    def raised(first, second):
        try:
            try:
                raise first
            finally:
                raise second
        except RuntimeError as error:
            return error

    capture = "operation failed due to a previous error during capture"
    assert recording.failure_kind(raised(torch.OutOfMemoryError("CUDA"), RuntimeError(capture))) == "out_of_memory"
    assert recording.failure_kind(raised(RuntimeError("launch timed out"), RuntimeError(capture))) == "lost_device"
    assert recording.failure_kind(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")) == "out_of_memory"
    assert recording.failure_kind(raised(ValueError("x"), RuntimeError(capture))) == "crash"


def test_a_checkpoint_holds_the_generator_of_its_own_device_alone(make_job, execution, tmp_path, monkeypatch):
    """On a machine with GPUs, a job on the CPU: it asks none of them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: pytest.fail("asked a GPU"))
    run = run_module.submit(tmp_path, make_job(**QUICK))
    state = loop.start(run.job(), 20, execution)
    stop = checkpoint.Stop(run, state, 0.0)
    with pytest.raises(checkpoint.OutOfTimeError):
        stop.in_test()
    assert set(state.partial["rng"]) == {"cpu"}


def test_a_checkpoint_of_another_device_leaves_the_optimiser_its_own_kernels(make_job, execution, tmp_path):
    run = run_module.submit(tmp_path, make_job(**QUICK))
    checkpoint.save(run, loop.start(run.job(), 20, execution))  # of a CPU: not fused

    def start():
        state = loop.start(run.job(), 20, execution)
        state.optimizer = torch.optim.SGD(state.model.parameters(), 0.1, fused=True)  # as on a GPU
        return state

    (group,) = checkpoint.resume(run, start).optimizer.param_groups
    assert group["fused"]
    assert group["momentum"] == run.job().momentum


def test_divergence_is_recorded_with_the_last_good_epoch(make_job, execution, tmp_path):
    run = run_module.submit(tmp_path, make_job(learning_rate=1e30, **QUICK))
    with pytest.raises(loop.DivergedError):
        loop.run_job(run, execution)
    failure = json.loads(run.path("failure.json").read_bytes())
    assert run.state() == "diverged"
    assert "not a number" in failure["error"] or "not numbers" in failure["error"]
    assert failure["last_good_epoch"] is None


def test_crash_is_recorded_with_its_traceback_and_tried_again(make_job, execution, tmp_path, monkeypatch):
    run = run_module.submit(tmp_path, make_job(**QUICK))
    monkeypatch.setattr(loop, "predict", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.run_job(run, execution)
    assert run.state() == "failed"
    assert "ZeroDivisionError" in json.loads(run.path("failure.json").read_bytes())["traceback"]
    monkeypatch.undo()
    loop.run_job(run, execution)
    assert run.state() == "done"
    assert not run.path("failure.json").exists()


def test_garbage_checkpoint_is_set_aside(make_job, execution, tmp_path, capsys):
    run = run_module.submit(tmp_path, make_job(**QUICK))
    run.path("checkpoint.pt").write_bytes(b"garbage")
    loop.run_job(run, execution)
    assert run.state() == "done"
    assert "corrupt checkpoint" in capsys.readouterr().out
    assert list(run.folder.glob("checkpoint.corrupt-*"))


def test_checkpoint_that_holds_code_is_not_executed(make_job, execution, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    run = run_module.submit(tmp_path / "runs", make_job(**QUICK))
    torch.save({"model": Hostile()}, run.path("checkpoint.pt"))
    loop.run_job(run, execution)
    assert not (tmp_path / "pwned").exists()


def test_full_disk_ends_in_one_line(make_job, execution, tmp_path, monkeypatch):
    run = run_module.submit(tmp_path, make_job(**QUICK))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"checkpoint.pt: cannot be written .*No space left.*free some space"):
        loop.run_job(run, execution)


def test_view_normalises_pads_crops_and_mirrors():
    pixels = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    no, still = np.array([False, False]), np.zeros((2, 2), int)
    view = batches.View(batches.MEAN.double(), batches.STD.double(), 0)
    plain = view.plain(pixels)
    assert plain[1, 2, 0, 1].item() == pytest.approx((pixels[1, 0, 1, 2] / 255 - 0.406) / 0.225)
    one = view(pixels, np.array([True, False]), still)
    assert torch.equal(one[0], plain[0].flip(2))
    assert torch.equal(one[1], plain[1])
    padded = batches.View(view.mean, view.std, 1)
    assert torch.equal(padded(pixels, no, still + 1), plain)
    corner = padded(pixels, no, still)
    assert corner[:, :, 0].abs().sum() == corner[:, :, :, 0].abs().sum() == 0
    assert torch.equal(corner[:, :, 1:, 1:], plain[:, :, :-1, :-1])


def test_learning_rate_is_one_cosine_or_falls_in_steps(make_job):
    job = make_job(epochs=10)
    assert loop.learning_rate(job, 0, 10) == job.learning_rate
    assert loop.learning_rate(job, 50, 10) == pytest.approx(job.learning_rate / 2)
    assert loop.learning_rate(job, 99, 10) == pytest.approx(0, abs=1e-5)
    job = make_job(schedule="step", milestones=[[81, 122]], epochs=160)
    rates = [loop.learning_rate(job, e * 7, 7) / job.learning_rate for e in (0, 80, 81, 121, 122, 159)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_reading_ahead_keeps_the_order():
    parts = [np.array([i, i + 1]) for i in range(7)]
    assert [(b.tolist(), p) for b, p in batches.ahead(parts, lambda b: b.sum())] == [
        (b.tolist(), b.sum()) for b in parts
    ]


def test_limit_draws_the_same_images_for_every_method(make_job):
    a, b = (batches.training_subset(make_job(m, limit_train=10), 100) for m in ("baseline", "icasc-a_ch"))
    assert (a == b).all()
    assert len(set(a)) == 10
    assert not (a == batches.training_subset(make_job(seed=1, limit_train=10), 100)).all()


def test_a_limited_test_is_what_is_recorded(make_job, execution, tmp_path):
    runs = [_run(tmp_path, make_job(seed=seed, **QUICK | {"epochs": 1, "limit_test": 7}), execution) for seed in (0, 1)]
    assert [run.result().num_test for run in runs] == [7, 7]
    assert runs[0].result().data.test == runs[1].result().data.test
    assert runs[0].result().data.train != runs[1].result().data.train
    assert same_data.others([run.job() for run in runs], tmp_path, None, execution.cache) == {}
    assert not [line for run in runs for line in audit.problems(run) if "images" in line]
    other = run_module.submit(tmp_path, make_job(**QUICK | {"epochs": 1, "limit_test": 8}))
    for name in ("environment.json", "metrics.jsonl", "scores.npz"):
        shutil.copy(runs[0].path(name), other.path(name))
    record = json.loads(runs[0].path("result.json").read_bytes()) | {"job": other.id}
    other.path("result.json").write_text(json.dumps(record))
    assert "says 7 test images, the job 8" in " ".join(audit.problems(other))


def test_a_method_s_share_is_no_missing_data(make_job, execution, tmp_path):
    """Half of the images is what the job asks for: the record fits it, and lacks nothing."""
    limited = _run(tmp_path, make_job("data-half", **QUICK | {"epochs": 1}), execution)
    assert not [line for line in audit.problems(limited) if "images" in line]
    whole = _run(tmp_path, make_job("data-half", epochs=1, image_size=32), execution)
    assert whole.result().num_train == 32
    assert same_data.others([whole.job()], tmp_path, None, execution.cache) == {}


# Weights


@pytest.mark.parametrize("name", networks.quick_first(BACKBONES))
def test_backbones_give_feature_maps_and_logits(name):
    model = networks.build(name, 7).eval()
    images = torch.randn(2, 3, 64, 64)
    inner = model.to_inner(images)
    last = model.to_last(inner)
    assert inner.shape[2] > last.shape[2] > 1
    assert torch.equal(model.head(last), model(images))
    assert model(images).shape == (2, 7)
    kept = last.clone()
    model.head(last)
    assert torch.equal(kept, last), "nothing above may write on the map"


@pytest.mark.parametrize("name", networks.quick_first(BACKBONES))
def test_inner_layer_two_before_last(name):
    images = torch.randn(1, 3, 64, 64)
    near, far = (networks.build(name, 7, i).eval() for i in ("stage_before_last", "two_before_last"))
    assert far.to_inner(images).shape[2] == 2 * near.to_inner(images).shape[2]
    assert torch.equal(near(images), far(images))


def test_mini_weights_are_the_packaged_ones():
    model = models.build("resnet18_narrow", 20, seed=0)
    before = model.net.fc.weight.clone()
    weights.load(model, "resnet18_narrow", grid.mini_weights("resnet18_narrow"))
    assert torch.equal(model.net.conv1.weight, load_file(grid.mini_weights("resnet18_narrow"))["conv1.weight"].float())
    assert torch.equal(model.net.fc.weight, before)


def _damaged(path, change):
    state = load_file(grid.mini_weights("resnet18_narrow"))
    change(state)
    save_file(state, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv1.weight"), "it has no 'conv1.weight'"),
        (lambda s: s.update({"conv1.weight": torch.zeros(1)}), r"'conv1.weight' is \(1,\), the network's is \(16, "),
        (lambda s: s.update(surplus=torch.zeros(1)), "it has 'surplus'"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(tmp_path, change, message):
    _damaged(tmp_path / "w.safetensors", change)
    with pytest.raises(UserError, match=f"does not fit resnet18_narrow: {message}"):
        weights.load(models.build("resnet18_narrow", 20, 0), "resnet18_narrow", tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04."])
def test_files_that_are_no_weights(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="not a"):
        weights.load(models.build("resnet18_narrow", 20, 0), "resnet18_narrow", tmp_path / name)


def test_weights_are_looked_for_before_anything_is_decoded(make_job, execution, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "open_pixels", lambda *_: pytest.fail("decodes"))
    job = make_job(weights="sha256:" + "0" * 64)
    with pytest.raises(UserError, match="are needed: name the file with --weights FILE"):
        _run(tmp_path, job, execution)


def test_imagenet_weights_that_are_missing_are_named(make_job, execution, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    job = grid.load("voc").jobs("paper")[0]
    with pytest.raises(UserError, match=r"resnet18-f37072fd.pth is missing and cannot be downloaded.*--weights-dir"):
        weights.find(job, None)
    with pytest.raises(UserError, match=r"resnet18-f37072fd.pth: no such weights file"):
        weights.find(job, tmp_path)
    (tmp_path / "resnet18-f37072fd.pth").write_bytes(b"another")
    with pytest.raises(UserError, match="the job needs f37072fd"):
        weights.find(job, tmp_path)


def test_no_metric_line_holds_nan(make_job, execution, tmp_path):
    run = _run(tmp_path, make_job("icasc-grad_cam", **QUICK), execution)
    for line in run.path("metrics.jsonl").read_text().splitlines():
        assert set(json.loads(line)["train"]) == {
            "classification", "separability_inner", "separability_last", "consistency", "loss"}  # fmt: skip
