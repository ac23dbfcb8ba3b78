"""Methods turn a batch into logits and named loss terms. The training loop sums and logs the terms and never asks
which method it runs."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from benchmark.matrix.job import Job
from benchmark.methods import baseline, icasc
from benchmark.methods.baseline import Terms
from benchmark.methods.models import Backbone

Method = Callable[[Backbone, Tensor, Tensor, Job, int], tuple[Tensor, Terms]]

METHODS: dict[str, Method] = {
    "baseline": baseline.baseline,
    "icasc-grad_cam": partial(icasc.icasc, kind="grad_cam"),
    "icasc-a_ch": partial(icasc.icasc, kind="a_ch"),
}
