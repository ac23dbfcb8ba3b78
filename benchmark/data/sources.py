"""Where the real data sets come from, and on whose terms; fetching those that may be fetched unattended.

MD5s of CIFAR-100's, VOC's, Caltech-256's and ILSVRC's files are those that torchvision's data sets check
(torchvision/datasets/{cifar,voc,caltech,imagenet}.py). CUB-200-2011's is the one that public loaders of CaltechDATA's
archive check, Avalanche's among them.
"""

from dataclasses import dataclass, field
from pathlib import Path

from benchmark.data.archives import download, md5_of, unpack
from benchmark.errors import UserError


@dataclass(frozen=True)
class Archive:
    """An official file and the folder that comes of it. `url` is None where only a person with an account gets it."""

    name: str
    md5: str
    folder: str  # within the data root, and within the archive
    url: str | None = None


@dataclass(frozen=True)
class Source:
    """`checksums`: official MD5s of unpacked files, by their place under the data root."""

    address: str
    archives: tuple[Archive, ...]
    terms: str
    checksums: dict[str, str] = field(default_factory=dict)

    @property
    def unattended(self) -> bool:
        """Whether the terms let a program fetch it."""
        return all(archive.url is not None for archive in self.archives)


CIFAR100 = Source(
    address="https://www.cs.toronto.edu/~kriz/cifar.html",
    archives=(
        Archive(
            "cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            "cifar-100-python",
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        ),
    ),
    terms="no explicit licence; cite Krizhevsky (2009)",
    checksums={
        "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
        "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48",
    },
)
CALTECH256 = Source(
    address="https://data.caltech.edu/records/nyy15-4j048",
    archives=(
        Archive(
            "256_ObjectCategories.tar",
            "67b4f42ca05d46448c6bb8ecd2220f6d",
            "256_ObjectCategories",
            "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",
        ),
    ),
    terms="terms on its page; the photographs were found on the web and belong to their owners",
)
ILSVRC2012 = Source(
    address="https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
    archives=(
        Archive("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e", "train"),
        Archive("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622", "val"),
        Archive("ILSVRC2012_devkit_t12.tar.gz", "fa75699e90414af021442c21a62c3abf", "ILSVRC2012_devkit_t12"),
    ),
    terms="needs an account at image-net.org and consent to its terms (non-commercial research and education)",
)
CUB200 = Source(
    address="https://data.caltech.edu/records/65de6-vp158",
    archives=(
        Archive(
            "CUB_200_2011.tgz",
            "97eceeb196236b17998738112f37df78",
            "CUB_200_2011",
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        ),
    ),
    terms="non-commercial research and education; the photographs belong to their owners",
)
VOC2012 = Source(
    address="https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC/",
    archives=(
        Archive(
            "VOCtrainval_11-May-2012.tar",
            "6cd6e144f989b92b3379bac3b3de84fd",
            "VOCdevkit/VOC2012",
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        ),
    ),
    terms="the photographs are under Flickr's terms of use",
)


def wrong_checksum(source: Source, root: Path) -> str:
    """Which file under `root` is not the official one, by its MD5; empty where all that have one are.

    Unpacked files with an official checksum must be there; an archive need not, but is checked where it is.
    """
    archives = {folder / a.name: a.md5 for a in source.archives for folder in (root, root / "ILSVRC2012")}
    present = {path: md5 for path, md5 in archives.items() if path.is_file()}
    for path, md5 in ({root / name: md5 for name, md5 in source.checksums.items()} | present).items():
        if (digest := md5_of(path)) != md5:
            return f"{path} has MD5 {digest}, the official one is {md5}"
    return ""


def fetch(name: str, source: Source, root: Path) -> None:
    """Download, check and unpack what is not under `root` yet. UserError where that takes a person, or a network."""
    if not source.unattended:
        files = ", ".join(archive.name for archive in source.archives)
        raise UserError(
            f"{name} {source.terms}, so it is not fetched unattended: sign in at {source.address}, put {files} into "
            f"{root}, then call 'data verify {name}'"
        )
    for archive in source.archives:
        path, target = root / archive.name, root / archive.folder
        if target.is_dir():
            continue
        if not path.exists():
            assert archive.url is not None  # unattended: each has one
            download(archive.url, path, archive.md5)
        elif (digest := md5_of(path)) != archive.md5:
            raise UserError(f"{path}: has MD5 {digest}, the official one is {archive.md5}; remove it and call again")
        unpack(path, target, top=archive.folder)
