"""One table, five texts: terminal, Markdown, LaTeX (booktabs), HTML, CSV. The same table gives the same bytes."""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from benchmark.store import write_atomic
from benchmark.tables import Cell, Table

SUBSCRIPT = re.compile(r"(\w+)_\{(.+?)\}")
BLANK = "–"  # a cell that cannot have a value: a gain of the baseline, a spread of one run
LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
         "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "Δ": r"$\Delta$",
         "†": r"\dag{}", "–": "--", "×": r"$\times$"}  # fmt: skip


def columns(table: Table) -> list[tuple[str, list[str]]]:
    """For each method its header and those of its sub-columns; only methods with a gain have the gain's."""
    groups = []
    for i, column in enumerate(table.spec.columns):
        n = sorted({c.n for c in table.cells.values() if c.column == column.key and c.n})
        ours = f"ours (n={'/'.join(map(str, n))})" if n else "ours"
        groups.append((column.header, [ours, "paper", "Δ"] + (["gain", "paper's gain"] if i else [])))
    return groups


def body(table: Table, bold: Callable[[str], str]) -> list[list[str]]:
    """The rows as text, `bold` around the best of each row (ours and the paper's, each among its own)."""
    rows = []
    for row in table.spec.rows:
        best, best_published = table.best(row.key), table.best(row.key, published=True)
        line = [row.key]
        for i, column in enumerate(table.spec.columns):
            cell = table.cells[row.key, column.key]
            ours, paper = value_text(cell, table), number(cell.published, table)
            line += [bold(ours) if column.key in best else ours]
            line += [bold(paper) if column.key in best_published else paper]
            line += [mark(signed(cell.delta, table), table)]
            if i:
                line += [signed(cell.gain, table), signed(cell.published_gain, table)]
        rows.append(line)
    return rows


def value_text(cell: Cell, table: Table) -> str:
    """Mean and spread; an honest blank otherwise."""
    if cell.mean is None:
        return cell.status
    spread = f" ± {number(cell.std, table)}" if cell.std is not None else ""
    partial = f" [{cell.status}]" if cell.status != "done" else ""
    return number(cell.mean, table) + spread + partial


def number(value: float | None, table: Table) -> str:
    return BLANK if value is None else f"{value:.{table.spec.decimals}f}"


def signed(value: float | None, table: Table) -> str:
    return BLANK if value is None else f"{value:+.{table.spec.decimals}f}"


def mark(delta: str, table: Table) -> str:
    """† behind a delta between two things that cannot be compared."""
    return delta if table.comparable or delta == BLANK else f"{delta}†"


def _flat_header(table: Table, name: Callable[[str], str]) -> list[str]:
    return [
        "class",
        *(f"{name(group)} {sub}" if sub.startswith("ours") else sub for group, subs in columns(table) for sub in subs),
    ]


def terminal(table: Table) -> str:
    header = _flat_header(table, lambda text: SUBSCRIPT.sub(r"\1 \2", text) + "\n")
    grid = tabulate(
        body(table, str),
        header,
        tablefmt="simple",
        disable_numparse=True,
        colalign=("left", *["right"] * (len(header) - 1)),
    )
    return "\n".join([table.spec.title, "", grid, "", *table.notes])


def markdown(table: Table) -> str:
    header = _flat_header(table, lambda text: SUBSCRIPT.sub(r"\1<sub>\2</sub>", text))
    grid = tabulate(
        body(table, "**{}**".format),
        header,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=("left", *["right"] * (len(header) - 1)),
    )
    notes = "\n".join(f"- {_escape_markdown(note)}" for note in table.notes)
    return f"### {table.spec.title}\n\n{grid}\n\n{notes}\n"


def _escape_markdown(text: str) -> str:
    return re.sub(r"([*_\[\]<>`|])", r"\\\1", text)


def escape_latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def _latex_header(text: str) -> str:
    return "".join(
        f"{escape_latex(part[0])}$_{{\\mathrm{{{escape_latex(part[1])}}}}}$" if isinstance(part, tuple)
        else escape_latex(part)
        for part in _split_subscript(text)
    )  # fmt: skip


def _split_subscript(text: str) -> list[str | tuple[str, str]]:
    found = SUBSCRIPT.search(text)
    if found is None:
        return [text]
    return [text[: found.start()], (found[1], found[2]), text[found.end() :]]


def latex(table: Table) -> str:
    """A booktabs table; the preamble needs booktabs and graphicx."""
    groups = columns(table)
    rules, first = [], 2
    for _, subs in groups:
        rules.append(f"\\cmidrule(lr){{{first}-{first + len(subs) - 1}}}")
        first += len(subs)
    heads = " & ".join(f"\\multicolumn{{{len(subs)}}}{{c}}{{{_latex_header(name)}}}" for name, subs in groups)
    subs = " & ".join(escape_latex(sub) for _, group in groups for sub in group)
    lines = [
        " & ".join([escape_latex(row[0]), *map(_latex_cell, row[1:])]) + r" \\" for row in body(table, _latex_bold)
    ]
    if len(lines) > 1:
        lines.insert(-1, r"\midrule")
    notes = r" \\ ".join(escape_latex(note) for note in table.notes)
    title = escape_latex(table.spec.title.partition(". ")[2] or table.spec.title)
    return "\n".join([
        "% needs \\usepackage{booktabs} and \\usepackage{graphicx}",
        r"\begin{table}", r"\centering", f"\\caption{{{title}}}", r"\resizebox{\linewidth}{!}{%",
        f"\\begin{{tabular}}{{l{'r' * (first - 2)}}}", r"\toprule", f" & {heads} \\\\", " ".join(rules),
        f"class & {subs} \\\\", r"\midrule", *lines, r"\bottomrule", r"\end{tabular}}", "",
        f"\\par\\medskip\\raggedright\\footnotesize {notes}", r"\end{table}", "",
    ])  # fmt: skip


def _latex_bold(text: str) -> str:  # control characters pass through escape_latex
    return f"\x01{text}\x02"


def _latex_cell(text: str) -> str:
    return escape_latex(text).replace("\x01", r"\textbf{").replace("\x02", "}")


def html(table: Table) -> str:
    """One self-contained page."""
    import jinja2
    from markupsafe import Markup, escape

    def header(text: str) -> Markup:
        return Markup("").join(
            Markup("{}<sub>{}</sub>").format(*part) if isinstance(part, tuple) else escape(part)
            for part in _split_subscript(text)
        )

    def bold(text: str) -> Markup:
        return Markup("<b>{}</b>").format(text)

    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    page = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    groups = [(header(name), subs) for name, subs in columns(table)]
    return page.get_template("table.html").render(table=table, groups=groups, rows=body(table, bold))


def csv(table: Table) -> str:
    """Tidy: one line a cell, numbers unrounded beyond six decimals."""
    lines = [
        {
            "table": table.spec.name, "scale": table.scale, "row": c.row, "column": c.column,
            "published": c.published, "mean": c.mean, "std": c.std, "n": c.n, "delta": c.delta, "gain": c.gain,
            "published_gain": c.published_gain, "status": c.status, "comparable": table.comparable,
            "values": " ".join(f"{v:.6f}" for v in c.values), "runs": " ".join(c.runs),
        }
        for c in table.cells.values()
    ]  # fmt: skip
    return pd.DataFrame(lines).to_csv(index=False, float_format="%.6f", lineterminator="\n")


FORMATS: dict[str, Callable[[Table], str]] = {"md": markdown, "tex": latex, "html": html, "csv": csv}


def write(table: Table, folder: Path) -> list[Path]:
    """All formats as `<folder>/<table>.<format>`."""
    paths = []
    for ending, text in FORMATS.items():
        path = folder / f"{table.spec.name}.{ending}"
        write_atomic(path, text(table).encode())
        paths.append(path)
    return paths
