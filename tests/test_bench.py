"""The bench gives no ratio of two sides that differ; what it counts can be counted by hand. No time is tested."""

import json
from pathlib import Path

import pytest
import torch

from benchmark import bench, cli
from benchmark.bench import references, rows, sides
from benchmark.bench.compare import NotTheSameError, Row, compared, same_gradients, same_terms
from benchmark.bench.sides import Settings, Side
from benchmark.errors import UserError
from benchmark.methods import METHODS


@pytest.fixture
def settings(cache) -> Settings:
    return Settings(torch.device("cpu"), cache, quick=True)


@pytest.fixture
def icasc(settings) -> Side:
    return Side("icasc-a_ch", "resnet18", "float32", settings)


def _naive(side: Side) -> references.NaiveIcasc:
    return references.NaiveIcasc(side.model, side.images, side.labels, side.job)


def test_refuses_a_ratio_of_unequal_sides(settings):
    def never():
        raise AssertionError("a refused side was timed")

    def same():
        same_terms({"loss": torch.tensor(1.0)}, {"loss": torch.tensor(1.01)}, "float32")

    row = compared("a / b", never, never, same, "<= 2", settings)
    assert row == Row("a / b", None, "time ratio", "<= 2", "refused: loss is 1 on one side, 1.01 on the other")


def test_a_loss_that_is_not_a_number_equals_nothing():
    nan = {"loss": torch.tensor(float("nan"))}
    with pytest.raises(NotTheSameError):
        same_terms(nan, nan, "float32")


def test_unequal_gradients_are_refused():
    a, b = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    for module, value in ((a, 1.0), (b, 1.1)):
        for p in module.parameters():
            p.grad = torch.full_like(p, value)
    same_gradients(a, a, "float32")
    with pytest.raises(NotTheSameError, match=r"the gradients are 9\.1% apart"):
        same_gradients(a, b, "float32")


def test_the_naive_form_has_icasc_s_terms_and_the_cut_gradient(icasc):
    reference = _naive(icasc)
    same_terms(reference(), icasc(), "float32")
    # Its gradient is that of the ablation without second order, and so not the method's.
    cut = icasc.job.model_copy(update={"second_order": False})
    icasc.model.zero_grad()
    _, terms = METHODS[cut.method](icasc.model, icasc.images, icasc.labels, cut, 0)
    torch.stack(list(terms.values())).sum().backward()
    same_gradients(reference.model, icasc.model, "float32")


def test_a_naive_form_with_another_reading_is_refused(icasc):
    reference = _naive(icasc)
    reference.job = icasc.job.model_copy(update={"map_scale": "own_max"})
    with pytest.raises(NotTheSameError, match=r"separability|consistency|loss"):
        same_terms(reference(), icasc(), "float32")


def test_the_plain_step_is_the_baseline(settings):
    ours = Side("baseline", "resnet18", "float32", settings)
    plain = references.PlainStep(ours.model, ours.images, ours.labels, ours.job)
    same_terms(plain(), ours(), "float32")
    same_gradients(ours.model.net, plain.net, "float32")


def test_both_loops_see_the_same_images(settings):
    loop = sides.cifar("icasc-a_ch", 160, settings)
    plain = references.PlainLoop(loop.model, loop.pixels, loop.view, loop.draws, loop.job)
    same_terms(plain(), loop(), "float32")
    loop.draws.offsets = loop.draws.offsets // 2  # of this loop alone: the workers of the other hold their own
    with pytest.raises(NotTheSameError):
        same_terms(plain(), loop(), "float32")
    assert 0 <= loop.share_waited() < 1


def test_steps_leave_the_weights_alone(icasc):
    before = [p.clone() for p in icasc.model.parameters()]
    first, _, third = (icasc() for _ in range(3))
    assert all(torch.equal(p, q) for p, q in zip(before, icasc.model.parameters(), strict=True))
    assert all(torch.equal(first[name], third[name]) for name in first)


def test_floor_is_that_of_the_method(settings):
    """Each of two maps adds a pass down the last stage, and both are differentiated again: below two passes more."""
    assert rows.floor("resnet18", settings) == pytest.approx(1.4636, abs=1e-3)


def test_memory_counts_at_least_the_parameters_and_their_gradients(settings):
    peak = rows.peak_bytes("baseline", "resnet18", settings)
    parameters = 4 * sum(p.numel() for p in Side("baseline", "resnet18", "float32", settings).model.parameters())
    assert 3 * parameters < peak < 20 * parameters  # weights, gradients, momentum; then the activations


@pytest.mark.parametrize("options", [{"only": "tme"}, {"device": "tpu"}])
def test_bad_options_are_named(options):
    with pytest.raises(UserError, match=r"tme.*'time'|tpu: expected auto, cpu or cuda"):
        cli.develop.bench_command(**options)


def test_rows_without_a_gpu_say_so(settings, capsys, cache):
    cli.develop.bench_command(only="replay", quick=True, device="cpu", cache=cache, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert {row["note"] for row in rows} == {"needs a GPU"}
    assert set(rows[0]) == {"name", "value", "unit", "target", "note"}
    assert all(row["value"] is None for row in rows)
    assert all(row["name"].startswith("replay: ") for row in rows)


@pytest.mark.gpu
@pytest.mark.parametrize("only", bench.BENCHES)
def test_every_row_runs_on_a_gpu(only, cache):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for row in bench.measure(only, Settings(torch.device("cuda"), cache, quick=True)):
        assert row.value is not None or "not installed" in row.note


def test_the_documented_rows_are_the_measured_ones():
    docs = Path(__file__).parents[1] / "docs"
    lines = (docs / "performance.md").read_text().splitlines()
    rows = json.loads((docs / "performance.json").read_text())
    shown = [line for line in lines if line.startswith("| ") and line.split(":")[0][2:] in bench.BENCHES]
    assert len(shown) == len(rows) > 0
    for row, line in zip(rows, shown, strict=True):
        value = "–" if row["value"] is None else f"{row['value']:.3g}"
        assert line == f"| {row['name']} | {value} | {row['unit']} | {row['target'] or ''} | {row['note']} |"
