"""Methods turn a batch into logits and named loss terms. The training loop sums and logs the terms and never asks
which method it runs.

A method is a function `(model, images_BCHW, labels, job, epoch) -> (logits_BC, terms)`:

    model        a network in three pieces (models.py): model(images) -> logits, or step by step
                 feat_inner = model.to_inner(images), feat_last = model.to_last(feat_inner), model.head(feat_last)
    images_BCHW  normalised, of the job's precision
    labels       (B,) class numbers; or (B, num_classes) of 1 present, 0 only difficult, -1 absent; of a method that is
                 `guided`, after these columns an image's cells (data/voc.py, boxed)
    job          its fields and, where the method has options of its own, job.options
    epoch        from 0
    terms        named scalars; their sum is what is differentiated, so weights are already in them

A method that draws takes torch's global generator of the images' device, as dropout does:
`torch.rand(..., device=images_BCHW.device)`. The loop seeds it by the job's seed and the epoch before each epoch, and a
checkpoint holds it, so that a run that was stopped draws what an undisturbed one does. Python's and NumPy's generators
are neither seeded nor kept.

To add one, write the function in a file of this folder and declare it here. The declaration imports torch only when
it is called:

    class Options(BaseModel):                       # only where it has any; each with a default
        placebo: bool = False

    def _mine(*batch):
        from benchmark.methods.mine import mine
        return mine(*batch)

    METHODS["mine"] = Method(_mine, reads=("sigma", "omega"), options=Options, title="Mine")

`reads` names the fields of METHOD_FIELDS (matrix/job.py) that it reads. Options are set by name, like fields: in a
grid's `options: {mine: {placebo: true}}`, in a scale's `set`, axes or readings, and with `--set placebo=true`. They are
in the job's id where they differ from their defaults, so an option added later, whose default means what was done
without it, orphans no run.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmark.matrix.job import METHOD_FIELDS, Float
from benchmark.matrix.study import Method


def _baseline(*batch: Any) -> tuple[Any, dict[str, Any]]:
    from benchmark.methods.baseline import baseline

    return baseline(*batch)


def _grad_cam(*batch: Any) -> tuple[Any, dict[str, Any]]:
    from benchmark.methods.icasc import icasc

    return icasc(*(*batch, "grad_cam"))


def _a_ch(*batch: Any) -> tuple[Any, dict[str, Any]]:
    from benchmark.methods.icasc import icasc

    return icasc(*(*batch, "a_ch"))


def _aa_a_ch(*batch: Any) -> tuple[Any, dict[str, Any]]:
    from benchmark.methods.controls import aa

    return aa(*(*batch, "a_ch"))


def _placebo_grad_cam(*batch: Any) -> tuple[Any, dict[str, Any]]:
    from benchmark.methods.controls import placebo

    return placebo(*(*batch, "grad_cam"))


def _placebo_a_ch(*batch: Any) -> tuple[Any, dict[str, Any]]:
    from benchmark.methods.controls import placebo

    return placebo(*(*batch, "a_ch"))


def _port(*batch: Any) -> tuple[Any, dict[str, Any]]:
    from benchmark.methods.port import port

    return port(*batch)


def _guided(*batch: Any) -> tuple[Any, dict[str, Any]]:
    from benchmark.methods.controls import guided

    return guided(*(*batch, "a_ch"))


def _cutout(*batch: Any) -> tuple[Any, dict[str, Any]]:
    from benchmark.methods.controls import cutout

    return cutout(*batch)


def _no_augmentation(*batch: Any) -> tuple[Any, dict[str, Any]]:
    from benchmark.methods.controls import no_augmentation

    return no_augmentation(*batch)


def _fast_head(*batch: Any) -> tuple[Any, dict[str, Any]]:
    from benchmark.methods.controls import fast_head

    return fast_head(*batch)


Factor = Annotated[Float, Field(ge=0)]


class Reading(BaseModel):
    """separability_inner, separability_last, consistency: the factor of each attention term, beside the weight that
    they share; 0 leaves it out. The others are readings of the public ports.

    ratio: of sums over an image, or over the batch, in separability and consistency. mask_scale: what the mask's map is
    divided by, the image's maximum or the batch's. confusing: the class whose map is the confusing one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    separability_inner: Factor = 1.0
    separability_last: Factor = 1.0
    consistency: Factor = 1.0
    ratio: Literal["image", "batch"] = "image"
    mask_scale: Literal["image", "batch"] = "image"
    confusing: Literal["strongest_absent", "all_absent"] = "strongest_absent"


class Guidance(BaseModel):
    """guidance: the weight of the share of a true map outside the boxes, at each layer. 0.3 was the best of 0.03, 0.1
    and 0.3 on seeds 10 and 11 of scale `guided`, which does not report these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    guidance: Factor = 0.3


BUT_THE_WEIGHT = tuple(name for name in METHOD_FIELDS if name != "attention_weight")  # an A/A has a weight of its own
GUIDED_READS = ("second_order", "multi_label_target", "inner_layer", "attention_score", "gradient_batchnorm")
PORT_READS = ("multi_label_target", "inner_layer")  # what it has constants of its own for, it does not read

METHODS: dict[str, Method] = {
    "baseline": Method(_baseline, title="Baseline"),
    "icasc-grad_cam": Method(_grad_cam, METHOD_FIELDS, Reading, "ICASC_{Grad-CAM}", maps="grad_cam"),
    "icasc-a_ch": Method(_a_ch, METHOD_FIELDS, Reading, "ICASC_{A_ch}", maps="a_ch"),
    # controls
    "aa-a_ch": Method(_aa_a_ch, BUT_THE_WEIGHT, Reading, "A/A_{A_ch}", maps="a_ch"),
    "placebo-grad_cam": Method(_placebo_grad_cam, METHOD_FIELDS, Reading, "placebo_{Grad-CAM}", maps="grad_cam"),
    "placebo-a_ch": Method(_placebo_a_ch, METHOD_FIELDS, Reading, "placebo_{A_ch}", maps="a_ch"),
    "port-a_ch": Method(_port, PORT_READS, title="the first port_{A_ch}", maps="a_ch"),
    "guided-a_ch": Method(_guided, GUIDED_READS, Guidance, title="guided by boxes_{A_ch}", guided=True),
    "cutout": Method(_cutout, title="Cutout"),
    "no_augmentation": Method(_no_augmentation, title="no augmentation"),
    "fast_head": Method(_fast_head, title="head at ten times the rate"),
    "data-half": Method(_baseline, title="half of the images", train_share=0.5),
    "data-four_fifths": Method(_baseline, title="four fifths of the images", train_share=0.8),
}
