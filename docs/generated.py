"""What cog writes into README.md and docs/*.md (`make numbers`): rows of tables/, counts of runs/."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]


def table(name: str, *rows: str) -> None:
    """Print a table of tables/<name>.md: all of it, or its header and the rows that begin with these names."""
    lines = [
        line for line in (ROOT / "tables" / f"{name}.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"
    ]
    missing = [row for row in rows if not any(line.startswith(f"| {row}") for line in lines)]
    if missing:
        raise ValueError(f"tables/{name}.md has no row {', '.join(missing)}")
    wanted = tuple(f"| {row}" for row in rows)
    print("\n".join(lines[:2] + [line for line in lines[2:] if not rows or line.startswith(wanted)]))


def readings(scale: str, grid: str) -> None:
    """Print the table of a grid's readings without those that have not run."""
    lines = (ROOT / "tables" / scale / f"{grid}-readings.md").read_text(encoding="utf-8").splitlines()
    print("\n".join(line for line in lines if line.startswith("|") and "not run" not in line))


def ran(told: str, scale: str, dataset: str, precision: str, planned: int, rest: str) -> None:
    """Print a row: what ran, how many of the planned jobs, the minutes that their records sum up to, and the rest."""
    jobs = {path.parent: json.loads(path.read_text()) for path in (ROOT / "runs" / scale).glob("*/job.json")}
    chosen = [folder for folder, job in jobs.items() if (job["dataset"], job["precision"]) == (dataset, precision)]
    seconds = sum(json.loads((folder / "result.json").read_text())["seconds"] for folder in chosen)
    print(f"| {told} | {len(chosen)} of {planned} | {round(seconds / 60)} | {rest} |")


def controls() -> None:
    """Print every table of tables/answer-controls.md with what stands above it, without the note at its end."""
    print((ROOT / "tables" / "answer-controls.md").read_text(encoding="utf-8").strip().rpartition("\n\n")[0])
