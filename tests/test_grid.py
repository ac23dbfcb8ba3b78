"""YAML to jobs: strict reading, axes, ties, exclusions, overrides, and what counts as a departure from the paper."""

import re
from pathlib import Path

import pytest

from benchmark.errors import UserError, nearest
from benchmark.matrix import grid, strict_yaml

VOC = (grid.GRIDS / "voc.yaml").read_text()


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "voc.yaml").write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", grid.names())
@pytest.mark.parametrize("field", ["id", "seed"])
def test_every_grid_has_jobs_with_ids_of_their_own_at_every_scale(name, field):
    loaded = grid.load(name)
    for scale in loaded.scales:
        jobs = loaded.jobs(scale)
        assert len({j.id for j in jobs}) == len(jobs) > 0
        for reading in loaded.scales[scale].readings or [{}]:
            of = loaded.jobs(scale, readings=[reading])
            methods = {m: [j.seed for j in of if j.method == m] for m in {j.method for j in jobs}}
            assert len({tuple(seeds) for seeds in methods.values()}) == 1, "seeds pair baseline and ICASC"


@pytest.mark.parametrize("name", grid.names())
def test_paper_scale_does_not_depart_from_the_paper(name):
    loaded = grid.load(name)
    assert {d for job in loaded.jobs("paper") for d in loaded.deviations(job)} == set()


def test_voc_protocol_is_the_supplement_s():
    job = grid.load("voc").jobs("paper")[0]
    assert (job.image_size, job.batch_size, job.epochs) == (299, 16, 20)
    assert (job.learning_rate, job.momentum, job.weight_decay) == (0.01, 0.9, 0.001)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  batch_size: 16", "  batch_sise: 16",
         r"voc.yaml:LINE: unknown key 'batch_sise' in protocol; did you mean 'batch_size'"),
        ("  batch_size: 16", "  batch_size: 16\n  batch_size: 32", "duplicate key 'batch_size'"),
        ("  batch_size: 16", "  batch_size: sixteen", r"voc.yaml:LINE: .*batch_size: expected a number"),
        ("  weight_decay: 1e-3", "  weight_decay: '1e-3'", r"voc.yaml:LINE: .*weight_decay: expected a number"),
        ("protocol:", "protocols:", "unknown key 'protocols'; did you mean 'protocol'"),
        ("  mini:", "  mini:\n    sett: {}", "sett"),
        ("  sigma:", "  sigmma:", "unknown key 'sigmma' in assumptions; did you mean 'sigma'"),
        ("    value: area", "    value: aera", "did you mean 'area'"),
        ("  method: [baseline, ", "  method: [baselin, ", "'baselin' is not a valid value; did you mean 'baseline'"),
        ("axes:", "axes: [", "not valid YAML"),
        ("  paper:", "  papers:", "'paper' is missing"),
    ],
)  # fmt: skip
def test_bad_yaml_names_file_line_and_nearest_name(tmp_path, old, new, message):
    assert old in VOC
    line = VOC[: VOC.index(old)].count("\n") + 1
    folder = write(tmp_path, VOC.replace(old, new, 1))
    with pytest.raises(UserError, match=message.replace("LINE", str(line))) as error:
        grid.load("voc", folder)
    assert "voc.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "a: &x [*x]", "? [1]\n: 2", "\x00", "- " * 5000])
def test_no_grid_at_all(tmp_path, text):
    with pytest.raises(UserError, match=r"voc\.yaml"):
        grid.load("voc", write(tmp_path, text))


def test_unknown_grid_names_the_nearest():
    with pytest.raises(UserError, match=r"unknown grid 'vox'; did you mean 'voc'"):
        grid.load("vox")


def test_every_name_that_was_begun_is_told():
    """`ResNet-110` is two rows of a table; to name one of them alone would be a guess."""
    assert nearest("ResNet", ["ResNet, top-1", "ResNet, top-5", "VGG"]) == (
        "; did you mean 'ResNet, top-1' or 'ResNet, top-5'?"
    )
    assert nearest("ResNet, top", ["ResNet, top-1", "VGG"]) == "; did you mean 'ResNet, top-1'?"
    assert nearest("", ["a", "b"]) == "; expected one of: a, b"


@pytest.mark.parametrize(
    ("text", "value"),
    [("5e-4", 0.0005), ("1e3", 1000.0), ("0010", 10), ("no", "no"), ("yes", "yes"), ("1:30", "1:30"), ("true", True),
     ("null", None), ("", None), ("2001-01-01", "2001-01-01"), ("0x10", "0x10"), ("'1'", "1"), (".5", 0.5)],
)  # fmt: skip
def test_scalars_mean_what_they_say(text, value):
    got = strict_yaml.scalar(text)
    assert (got, type(got)) == (value, type(value))


def test_override_changes_the_id_and_is_a_departure():
    loaded = grid.load("voc")
    job = loaded.jobs("paper", {"epochs": 2})[0]
    assert job.id != loaded.jobs("paper")[0].id
    assert loaded.deviations(job) == ["epochs: 2 (paper: 20)"]


def test_alternative_of_an_assumption_is_a_reading_not_a_departure():
    loaded = grid.load("voc")
    job = next(j for j in loaded.jobs("paper", {"sigma": 0.25}) if j.method != "baseline")
    assert loaded.deviations(job) == []
    other = next(j for j in loaded.jobs("paper", {"sigma": 0.3}) if j.method != "baseline")
    assert loaded.deviations(other) == ["sigma: 0.3 (default: 0.55)"]


def test_axis_over_an_icasc_option_repeats_no_baseline():
    jobs = grid.load("voc").jobs("mini", {"sigma": [0.25, 0.55], "seed": 0})
    assert [(j.method, j.sigma) for j in jobs] == [
        ("baseline", None), ("icasc-grad_cam", 0.25), ("icasc-grad_cam", 0.55), ("icasc-a_ch", 0.25),
        ("icasc-a_ch", 0.55)]  # fmt: skip


def test_ties_and_exclusions(tmp_path):
    tied = VOC.replace(
        "axes:",
        "ties:\n  - {method: [baseline, icasc-a_ch], image_size: [64, 96]}\nexclude:\n"
        "  - {method: icasc-grad_cam, seed: 1}\naxes:",
        1,
    )
    jobs = grid.load("voc", write(tmp_path, tied)).jobs("paper")
    assert {(j.method, j.image_size) for j in jobs} == {("baseline", 64), ("icasc-grad_cam", 299), ("icasc-a_ch", 96)}
    assert [j.seed for j in jobs if j.method == "icasc-grad_cam"] == [0, 2]


def test_selection():
    jobs = grid.load("voc").jobs("paper", only={"method": ["icasc-a_ch"], "backbone": ["resnet18"], "seed": [2]})
    assert [(j.method, j.seed) for j in jobs] == [("icasc-a_ch", 2)]


def test_selecting_a_backbone_selects_its_stand_in():
    jobs = grid.load("voc").jobs("mini", only={"backbone": ["resnet18"], "method": ["icasc-a_ch"]})
    assert [(j.backbone, j.method) for j in jobs] == [("resnet18_narrow", "icasc-a_ch")] * 2


@pytest.mark.parametrize(
    ("overrides", "only", "message"),
    [
        ({"epoch": 2}, {}, "unknown field 'epoch'; did you mean 'epochs'"),
        ({"scale": "mini"}, {}, "unknown field 'scale'"),
        ({}, {"methd": ["baseline"]}, "unknown field 'methd'; did you mean 'method'"),
        ({}, {"method": ["icasc-ach"]}, "no job has method=icasc-ach; did you mean 'icasc-a_ch'"),
        ({"backbone": None}, {}, "backbone"),
    ],
)
def test_bad_overrides_and_selections(overrides, only, message):
    with pytest.raises(UserError, match=message):
        grid.load("voc").jobs("mini", overrides, only)


def test_unknown_scale():
    with pytest.raises(UserError, match="has no scale 'papr'; did you mean 'paper'"):
        grid.load("voc").jobs("papr")


ICASC_S = ("attention_weight", "sigma", "omega", "theta", "map_scale", "mask_source", "mask_gradient", "second_order",
           "multi_label_target", "inner_layer", "attention_score", "gradient_batchnorm")  # fmt: skip


@pytest.mark.parametrize("name", grid.names())
def test_what_rests_on_ports_names_repository_commit_and_line(name):
    """And that none of it is certified by the paper."""
    whys = {key: assumed.why for key, assumed in grid.load(name).assumptions.items() if key in ICASC_S}
    assert {"sigma", "omega", "theta"} < set(whys)
    for key, why in whys.items():
        assert "not certified by the paper" in why, key
        if re.search(r"\bports?\b|\bcopy\b", why):
            assert re.search(r"\w+/[\w-]+ [0-9a-f]{8}, [\w/]+\.py:\d+", why), key
