"""The commands, each a few lines over the rooms below; what needs torch is imported when its command runs."""

from collections.abc import Callable

import typer

from benchmark.cli import data, develop, diff, evidence, matrix, run, tables

COMMANDS: dict[str, Callable[..., None]] = {
    "plan": matrix.plan,
    "run": run.run,
    "status": matrix.status,
    "tables": tables.tables_command,
    "published": tables.published_command,
    "assumptions": tables.assumptions,
    "diff": diff.diff,
    "explain": evidence.explain,
    "sensitivity": evidence.sensitivity,
    "figures": evidence.figures,
    "report": evidence.report,
    "schema": develop.schema,
    "bench": develop.bench_command,
    "pretrain-mini": develop.pretrain_mini,
    "run-job": run.run_job,
}

app = typer.Typer(
    help="Does ICASC reproduce? Train the grid, regenerate the paper's tables, compare with the published numbers.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(data.app, name="data")
