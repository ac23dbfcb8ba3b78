"""Job: everything that can change the number, and nothing else.

A job's id is a hash of its canonical JSON. Paths, device, threads and executor belong to the execution: they are
recorded with the run, not hashed, so that moving the data orphans no run.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)  # fmt: skip
from pydantic_core import PydanticCustomError

from benchmark.errors import UserError, nearest
from benchmark.matrix import study


def _number(value: Any) -> Any:
    # pydantic would take "5" and True for numbers; a quoted number or a `yes` in a YAML is a mistake to report.
    if isinstance(value, (bool, str)):
        raise ValueError("expected a number")
    return value


Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]


def _known(name: str, known: Iterable[str]) -> str:
    if name not in known:
        told = f"{name!r} is not a valid value" + nearest(name, known)
        raise PydanticCustomError("unknown_name", "{told}", {"told": told})
    return name


def _method(name: str) -> str:
    return _known(name, study.at_hand().methods)


Method = Annotated[Name, AfterValidator(_method)]
BACKBONES = (
    "resnet18", "resnet50", "resnet101", "vgg19",
    "resnet8", "resnet20", "resnet32", "resnet56", "resnet110",
    "resnet18_narrow", "resnet50_narrow", "vgg11_narrow",
)  # fmt: skip


def _backbone(name: str) -> str:
    return _known(name, (*BACKBONES, *study.at_hand().backbones))


Backbone = Annotated[Name, AfterValidator(_backbone)]

NORMALISATIONS = ("imagenet", "per_pixel_mean")
Share = Annotated[Float, Field(ge=0, le=1)]


class Channels(BaseModel):
    """What is taken off each channel (red, green, blue) and what it is divided by, as shares of 255:
    values from 0 to 1, as transforms.Normalize has them after ToTensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[Share, Share, Share]
    std: tuple[Annotated[Share, Field(gt=0)], Annotated[Share, Field(gt=0)], Annotated[Share, Field(gt=0)]]


def in_job(value: Any) -> Any:
    """A value of a field as a job holds it, where a YAML file has it as a list or a mapping."""
    if isinstance(value, dict) and value.keys() == Channels.model_fields.keys():
        return Channels(**value)
    return tuple(value) if isinstance(value, list) else value


def _normalisation(value: Any) -> Any:
    if isinstance(value, dict):
        try:
            return Channels(**value)
        except ValidationError as error:
            raise ValueError(explain(error, tuple(Channels.model_fields))) from None
    return value if isinstance(value, Channels) else _known(value, NORMALISATIONS)


# torchvision's files of ImageNet weights; the tail of a name is the start of the file's SHA-256.
IMAGENET1K_V1 = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
}

# Fields that a job holds only where its method reads them, so that varying one orphans no baseline.
METHOD_FIELDS = (
    "attention_weight",
    "warmup_epochs",
    "sigma",
    "omega",
    "theta",
    "map_scale",
    "mask_source",
    "mask_gradient",
    "second_order",
    "multi_label_target",
    "inner_layer",
    "attention_score",
    "gradient_batchnorm",
)
# What these are in a grid that does not name them, as a study's own on a method of the paper: this suite's reading,
# for which each built-in grid gives its reason. attention_score and gradient_batchnorm have defaults of their own.
METHOD_DEFAULTS = {
    "attention_weight": 0.05, "warmup_epochs": 0, "sigma": 0.55, "omega": 100, "theta": 0.8, "map_scale": "true_max",
    "mask_source": "last", "mask_gradient": False, "second_order": True, "multi_label_target": "all_present",
    "inner_layer": "stage_before_last",
}  # fmt: skip
# Fields that only a multi-label data set has.
MULTI_LABEL_FIELDS = ("difficult_train", "multi_label_target", "class_reduction")


class Job(BaseModel):
    """One training run. A field added later gets a default that means what jobs without it did, so old ids stand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: Name
    dataset: Name
    train_split: Name
    test_split: Name
    limit_train: Positive | None = None  # train on this many images, drawn once per seed
    limit_test: Positive | None = None  # test on this many images, the same for all seeds
    partial: StrictBool = False  # both on what is there of a data set that is not whole: --allow-partial
    overlap: StrictBool = False  # tested on images that are trained on too: --allow-overlap
    backbone: Backbone
    weights: Annotated[str, Field(pattern=r"^(scratch|imagenet1k_v1|mini(@[0-9a-f]{12})?|sha256:[0-9a-f]{64})$")]
    method: Method
    seed: Annotated[Int, Field(ge=0, lt=2**32)]  # what the generators take

    image_size: Positive  # pixels, square
    resize: Literal["none", "warp", "warp_crop", "random_resized_crop"]  # data/loading.py defines them
    pad_crop: Positive | None = None  # training: pad by this many pixels, then crop image_size at random
    flip: StrictBool  # random horizontal mirror in training
    normalisation: Annotated[Literal["imagenet", "per_pixel_mean"] | Channels, BeforeValidator(_normalisation)] = (
        "imagenet"
    )
    difficult_train: Literal["positive", "negative", "ignore"] | None = None  # VOC's difficult objects, as labels

    loss: Literal["multilabel_soft_margin", "cross_entropy"]
    class_reduction: Literal["mean", "sum"] = "mean"  # over the classes of a multi-label loss
    batch_size: Positive
    epochs: Positive
    learning_rate: Annotated[Float, Field(gt=0)]
    # cosine: from learning_rate to 0 over all iterations, one cycle; step: divided by 10 at each milestone
    schedule: Literal["cosine", "step"]
    milestones: tuple[Positive, ...] | None = None  # epochs, for `step`
    momentum: Annotated[Float, Field(ge=0, lt=1)]
    weight_decay: Annotated[Float, Field(ge=0)]
    # Of the network; attention maps are float32 at least. tf32: float32, but in a GPU's convolutions 10-bit fractions.
    precision: Literal["float32", "tf32", "bfloat16", "float64"]
    ranks: Positive = 1  # processes that share each batch; BatchNorm sees a rank's own images only

    # METHOD_FIELDS (method.md's table); None, or their defaults, for methods that do not read them
    attention_weight: Annotated[Float, Field(ge=0)] | None = None  # common factor of the three attention terms
    warmup_epochs: Annotated[Int, Field(ge=0)] | None = None  # epochs before the attention terms start
    sigma: Float | None = None  # mask threshold, as a share of the true map's maximum
    omega: Annotated[Float, Field(gt=0)] | None = None  # slope of the mask's sigmoid
    theta: Float | None = None  # target of the consistency ratio
    map_scale: Literal["true_max", "own_max"] | None = None  # what both maps are divided by, per image
    mask_source: Literal["last", "inner"] | None = None  # whose mask the consistency term uses
    mask_gradient: StrictBool | None = None  # whether the loss is differentiated through the mask
    second_order: StrictBool | None = None  # whether it is differentiated through dY/dF
    multi_label_target: Literal["all_present", "strongest_present"] | None = None  # the true map's score
    inner_layer: Literal["stage_before_last", "two_before_last"] | None = None
    attention_score: Literal["logit", "probability"] = "logit"  # the score Y whose gradient weighs the channels
    # BatchNorm between the inner layer and Y, in dY/dF: its statistics depend on F (batch) or are constants (frozen)
    gradient_batchnorm: Literal["batch", "frozen"] = "batch"

    options: Any = None  # an instance of the method's own model, given as a mapping; None where it has none

    @model_validator(mode="before")
    @classmethod
    def _options_of_the_method(cls, fields: Any) -> Any:
        name = fields.get("method")
        known = study.at_hand().methods if isinstance(name, str) else {}
        if name not in known:
            return fields  # which is named as such
        given, model = fields.get("options") or {}, known[name].options
        if isinstance(given, BaseModel):
            given = given.model_dump()
        if not isinstance(given, dict):
            raise ValueError(f"options: {given!r} is no mapping")
        unknown = [option for option in given if option not in known[name].option_names]
        if unknown:
            raise ValueError(f"{name} has no option '{unknown[0]}'" + nearest(unknown[0], known[name].option_names))
        try:
            return fields | {"options": model(**given) if model else None}
        except ValidationError as error:
            raise ValueError(explain(error, known[name].option_names)) from None

    @model_validator(mode="after")
    def _fields_that_are_read(self) -> "Job":
        unread = unread_fields(self.method, self.loss, self.schedule)
        given = [name for name in unread if getattr(self, name) != type(self).model_fields[name].default]
        if given:
            raise ValueError(f"{self.method} with {self.loss} and {self.schedule} does not read {', '.join(given)}")
        needed = {*METHOD_FIELDS, *MULTI_LABEL_FIELDS, "milestones"} - unread
        missing = sorted(name for name in needed if getattr(self, name) is None)
        if missing:
            raise ValueError(f"{self.method} with {self.loss} and {self.schedule} needs {', '.join(missing)}")
        if self.ranks > self.batch_size:
            raise ValueError(f"{self.ranks} ranks cannot share a batch of {self.batch_size} images; set ranks lower")
        return self

    def canonical_json(self) -> str:
        """What is hashed: sorted keys, no blanks, fields and options at their default left out."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        if not fields.get("options"):
            fields.pop("options", None)
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    def __hash__(self) -> int:
        # pydantic's own hashes the options too, which in an outside study are often of a model that has no hash.
        return hash(self.canonical_json())

    def value(self, name: str) -> Any:
        """Of a field, or of an option of the method's; None where it has no such option."""
        return getattr(self, name) if name in FIELDS else getattr(self.options, name, None)

    @property
    def id(self) -> str:
        """For people up to the last dash, then 12 hexadecimal digits of the hash."""
        digest = hashlib.sha256(self.canonical_json().encode()).hexdigest()[:12]
        return f"{self.dataset}-{self.backbone}-{self.method}-s{self.seed}-{digest}"


FIELDS: tuple[str, ...] = tuple(Job.model_fields)


def settable() -> list[str]:
    """What a grid or the command line may set of a job: its fields, and the options of the study's methods."""
    return [*(name for name in FIELDS if name not in ("scale", "options")), *study.at_hand().option_names]


def unread_fields(method: Any, loss: Any, schedule: Any) -> set[str]:
    """Fields that a job of this kind does not read, and so does not hold."""
    declared = study.at_hand().methods.get(method) if isinstance(method, str) else None
    unread = set(METHOD_FIELDS) - set(declared.reads) if declared else set()
    unread |= set(MULTI_LABEL_FIELDS) if loss == "cross_entropy" else set()
    return unread | ({"milestones"} if schedule == "cosine" else set())


def make_job(fields: dict[str, Any], source: str) -> Job:
    """Job from plain values, its method's options among them; what it does not read is left out. UserError names the
    field, `source`, what was expected and the nearest valid name."""
    unread = unread_fields(*(fields.get(name) for name in ("method", "loss", "schedule")))
    method, options = fields.get("method"), study.at_hand().option_names
    declared = study.at_hand().methods.get(method) if isinstance(method, str) else None
    chosen = {name: fields[name] for name in (declared.option_names if declared else ()) if name in fields}
    fields = {name: value for name, value in fields.items() if name not in unread and name not in options}
    if chosen:
        fields["options"] = (fields.get("options") or {}) | chosen
    try:
        return Job(**fields)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, FIELDS)}") from None


def first_problem(error: ValidationError) -> Any:
    """Unknown keys before missing ones: a misspelt key is both, and its own name is the better hint."""
    return min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")


def explain(error: ValidationError, valid: tuple[str, ...]) -> str:
    """The first problem of a ValidationError in one line, with the nearest valid name for an unknown key."""
    problem = first_problem(error)
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'" + nearest(problem["loc"][-1], valid)
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    if problem["type"] == "unknown_name":
        return f"{key}: {problem['msg']}"
    if problem["type"] == "literal_error":
        allowed = problem["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return f"{key}: {problem['input']!r} is not a valid value" + nearest(problem["input"], allowed)
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (got {problem['input']!r})" if key else message
