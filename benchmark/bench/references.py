"""What the bench measures against: training in the plain way. Written for the comparison; no job runs it."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmark.data import Pixels
from benchmark.data.loading import num_threads
from benchmark.matrix.job import Job
from benchmark.methods import METHODS, attention, baseline, icasc
from benchmark.methods.baseline import Terms
from benchmark.methods.models import TWICE_DIFFERENTIABLE, Backbone
from benchmark.methods.torchvision_ops import torchvision
from benchmark.train.batches import Draws, View


class NaiveIcasc:
    """One step of ICASC without its second order: for each of the two maps a backward pass through the whole network,
    whose gradients at the two layers are constants of the loss. Its loss terms are ICASC's; its gradient is not."""

    def __init__(self, model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job) -> None:
        self.model, self.images, self.labels, self.job = copy.deepcopy(model), images_BCHW, labels, job
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0, momentum=0.9, weight_decay=job.weight_decay)

    def __call__(self) -> Terms:
        job = self.job
        feats = [self.model.to_inner(self.images)]
        feats.append(self.model.to_last(feats[0]))
        logits_BC = self.model.head(feats[1])
        for feat in feats:
            feat.retain_grad()
        target = job.multi_label_target or "all_present"
        present_BC, absent_BC = baseline.trained_labels(self.labels, job, logits_BC.shape[1])
        cotangents = attention.cotangents(logits_BC, present_BC, absent_BC, target)
        true, confusing = (self._maps(feats, logits_BC, cotangent_BC) for cotangent_BC in cotangents)
        terms = {"classification": baseline.classification_loss(logits_BC, self.labels, job)}
        terms |= icasc.terms_of_maps((true[0], confusing[0]), (true[1], confusing[1]), present_BC, absent_BC, job)
        self.optimizer.zero_grad()
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        self.optimizer.step()
        return {name: term.detach() for name, term in (terms | {"loss": loss}).items()}

    def _maps(self, feats: list[Tensor], logits_BC: Tensor, cotangent_BC: Tensor) -> list[Tensor]:
        """At both layers, from one backward pass."""
        self.optimizer.zero_grad()
        logits_BC.backward(cotangent_BC, retain_graph=True)
        maps = []
        for feat in feats:
            assert feat.grad is not None
            maps.append(attention.attention_map(feat, feat.grad, self.job.method.removeprefix("icasc-")))
            feat.grad = None
        return maps


def plain_modules(model: Backbone) -> Backbone:
    """The model with torch.nn's own modules everywhere, and so with PyTorch's own second derivatives."""
    plain = {ours: theirs for theirs, ours in TWICE_DIFFERENTIABLE.items()}
    for module in model.modules():
        module.__class__ = plain.get(type(module), type(module))
    return model


class PlainStep:
    """One step of torchvision's own network, float32, contiguous images, as its training script takes it."""

    def __init__(self, model: Backbone, images_BCHW: Tensor, labels: Tensor, job: Job) -> None:
        self.net = getattr(torchvision.models, job.backbone)(num_classes=labels.shape[1]).to(images_BCHW.device)
        self.net.load_state_dict(model.net.state_dict())
        self.images, self.labels = images_BCHW.contiguous(), (labels == 1).float()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.0, momentum=0.9, weight_decay=job.weight_decay)

    def __call__(self) -> Terms:
        loss = F.multilabel_soft_margin_loss(self.net(self.images), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}


class PlainImages(Dataset):
    """One image at a time, cut and mirrored as `draws` says, so that both loops see the same batches."""

    def __init__(self, pixels: Pixels, view: View, draws: Draws) -> None:
        assert pixels.array is not None
        self.array, self.targets, self.size = pixels.array, pixels.images.targets, pixels.size
        self.draws, self.pad = draws, view.pad_crop
        self.mean, self.std = view.mean[0].cpu(), view.std[0].cpu()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = (torch.from_numpy(np.array(self.array[i])).permute(2, 0, 1).float() - self.mean) / self.std
        y, x = self.draws.offsets[i].tolist()
        image = F.pad(image, [self.pad] * 4)[:, y : y + self.size, x : x + self.size]
        return (image.flip(2) if self.draws.mirrored[i] else image), int(self.targets[i])


class PlainLoop:
    """An epoch of the same network over a DataLoader, eager, contiguous; returns the mean loss."""

    def __init__(self, model: Backbone, pixels: Pixels, view: View, draws: Draws, job: Job) -> None:
        self.model, self.job = plain_modules(copy.deepcopy(model)), job
        self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.device, self.num = view.mean.device, len(pixels)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0, momentum=0.9, weight_decay=job.weight_decay)
        self.loader = DataLoader(
            PlainImages(pixels, view, draws), job.batch_size, sampler=draws.order.tolist(),
            num_workers=min(4, num_threads()), persistent_workers=True,
            pin_memory=self.device.type == "cuda",
        )  # fmt: skip

    def __call__(self) -> Terms:
        total = torch.zeros((), device=self.device)
        for images, labels in self.loader:
            images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            _, terms = METHODS[self.job.method](self.model, images, labels, self.job, 0)
            loss = torch.stack(list(terms.values())).sum()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(labels)
        return {"loss": total / self.num}
