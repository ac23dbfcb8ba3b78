"""Ids are stable, bad fields are errors, and an ICASC option orphans no baseline."""

import json
import subprocess
import sys

import pytest
from pydantic import BaseModel

from benchmark.errors import UserError
from benchmark.matrix import grid, study
from benchmark.matrix import job as job_module
from benchmark.matrix.job import METHOD_FIELDS, Job, make_job
from benchmark.matrix.study import Method

FIELDS = {
    "scale": "paper", "dataset": "voc2012", "train_split": "train", "test_split": "val", "backbone": "resnet18",
    "weights": "imagenet1k_v1", "method": "baseline", "seed": 0, "image_size": 299, "resize": "warp", "flip": True,
    "difficult_train": "positive", "loss": "multilabel_soft_margin", "batch_size": 16, "epochs": 20,
    "learning_rate": 0.01, "schedule": "cosine", "momentum": 0.9, "weight_decay": 0.001, "precision": "float32",
}  # fmt: skip
ICASC = {
    "method": "icasc-a_ch", "attention_weight": 0.05, "warmup_epochs": 0, "sigma": 0.55, "omega": 100, "theta": 0.8,
    "map_scale": "true_max", "mask_source": "last", "mask_gradient": False, "second_order": True,
    "multi_label_target": "all_present", "inner_layer": "stage_before_last", "attention_score": "probability",
    "gradient_batchnorm": "frozen",
}  # fmt: skip


def test_golden_ids():
    """Changing one of these orphans every record that anybody has. Add fields with a default instead."""
    assert Job(**FIELDS).id == "voc2012-resnet18-baseline-s0-2cee48804c91"
    since = {"attention_score": "logit", "gradient_batchnorm": "batch", "class_reduction": "mean"}  # came later
    assert Job(**FIELDS | ICASC | since).id == "voc2012-resnet18-icasc-a_ch-s0-3407d3e1ab88"


def test_id_ignores_key_order_and_number_type():
    shuffled = dict(reversed(FIELDS.items())) | {"epochs": 20.0, "learning_rate": 1e-2}
    assert Job(**shuffled).id == Job(**FIELDS).id


def test_id_is_the_same_in_another_process():
    code = f"from benchmark.matrix.job import Job; print(Job(**{FIELDS!r}).id)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == Job(**FIELDS).id


@pytest.mark.parametrize("name", [n for n in FIELDS if n not in ("method", "resize", "loss", "schedule")])
def test_every_field_is_in_the_id(name):
    other = {"seed": 1, "flip": False, "weights": "scratch", "backbone": "resnet18_narrow", "difficult_train": "ignore",
             "precision": "float64", "learning_rate": 0.02, "momentum": 0.5, "weight_decay": 0.0}  # fmt: skip
    value = other.get(name, FIELDS[name] + 1 if isinstance(FIELDS[name], int) else f"{FIELDS[name]}x")
    assert Job(**FIELDS | {name: value}).id != Job(**FIELDS).id


@pytest.mark.parametrize("name", METHOD_FIELDS)
def test_icasc_fields_are_icasc_s(name):
    assert make_job(FIELDS | {name: ICASC[name]}, "here").id == Job(**FIELDS).id
    if Job.model_fields[name].default is not None:  # a reading added later: without it, a job is what it was
        return
    with pytest.raises(UserError, match=f"here: icasc-a_ch .* needs {name}"):
        make_job(FIELDS | {k: v for k, v in ICASC.items() if k != name}, "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": "20"}, "epochs: expected a number"),
        ({"epochs": True}, "epochs: expected a number"),
        ({"epochs": 0}, "epochs: "),
        ({"epochs": 2.5}, "epochs: "),
        ({"learning_rate": float("nan")}, "learning_rate: "),
        ({"flip": "yes"}, "flip: "),
        ({"precision": "bfloat61"}, "did you mean 'bfloat16'"),
        ({"method": "icasc"}, "did you mean 'icasc-grad_cam' or 'icasc-a_ch'"),
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'"),
        ({"dataset": "../escape"}, "dataset: "),
        ({"weights": "sha256:123"}, "weights: "),
    ],
)
def test_bad_fields_are_named(change, message):
    with pytest.raises(UserError, match="here: ") as error:
        make_job(FIELDS | change, "here")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_names_fit_the_registries():
    from benchmark.methods import models

    assert set(models.BACKBONES) == set(job_module.BACKBONES)


def test_one_rank_is_what_jobs_without_the_field_had():
    assert Job(**FIELDS | {"ranks": 1}).id == Job(**FIELDS).id
    assert Job(**FIELDS | {"ranks": 2}).id != Job(**FIELDS).id
    with pytest.raises(UserError, match="here: 17 ranks cannot share a batch of 16 images"):
        make_job(FIELDS | {"ranks": 17}, "here")


class Options(BaseModel):
    tau: float = 0.5
    placebo: bool = False


@pytest.fixture
def with_options(monkeypatch):
    """A study with a method `mine` that reads sigma alone and has two options."""
    mine = Method(lambda *batch: (None, {}), reads=("sigma",), options=Options)
    methods = {**study.at_hand().methods, "mine": mine}
    monkeypatch.setattr(study, "at_hand", lambda: study.Study(methods))


def test_options_are_in_the_id_where_they_are_not_the_defaults(with_options):
    plain = make_job(FIELDS | {"method": "mine", "sigma": 0.5}, "here")
    assert plain.options == Options()
    assert "options" not in plain.canonical_json()
    assert make_job(FIELDS | {"method": "mine", "sigma": 0.5, "tau": 0.5, "omega": 7}, "here").id == plain.id
    other = make_job(FIELDS | {"method": "mine", "sigma": 0.5, "placebo": True}, "here")
    assert '"options":{"placebo":true}' in other.canonical_json()
    assert Job(**other.model_dump(mode="json", exclude_none=True)).id == other.id != plain.id
    assert (other.value("placebo"), other.value("sigma"), other.value("theta")) == (True, 0.5, None)


def test_an_option_of_another_method_orphans_nothing(with_options):
    assert make_job(FIELDS | {"placebo": True}, "here").id == Job(**FIELDS).id


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "mine"}, "needs sigma"),
        ({"method": "mine", "sigma": 0.5, "tau": "much"}, "here: tau: "),
        ({"method": "mine", "sigma": 0.5, "options": {"placeb": True}}, "no option 'placeb'; did you mean 'placebo'"),
        ({"options": {"tau": 1}}, "baseline has no option 'tau'"),
        ({"options": 3}, "options: 3 is no mapping"),
        ({"method": "min"}, "did you mean 'mine'"),
    ],
)
def test_bad_options_are_named(with_options, fields, message):
    with pytest.raises(UserError, match="here: ") as error:
        make_job(FIELDS | fields, "here")
    assert message in str(error.value)


def test_a_grid_varies_options_like_fields(with_options):
    voc = grid.load("voc")
    asked = {"method": ["baseline", "mine"], "placebo": [False, True], "seed": 0}
    jobs = voc.jobs("mini", asked)
    assert [(j.method, j.value("placebo")) for j in jobs] == [("baseline", None), ("mine", False), ("mine", True)]
    assert "placebo: True (default: False)" in voc.deviations(jobs[2])
    assert not [text for text in voc.deviations(jobs[1]) if "placebo" in text]
    own = voc.model_copy(update={"options": {"mine": {"placebo": True}}})
    assert own.jobs("mini", {"method": "mine", "seed": 0})[0].value("placebo")
    assert not own.jobs("mini", {"method": "mine", "seed": 0, "placebo": False})[0].value("placebo")
    assert len(voc.jobs("mini", asked, {"placebo": [True]})) == 1
    with pytest.raises(UserError, match="unknown field 'placeb'; did you mean 'placebo'"):
        voc.jobs("mini", {"placeb": True})


CHANNELS = {"mean": [0.5, 0.25, 0.125], "std": [0.2, 0.3, 0.4]}


def test_normalisation_by_values_is_a_job_of_its_own():
    chosen = grid.load("voc")
    job = chosen.jobs("paper", {"normalisation": CHANNELS})[0]
    assert job.id != chosen.jobs("paper")[0].id
    assert json.loads(job.canonical_json())["normalisation"] == CHANNELS
    assert Job(**json.loads(job.canonical_json())) == job
    (told,) = chosen.deviations(job)
    assert told.startswith("normalisation: mean=(0.5, 0.25, 0.125) std=(0.2, 0.3, 0.4) ")
    as_protocol = chosen.model_copy(update={"protocol": chosen.protocol | {"normalisation": CHANNELS}})
    del as_protocol.assumptions["normalisation"]
    assert as_protocol.deviations(as_protocol.jobs("paper")[0]) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("imagent", "normalisation: 'imagent' is not a valid value; did you mean 'imagenet'?"),
        (3, "normalisation: 3 is not a valid value; expected one of: imagenet, per_pixel_mean"),
        (CHANNELS | {"mean": [125.3, 123.0, 113.9]}, "mean.0: Input should be less than or equal to 1 (got 125.3)"),
        (CHANNELS | {"std": [0.2, 0.3, 0]}, "std.2: Input should be greater than 0 (got 0)"),
        (CHANNELS | {"std": [0.2, 0.3]}, "'std.2' is missing"),
        (CHANNELS | {"stdd": [0.2, 0.3, 1]}, "unknown key 'stdd'; did you mean 'std'?"),
        ({"mean": [0, 0, 0]}, "'std' is missing"),
    ],
)
def test_a_normalisation_that_is_none_is_named(value, said):
    with pytest.raises(UserError) as error:
        grid.load("voc").jobs("paper", {"normalisation": value})
    assert said in str(error.value)
    assert "\n" not in str(error.value)
