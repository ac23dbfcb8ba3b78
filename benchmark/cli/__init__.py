"""The commands, each a few lines over the rooms below; what needs torch is imported when its command runs."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

import benchmark
from benchmark.cli import data, develop, diff, evidence, export, init, matrix, records, run, tables
from benchmark.matrix import own

COMMANDS: dict[str, Callable[..., None]] = {
    "init": init.init,
    "export": export.export,
    "plan": matrix.plan,
    "run": run.run,
    "status": matrix.status,
    "tables": tables.tables_command,
    "published": tables.published_command,
    "assumptions": tables.assumptions,
    "lock": tables.lock,
    "diff": diff.diff,
    "answer": evidence.answer,
    "explain": evidence.explain,
    "sensitivity": evidence.sensitivity,
    "figures": evidence.figures,
    "report": evidence.report,
    "verify": records.verify,
    "import": records.import_command,
    "schema": develop.schema,
    "bench": develop.bench_command,
    "gpu-session": develop.gpu_session,
    "pretrain-mini": develop.pretrain_mini,
    "run-job": run.run_job,
}

app = typer.Typer(
    help="Train a paper's grid, make its tables from what was measured, compare them with the published numbers.",
    no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]}, pretty_exceptions_enable=False,
)  # fmt: skip


def _version(asked: bool) -> None:
    if asked:
        print(benchmark.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", help="The suite's", is_eager=True, callback=_version)] = False,
) -> None:
    pass


Study = Annotated[
    Path | None,
    typer.Option("--study", help="Folder of your own methods.py, grids/ and tables/", is_eager=True, callback=own.use),
]


def of_a_study(command: Callable[..., None]) -> Callable[..., None]:
    """The command with --study, which is read before its other options."""

    @wraps(command)
    def called(*arguments: Any, study_folder: Path | None = None, **options: Any) -> None:
        command(*arguments, **options)

    added = inspect.Parameter("study_folder", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Study)
    signature = inspect.signature(command)
    called.__signature__ = signature.replace(parameters=[*signature.parameters.values(), added])  # type: ignore[attr-defined]
    called.__annotations__ = command.__annotations__ | {"study_folder": Study}
    return called


for name, command in COMMANDS.items():
    app.command(name)(of_a_study(command))
of_data = typer.Typer(help="List, verify, draw and get the data sets.", no_args_is_help=True)
for name, command in data.COMMANDS.items():
    of_data.command(name)(of_a_study(command))
app.add_typer(of_data, name="data")
