"""Controls: what ICASC's gain, and the drop of its maps' overlap, are held against."""

from torch import Tensor

from benchmark.matrix.job import Job
from benchmark.methods.baseline import Terms
from benchmark.methods.icasc import icasc
from benchmark.methods.models import Backbone

NO_EFFECT = 1e-6  # of the attention terms: enough to round otherwise, too little to steer


def aa(model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job, epoch: int, kind: str) -> tuple[Tensor, Terms]:
    """ICASC at a weight of NO_EFFECT; arguments as `icasc`'s. The same code and cost, so its gain over the baseline is
    0, and the spread of that gain over seeds is the noise floor of the paired design."""
    return icasc(model, images_BCHW, labels, job.model_copy(update={"attention_weight": NO_EFFECT}), epoch, kind)


def placebo(
    model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job, epoch: int, kind: str
) -> tuple[Tensor, Terms]:
    """ICASC with the next image's confusing map and mask; arguments as `icasc`'s. What it gains, and what its maps come
    apart by, ICASC owes to regularisation alone. In a batch of one image, such as an epoch's last, it is ICASC."""
    return icasc(model, images_BCHW, labels, job, epoch, kind, placebo=True)
