"""init: a folder with a small study that runs as it is."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from benchmark.errors import UserError

TEMPLATE = Path(__file__).parents[1] / "template"


def init(folder: Annotated[Path, typer.Argument(help="A new folder")]) -> None:
    """Write a small study of your own: methods.py, a grid, a table, and how to run them. It takes minutes."""
    folder = folder.expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; name a new folder")
    try:
        shutil.copytree(TEMPLATE, folder, dirs_exist_ok=True)
        (folder / "methods.py.txt").rename(folder / "methods.py")  # which is no module of the suite
        readme = folder / "README.md"
        readme.write_text(readme.read_text(encoding="utf-8").replace("DIR", str(folder)))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    print(f"written: {folder}/; next: python -m benchmark run --grid mine --study {folder}")
