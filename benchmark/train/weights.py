"""Pretrained weights: which file a job names, where it is, and how it gets into a network."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmark.errors import UserError
from benchmark.matrix.grid import mini_weights
from benchmark.matrix.job import IMAGENET1K_V1, Job
from benchmark.methods.models import Backbone, architecture_of


def find(job: Job, given: Path | None) -> Path:
    """The file that job.weights names, its SHA-256 checked; `given`: the file or folder that the user named.

    UserError says which file is missing or not the one.
    """
    if job.weights.startswith("mini"):
        path, expected = mini_weights(job.backbone), job.weights.partition("@")[2]
    else:
        name = IMAGENET1K_V1.get(job.backbone)
        expected = job.weights.removeprefix("sha256:")
        if job.weights == "imagenet1k_v1":
            if name is None:
                raise UserError(f"{job.backbone} has no ImageNet weights; --set weights=scratch")
            expected = name.rpartition("-")[2].removesuffix(".pth")
        if given is None and job.weights == "imagenet1k_v1":
            assert name is not None
            return download(name)
        if given is None:
            raise UserError(f"weights with SHA-256 {expected[:12]}... are needed: name the file with --weights FILE")
        path = given / name if given.is_dir() and name else given
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(expected):
        raise UserError(
            f"{path}: SHA-256 {digest[:12]}..., the job needs {expected[:12]}...; "
            f"--set weights=sha256:{digest} makes jobs for this file"
        )
    return path


def download(name: str) -> Path:
    """torchvision's weights file, from its cache or its own address."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            url = f"https://download.pytorch.org/models/{name}"
            torch.hub.download_url_to_file(url, str(path), hash_prefix=name.rpartition("-")[2][:8], progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{name} is missing and cannot be downloaded ({error}); put it into a folder and name that "
                "with --weights-dir DIR"
            ) from None
    return path


def load(model: Backbone, backbone: str, path: Path) -> None:
    """Pretrained parameters from a .safetensors or .pth file, all but the classifier's, which stay as initialised.

    UserError where the file cannot be read or does not fit the network.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = {name: tensor.float() for name, tensor in state.items()}
    except FileNotFoundError:
        raise UserError(f"{path}: no such weights file") from None
    except Exception as error:  # a damaged file, or one that holds other things than tensors, fails in many ways
        raise UserError(f"{path}: not a weights file ({type(error).__name__})") from None
    prefix = architecture_of(backbone).classifier
    own = model.net.state_dict()
    kept = {name: tensor for name, tensor in own.items() if name.startswith(prefix)}
    given = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    # Files from before torch 0.4 lack BatchNorm's batch counters, which nothing here reads.
    counters = {n: t for n, t in own.items() if n.endswith("num_batches_tracked") and n not in given}
    for name, tensor in own.items():
        if name in kept or name in counters:
            continue
        if name not in given:
            raise UserError(f"{path}: does not fit {backbone}: it has no '{name}'")
        if given[name].shape != tensor.shape:
            raise UserError(
                f"{path}: does not fit {backbone}: '{name}' is {tuple(given[name].shape)}, "
                f"the network's is {tuple(tensor.shape)}"
            )
    extra = [name for name in given if name not in own]
    if extra:
        raise UserError(f"{path}: does not fit {backbone}: it has '{extra[0]}', which the network has not")
    model.net.load_state_dict(given | kept | counters)
