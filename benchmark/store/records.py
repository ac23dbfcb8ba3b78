"""What a run writes down, as types. Each record has `schema: 1`; one without it is of the time before, and reads as 1.

A record is checked as a whole when it is read (Run): a wrong type, an unknown key, a share above 1 or a NaN makes it
corrupt, and nothing is computed from it. What earlier versions did not record is None.
"""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Record(_Part):
    """A file of a run folder."""

    schema_version: Literal[1] = Field(default=1, alias="schema")


class Code(_Part):
    """What ran: the suite's version, its git commit, and whether files differed from it; None without git. training: a
    digest of what trains (store/code.py), equal where two runs were trained by the same code."""

    version: str
    commit: str | None = None
    dirty: bool | None = None
    training: str | None = None
    study: str | None = None  # SHA-256 of the study's methods.py, where the method or the network is of it


class Split(_Part):
    """The images of a split that a run read: how many, and a SHA-256 of their ids and labels, in order."""

    num_images: Count
    sha256: str


class Read(_Part):
    """What a run was trained and tested on."""

    train: Split
    test: Split


class BestOnTest(_Part):
    """The epoch with the highest test score, never printed as the result."""

    epoch: Count
    mAP: Share | None = None
    top1: Share | None = None


class Result(Record):
    """result.json: what tables are made of. Shares in [0, 1]; AP and mAP by definition, AP None of a class that no test
    image shows."""

    job: str
    checkpoint: Literal["last_epoch"] = "last_epoch"
    epoch: Count | None = None
    top1: Share | None = None
    top5: Share | None = None
    ap: dict[str, dict[str, Share | None]] | None = None
    mAP: dict[str, Share | None] | None = None
    num_positive: dict[str, Count] | None = None  # test images that show a class
    num_positive_train: dict[str, Count] | None = None
    best_on_test: BestOnTest | None = None
    num_train: Count | None = None
    num_test: Count | None = None
    seconds: Seconds | None = None
    code: Code | None = None
    scores_sha256: str | None = None
    data: Read | None = None

    @property
    def single_label(self) -> bool:
        return self.ap is None

    @property
    def headline(self) -> str:
        """The number that the paper reports: `top1`, or `mAP` of images with several classes."""
        return "top1" if self.single_label else "mAP"

    def frequent(self, min_positives: int) -> set[str]:
        """The classes that at least so many images of each split show."""
        shown, trained = self.num_positive or {}, self.num_positive_train or {}
        return {name for name, count in shown.items() if min(count, trained.get(name, 0)) >= min_positives}


class Machine(_Part):
    system: str | None = None
    processor: str | None = None
    cores: int | None = None


class Splits(_Part):
    """A SHA-256 of each split."""

    train: str
    test: str


class Cuda(_Part):
    """A GPU's side of what a run ran on."""

    version: str | None = None  # of CUDA, as torch was built
    cudnn: Count | None = None
    driver: str | None = None
    capability: str | None = None
    memory_bytes: Count | None = None
    cudnn_benchmark: bool | None = None
    cudnn_deterministic: bool | None = None
    deterministic_algorithms: bool | None = None
    allocator: str | None = None  # torch's settings of it in the process's environment


class Environment(Record):
    """environment.json: what a run ran on."""

    code: Code | None = None
    python: str | None = None
    packages: dict[str, str | None] = {}
    machine: Machine = Machine()
    device: str | None = None  # the GPU's name, or cpu
    threads: Count | None = None
    memory_format: str | None = None
    cuda_graph: bool = False  # the step was recorded and replayed
    tf32: bool | None = None  # in convolutions
    cuda: Cuda | None = None
    # of the pixels; the first records called it by another name
    data_sha256: Splits | None = Field(default=None, validation_alias=AliasChoices("data_sha256", "pixels_sha256"))


class Epoch(Record):
    """A line of metrics.jsonl: means of the loss terms over the training images, and the test score after them."""

    epoch: Annotated[int, Field(ge=1)]
    train: dict[str, float] = {}
    test_mAP: Share | None = None
    test_top1: Share | None = None
    attention_overlap: dict[str, float] | None = None
    seconds: Seconds | None = None
    peak_bytes: Count | None = None  # most that tensors held on the GPU, since the process began

    @property
    def loss(self) -> float | None:
        """Classification loss, mean over the training images."""
        return self.train.get("classification")

    def overlap(self, key: str) -> float | None:
        """Of the true and the confusing class's maps, in [0, 1]; key as `a_ch_last`. None where it was not measured."""
        return self.attention_overlap.get(key) if self.attention_overlap else None

    def shown_overlap(self, key: str) -> float | None:
        """As `overlap`, over the images whose true map is not blank, which has something to overlap; a record counts a
        blank one as 0. None also where every map is blank."""
        overlap, blank = self.overlap(key), self.overlap(f"{key}_blank") or 0.0
        return None if overlap is None or blank >= 1 else overlap / (1 - blank)


FailureKind = Literal["diverged", "input", "crash", "out_of_memory", "lost_device"]


class Failure(Record):
    """failure.json: why there is no result."""

    kind: FailureKind
    error: str = ""
    traceback: str = ""
    epoch: Count | None = None
    last_good_epoch: dict[str, Any] | None = None


class Claim(Record):
    """claim.json: the process that runs it. Nothing is known of one that a crash cut short."""

    host: str | None = None
    pid: int | None = None
    process_start: str | None = None
    started: float | None = None


class Progress(Record):
    """progress.json: how far it is. done: share in [0, 1]."""

    epoch: Count = 0
    epochs: Count = 0
    done: Share = 0.0


class Submission(Record):
    """slurm.json: SLURM's number of the job that has been submitted, and when (seconds since the epoch)."""

    id: str
    submitted: float | None = None


class Origin(Record):
    """origin.json: whose run it is, where it was not made here. Tables name it."""

    name: Annotated[str, Field(pattern=r"^[^\s].{0,79}$")]


RECORDS: dict[str, type[Record]] = {
    "result.json": Result, "environment.json": Environment, "metrics.jsonl": Epoch, "failure.json": Failure,
    "claim.json": Claim, "progress.json": Progress, "slurm.json": Submission, "origin.json": Origin,
}  # fmt: skip
