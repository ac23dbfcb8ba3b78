"""Controls are what they are called: the same code without an effect, the same terms without a meaning, fewer images,
terms that are left out."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark import data
from benchmark.data import voc
from benchmark.data.voc import CELLS
from benchmark.errors import UserError
from benchmark.matrix import grid
from benchmark.matrix.matrix import Matrix
from benchmark.methods import METHODS, attention, controls, icasc, models
from benchmark.results.results import Results
from benchmark.stats import intervals
from benchmark.tables import build, published
from benchmark.train import batches
from tests import evidence, networks

ROOT = Path(__file__).parent.parent
TERMS = ("separability_inner", "separability_last", "consistency")
KINDS = ("grad_cam", "a_ch")


@pytest.fixture
def model():
    return networks.smooth().train()


@pytest.fixture
def batch():
    torch.manual_seed(5)
    labels = torch.tensor([[1, -1, -1, 0], [-1, 1, 1, -1], [-1, -1, 1, -1]])
    return torch.randn(3, 3, 8, 8, dtype=torch.float64), labels


@pytest.fixture
def step(model, batch, make_job):
    """step("icasc-a_ch", sigma=0.25): its terms and the gradient of their sum, from the same network each time."""

    def taken(method: str, given=batch, **changes) -> tuple[dict[str, float], torch.Tensor]:
        job = make_job(method, **{"precision": "float64", "attention_weight": 1.0, "omega": 10} | changes)
        _, terms = METHODS[method](model, *given, job, 0)
        gradient = torch.autograd.grad(sum(terms.values()), list(model.parameters()))
        return {name: term.item() for name, term in terms.items()}, torch.cat([g.flatten() for g in gradient])

    return taken


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_aa_is_the_baseline_to_rounding_and_not_exactly(step):
    baseline, aa, icasc = (step(m) for m in ("baseline", "aa-a_ch", "icasc-a_ch"))
    assert 0 < _apart(aa[1], baseline[1]) < 10 * controls.NO_EFFECT < 0.01 < _apart(icasc[1], baseline[1])
    for name in TERMS:
        assert aa[0][name] == pytest.approx(controls.NO_EFFECT * icasc[0][name], rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backbone", ["resnet18_narrow", "resnet20"])
def test_at_a_weight_of_zero_a_step_leaves_what_the_baseline_s_leaves(make_job, backbone, kind):
    """Gradients, BatchNorm's running statistics and the state of chance: so a gain of an A/A, however many seeds have
    it, is not made by a second pass through the network."""
    torch.manual_seed(3)
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    labels = torch.where(torch.rand(4, 20) < 0.3, 1, -1)
    left = []
    for method in ("baseline", f"icasc-{kind}"):
        model = models.build(backbone, 20, seed=1).double().train()
        start = copy.deepcopy(dict(model.named_buffers()))
        torch.manual_seed(4)
        job = make_job(method, precision="float64", attention_weight=0.0)
        _, terms = METHODS[method](model, images, labels, job, 0)
        gradient = torch.autograd.grad(sum(terms.values()), list(model.parameters()))
        left.append([*gradient, *model.buffers(), torch.get_rng_state()])
    moved = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, start[name])]
    assert any("running_mean" in name for name in moved)
    for theirs, ours in zip(*left, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_aa_does_not_read_the_weight(make_job):
    assert make_job("aa-a_ch", attention_weight=1.0).id == make_job("aa-a_ch").id != make_job("aa-a_ch", sigma=0.25).id


@pytest.mark.parametrize("mask_source", ["last", "inner"])
@pytest.mark.parametrize("kind", KINDS)
def test_placebo_is_icasc_where_all_images_of_the_batch_are_alike(step, batch, kind, mask_source):
    alike = batch[0][:1].expand(3, -1, -1, -1), batch[1][:1].expand(3, -1)
    ours, theirs = (step(f"{m}-{kind}", alike, mask_source=mask_source) for m in ("placebo", "icasc"))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-12)
    assert torch.allclose(ours[1], theirs[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_placebo_is_as_strong_and_points_elsewhere(step, kind):
    (terms, ours), (_, theirs), (_, baseline) = (step(m) for m in (f"placebo-{kind}", f"icasc-{kind}", "baseline"))
    assert set(terms) == {"classification", *TERMS}
    ours, theirs = ours - baseline, theirs - baseline  # of the attention terms alone
    assert 0.3 < ours.norm() / theirs.norm() < 3
    assert _apart(ours, theirs) > 0.3


def test_placebo_takes_the_next_image_s_confusing_map_and_mask(batch, make_job):
    """By hand: image i's true map against image i + 1's others, with ICASC's own formulas."""
    job = make_job("placebo-a_ch", precision="float64", attention_weight=1.0, mask_source="inner")
    maps = [torch.rand(2, 3, 5, 5, dtype=torch.float64).unbind() for _ in range(2)]
    present, absent = batch[1] == 1, batch[1] < 0
    absent[2] = False  # so neither image 2, nor image 1 whose partner it is, has both maps
    terms = icasc.terms_of_maps(*maps, present, absent, job, placebo=True)
    scaled = [attention.scale_maps(*pair, "true_max") for pair in maps]
    masks = [attention.soft_mask(true, job.omega, job.sigma) for true, _ in scaled]
    for name, (true, conf), mask in zip(TERMS, scaled, masks, strict=False):
        alone = attention.separability(true[0:1], conf[1:2], mask[1:2]).item() / 3
        assert terms[name].item() == pytest.approx(alone, rel=1e-12)
    alone = attention.consistency(scaled[0][0][0:1], masks[0][1:2], job.theta).item() / 3
    assert terms["consistency"].item() == pytest.approx(alone, rel=1e-12)


def test_a_batch_of_one_image_has_no_next_one(step, batch):
    one = batch[0][:1], batch[1][:1]
    assert step("placebo-a_ch", one)[0] == step("icasc-a_ch", one)[0]


@pytest.mark.parametrize("method", [f"{m}-{kind}" for m in ("icasc", "placebo") for kind in KINDS])
def test_a_factor_scales_its_term_and_zero_leaves_it_out(step, method):
    whole = step(method)[0]
    for name in TERMS:
        assert step(method, **{name: 0.0})[0] == {k: v for k, v in whole.items() if k != name}
        assert step(method, **{name: 0.5})[0] == pytest.approx(whole | {name: whole[name] / 2}, rel=1e-12)
    assert set(step(method, **dict.fromkeys(TERMS, 0.0))[0]) == {"classification"}


def test_factors_of_one_are_what_jobs_without_them_had(make_job):
    plain = make_job("icasc-a_ch")
    assert plain.id == make_job("icasc-a_ch", consistency=1.0).id != make_job("icasc-a_ch", consistency=0.5).id
    assert "options" not in plain.canonical_json()
    with pytest.raises(UserError, match="consistency: "):
        make_job("icasc-a_ch", consistency=-1.0)


@pytest.mark.parametrize(("limit", "half", "four_fifths"), [(None, 848, 1358), (64, 32, 51), (9999, 848, 1358)])
def test_shares_are_of_the_baseline_s_images_and_lie_in_each_other(make_job, limit, half, four_fifths):
    chosen = [
        set(batches.training_subset(make_job(method, seed=1, limit_train=limit), 1697).tolist())
        for method in ("data-half", "data-four_fifths", "baseline")
    ]
    assert [len(c) for c in chosen] == [half, four_fifths, min(limit or 1697, 1697)]
    assert chosen[0] < chosen[1] < chosen[2]
    other_seed = batches.training_subset(make_job("data-half", seed=0, limit_train=limit), 1697)
    assert set(other_seed.tolist()) != chosen[0]


def test_images_that_a_limit_draws_are_those_that_it_drew(make_job):
    drawn = batches.training_subset(make_job(seed=1, limit_train=5), 40)
    assert drawn.tolist() == np.sort(np.random.default_rng(1).permutation(40)[:5]).tolist()


def _terms(make_job, maps, **changes):
    job = make_job("icasc-a_ch", precision="float64", attention_weight=1.0, mask_source="inner", **changes)
    everywhere = torch.ones(len(maps[0][0]), 2, dtype=torch.bool)
    terms = icasc.terms_of_maps(*maps, everywhere, everywhere, job)
    return {name: term.item() for name, term in terms.items()}


def test_a_ratio_of_the_batch_is_that_of_its_sums(make_job):
    maps = [torch.rand(2, 3, 5, 5, dtype=torch.float64).unbind() for _ in range(2)]
    found = _terms(make_job, maps, ratio="batch")
    for name, pair in zip(TERMS, maps, strict=False):
        true, conf = attention.scale_maps(*pair, "true_max")
        mask = attention.soft_mask(true, 100, 0.55)
        by_hand = 2 * (torch.minimum(true, conf) * mask).sum() / (true + conf).sum()
        assert found[name] == pytest.approx(by_hand.item(), rel=1e-12)
    one = [[m[:1] for m in pair] for pair in maps]
    assert _terms(make_job, one, ratio="batch") == pytest.approx(_terms(make_job, one), rel=1e-12)


def test_a_mask_of_the_batch_compares_with_its_highest_value(make_job):
    true = torch.tensor([[[1.0, 0.2]], [[4.0, 2.5]]], dtype=torch.float64)
    mask = attention.batch_mask(true, omega=100, sigma=0.55)
    assert mask.round(decimals=3).tolist() == [[[0.0, 0.0]], [[1.0, 0.999]]]
    maps = [(true, true.flip(2)), (true, true.flip(2))]
    assert _terms(make_job, maps, mask_scale="batch") != pytest.approx(_terms(make_job, maps))
    assert _terms(make_job, [[m[:1] for m in p] for p in maps], mask_scale="batch") == pytest.approx(
        _terms(make_job, [[m[:1] for m in p] for p in maps])
    )


def test_all_absent_classes_together_are_the_confusing_score():
    logits, present = torch.randn(2, 4), torch.tensor([[True, False, False, False], [False, True, True, False]])
    absent = torch.tensor([[False, True, True, False], [True, False, False, True]])
    _, conf = attention.cotangents(logits, present, absent, "all_present", "all_absent")
    assert conf.tolist() == absent.float().tolist()


@pytest.mark.parametrize("reading", [{"ratio": "batch"}, {"mask_scale": "batch"}, {"confusing": "all_absent"}])
def test_each_reading_of_the_ports_is_another_loss(step, reading):
    assert step("icasc-a_ch", **reading)[0] != pytest.approx(step("icasc-a_ch")[0])


def test_the_port_s_terms_by_hand():
    """With its own letters, from its formulas, on maps of two images."""
    from benchmark.methods import port

    inner, last = (torch.rand(2, 2, 3, 3, dtype=torch.float64) * 3 for _ in range(2))
    found = port.terms(list(inner), list(last))
    for name, (at, aconf) in zip(TERMS, (inner, last), strict=False):
        mask = torch.sigmoid(100 * ((at - at.min()) / (at.max() - at.min()) - 0.25 * at.max()))
        expected = 2 * (torch.minimum(at, aconf) * mask).sum() / (at + aconf).sum()
        assert found[name].item() == pytest.approx(expected.item(), rel=1e-12)
        if name == "separability_inner":
            assert found["consistency"].item() == pytest.approx((0.8 - (at * mask).sum() / at.sum()).item(), rel=1e-12)


def test_the_port_s_terms_are_dead_where_the_true_map_is_beyond_4():
    from benchmark.methods import port

    maps = [[m.requires_grad_() for m in torch.rand(2, 2, 3, 3, dtype=torch.float64) * 8 + 1] for _ in range(2)]
    terms = port.terms(*maps)
    assert [terms[name].item() for name in TERMS] == pytest.approx([0, 0, port.THETA], abs=1e-6)
    gradients = torch.autograd.grad(sum(terms.values()), [m for pair in maps for m in pair])
    assert max(g.abs().max() for g in gradients) < 1e-6


def test_the_port_has_no_second_order_and_scales_by_the_score(model, batch, make_job, monkeypatch):
    from benchmark.methods import port

    seen = []
    monkeypatch.setattr(port, "terms", lambda inner, last: seen.append((inner, last)) or {})
    METHODS["port-a_ch"](model, *batch, make_job("port-a_ch", precision="float64"), 0)
    (true, _), _ = seen[0]
    feat = model.to_inner(batch[0]).detach().requires_grad_()
    score = model.head(model.to_last(feat))[batch[1] >= 0].sum()  # difficult ones count as present
    (gradient,) = torch.autograd.grad(score, feat)
    expected = attention.attention_map(feat, gradient * score.detach(), "a_ch")
    assert torch.allclose(true, expected, rtol=1e-10)


def test_cutout_hides_one_square_and_is_otherwise_the_baseline(model, make_job, monkeypatch):
    seen = []
    monkeypatch.setattr(controls, "baseline", lambda model, images, *rest: seen.append(images) or (None, {}))
    images = torch.ones(500, 3, 32, 32)
    torch.manual_seed(0)
    controls.cutout(model, images, None, make_job("cutout"), 0)
    assert (images == 1).all()
    hidden = (seen[0] == 0).all(dim=1)
    assert torch.equal(hidden, (seen[0] == 0).any(dim=1)), "all colours"
    rows, columns = hidden.any(dim=2).sum(dim=1), hidden.any(dim=1).sum(dim=1)
    assert torch.equal(hidden.sum(dim=(1, 2)), rows * columns), "a rectangle"
    assert rows.max() == columns.max() == 8
    assert rows.min() == columns.min() == 4, "half of it where the centre is on the border"
    assert (hidden.float().mean(dim=0) > 0).all(), "anywhere"
    assert not torch.equal(rows, columns)


def test_without_augmentation_the_grid_takes_both_kinds_away_and_nothing_else(model, make_job, monkeypatch):
    """Of what the method is given, since the loop augments; a job whose images are augmented does not bear its name."""
    plain, augmented = (
        grid.load("cifar100").jobs("controls", only={"method": [name], "seed": [1]})[0]
        for name in ("no_augmentation", "baseline")
    )
    assert (augmented.flip, augmented.pad_crop) == (True, 4)
    assert plain == augmented.model_copy(update={"method": "no_augmentation", "flip": False, "pad_crop": None})
    monkeypatch.setattr(controls, "baseline", lambda *batch: batch)
    assert controls.no_augmentation(model, "images", "labels", plain, 0) == (model, "images", "labels", plain, 0)
    for update in ({"flip": True}, {"pad_crop": 4}):
        with pytest.raises(UserError, match="no_augmentation: its images are as they are; set flip=false and"):
            controls.no_augmentation(model, None, None, plain.model_copy(update=update), 0)


def test_a_fast_head_has_the_baseline_s_loss_and_ten_times_its_gradient_in_the_head(model, step):
    (terms, fast), (plain, slow) = step("fast_head"), step("baseline")
    assert terms == plain
    scale = []
    for name, parameter in model.named_parameters():
        scale += [10.0 if "fc" in name else 1.0] * parameter.numel()
    assert torch.allclose(fast, slow * torch.tensor(scale, dtype=torch.float64), rtol=1e-9, atol=1e-14)


def test_grids_have_their_controls():
    voc = grid.load("voc")
    assert len(voc.jobs("controls")) == 10 * 5
    assert len(voc.jobs("terms")) == (1 + 7) * 5, "the baseline reads no factor, and is one job a seed"
    assert {job.method for job in voc.jobs("reduced")} >= {"aa-a_ch", "placebo-a_ch", "placebo-grad_cam"}


def _table_of(tmp_path, gains: dict[str, list[float]]):
    """The table of VOC's controls, from planted runs: each method's gains over a baseline of 50, a seed each."""
    spec = published.load("voc-controls", published.BUILT_IN)
    methods = ["baseline", *gains]
    seeds = list(range(len(next(iter(gains.values())))))

    def value(job, item):
        return 50 + job.seed + (0 if job.method == "baseline" else gains[job.method][job.seed])

    evidence.plant(tmp_path, value, "mini", method=methods, seed=seeds)
    return build.build(spec, evidence.golden_results("mini", tmp_path, method=[*methods, "cutout"], seed=seeds))


def test_a_controls_gain_is_over_the_baseline_and_in_a_row_of_its_own_over_the_placebo(tmp_path):
    table = _table_of(tmp_path, {"placebo-a_ch": [-1.0, -2.0, -3.0], "icasc-a_ch": [-1.5, -2.5, -2.5]})
    assert table.cells["ResNet-18", "icasc-a_ch"].gains == pytest.approx((-1.5, -2.5, -2.5))
    against = {column: table.cells["ResNet-18, over the placebo", column] for column in ("icasc-a_ch", "placebo-a_ch")}
    assert against["icasc-a_ch"].gains == pytest.approx((-0.5, -0.5, 0.5))
    assert against["placebo-a_ch"].gain is None, "it is what the others are held against"
    assert "ResNet-18, over the placebo: icasc-grad_cam - placebo-grad_cam, icasc-a_ch - placebo-a_ch." in table.notes
    assert all(cell.gain_verdict is None for cell in table.cells.values())
    assert table.cells["ResNet-18", "data-half"].status == "not run"


def test_no_column_lends_another_its_spread(tmp_path):
    quiet = [0.1, -0.1, 0.0]
    table = _table_of(tmp_path, {"aa-a_ch": quiet, "data-half": [-9.0, -4.0, -1.0]})
    found = table.cells["ResNet-18", "aa-a_ch"].gain_interval
    assert (found.low, found.high) == pytest.approx(intervals.t_interval(quiet))


def test_a_row_over_no_column_is_named(tmp_path):
    text = (published.BUILT_IN / "voc-controls.yaml").read_text()
    (tmp_path / "voc-controls.yaml").write_text(text.replace("icasc-a_ch: placebo-a_ch", "icasc-a_ch: placebo"))
    with pytest.raises(UserError, match=r"voc-controls.yaml:\d+: no column 'placebo'; did you mean 'placebo-"):
        published.load("voc-controls", tmp_path)


def test_a_table_of_controls_is_made_at_its_scales_alone():
    spec = published.load("voc-controls", published.BUILT_IN)
    assert [
        scale for scale in ("mini", "paper", "controls", "reduced", "subset", "year2008") if spec.is_made_at(scale)
    ] == spec.scales


# Guided by boxes


@pytest.fixture
def boxed_batch(batch):
    """Of the first image the left half is an object, of the second nothing is, of the third all."""
    cells = torch.zeros(3, CELLS, CELLS, dtype=torch.int64)
    cells[0, :, : CELLS // 2], cells[2] = 1, 1
    return batch[0], torch.cat([batch[1], cells.flatten(1)], dim=1)


def test_outside_by_hand():
    maps = torch.tensor([[[3.0, 1.0]], [[3.0, 1.0]], [[3.0, 1.0]], [[0.0, 0.0]]])
    inside = torch.tensor([[[1.0, 0.0]], [[0.5, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]]])
    assert controls.outside(maps, inside).tolist() == [0.25, 0.625, 0, 0]


def test_guided_without_guidance_is_the_baseline(step, boxed_batch):
    (terms, ours), (alone, baseline) = step("guided-a_ch", boxed_batch, guidance=0.0), step("baseline")
    assert set(terms) == {"classification", "outside_inner", "outside_last"}
    assert (terms["classification"], terms["outside_inner"]) == (alone["classification"], 0)
    assert torch.equal(ours, baseline)


def test_guidance_pulls_the_true_map_into_the_box(model, boxed_batch, make_job):
    job = make_job("guided-a_ch", precision="float64")
    before, after = ({}, {})
    for terms, rate in ((before, 0.02), (after, 0)):
        _, its = METHODS["guided-a_ch"](model, *boxed_batch, job, 0)
        terms |= {name: term.item() for name, term in its.items()}
        pull = its["outside_inner"] + its["outside_last"]
        gradient = torch.autograd.grad(pull, list(model.parameters()), allow_unused=True)
        with torch.no_grad():
            for parameter, slope in zip(model.parameters(), gradient, strict=True):
                parameter.sub_(0 if slope is None else rate * slope)
    assert 0 < after["outside_inner"] + after["outside_last"] < before["outside_inner"] + before["outside_last"]


def test_cells_come_after_the_labels_and_are_mirrored_with_their_image(make_job, tiny_voc, tmp_path):
    job = make_job("guided-a_ch", flip=True)
    images = voc.load(tiny_voc, "train")
    pixels = data.open_pixels(images, job.image_size, "warp", tmp_path)
    chosen, cells = np.arange(len(images.ids)), voc.boxed(images)
    draws = batches.Draws(job, 0, chosen, len(chosen))
    view = batches.View.of(job, pixels, chosen, torch.device("cpu"))
    given = torch.cat([labels for _, labels, *_ in batches.of_epoch(job, view, pixels, draws, 0)]).numpy()
    assert 0 < draws.mirrored.sum() < len(chosen)
    for row, i in zip(given, draws.order, strict=True):
        seen = cells[i][:, ::-1] if draws.mirrored[i] else cells[i]
        assert (row == [*images.targets[i], *seen.flatten()]).all()


def test_what_boxes_cannot_follow_is_refused(make_job, tiny_voc, tmp_path):
    pixels = data.open_pixels(voc.load(tiny_voc, "train"), 32, "warp", tmp_path)
    for changes in ({"resize": "warp_crop"}, {"pad_crop": 4}):
        with pytest.raises(UserError, match=r"guided-a_ch: boxes are known of whole pictures; set resize=warp"):
            batches.View.of(make_job("guided-a_ch", **changes), pixels, np.arange(4), torch.device("cpu"))


def test_a_reading_that_a_scale_has_instead_of_the_grid_s_is_in_the_rows(tmp_path):
    """A gain at another weight than the grid's must not read as one at the grid's."""
    cifar, spec = grid.load("cifar100"), published.load("cifar100-controls", published.BUILT_IN)
    table = build.build(spec, Results.read(Matrix(cifar, "controls", runs=tmp_path)))
    assert table.label("ResNet-110, top-1") == "ResNet-110, top-1 (as resnet20, attention weight 0.2)"
    assert not [note for note in table.notes if "Δ" in note], "it has no such column"
    table = build.build(spec, Results.read(Matrix(cifar, "controls", {"attention_weight": 0.4}, runs=tmp_path)))
    assert table.label("ResNet-110, top-1") == "ResNet-110, top-1 (as resnet20)", "the override is not the scale's"
    assert any("attention_weight 0.4" in note for note in table.notes)
    table = build.build(
        published.load("cifar100", published.BUILT_IN), Results.read(Matrix(cifar, "reduced", runs=tmp_path))
    )
    assert table.label("ResNet-110, top-1") == "ResNet-110, top-1 (as resnet20)"
    assert "Δ: ours - paper." in table.notes
