"""One table as text: terminal, notebook, Markdown, LaTeX (booktabs), CSV, JSON. The same table gives the same bytes."""

import json as json_text
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from benchmark.errors import visible
from benchmark.stats import claims
from benchmark.store.files import write_atomic
from benchmark.tables.cells import Cell, Table, TableOfRuns
from benchmark.tables.published import Spec

SUBSCRIPT = re.compile(r"(\w+)_\{(.+?)\}")
MEAN = "mAP"  # the row that sums up those above it, ruled off from them
BLANK = "–"  # a cell that cannot have a value: a gain of the baseline, a spread of one run
LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
         "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "Δ": r"$\Delta$",
         "≠": r"$\neq$", "†": r"\dag{}", "–": "--", "×": r"$\times$", "<": r"\textless{}",
         ">": r"\textgreater{}",
         "|": r"\textbar{}", "≥": r"$\geq$", "≤": r"$\leq$", "−": "$-$", "\n": " "}  # fmt: skip
HYPHEN = re.compile(r"(?<![\w./:=-])-(?=\d)")  # before a number, and in no name, path or command
NOT_IN_T1 = "ĦħĸĿŀŉŦŧſ"  # of the Latin letters below U+0180: pdflatex stops at these


def columns(table: Table) -> list[tuple[str, list[str]]]:
    """For each method its header and those of its sub-columns; only methods with a gain have the gain's."""
    groups = []
    for i, column in enumerate(table.spec.columns):
        n = sorted({c.n for c in table.cells.values() if c.column == column.key and c.n})
        ours = f"ours (n={'/'.join(map(str, n))})" if n else "ours"
        delta = [] if is_text(table) or not has_delta(table) else ["Δ"]
        gains = ["gain", "paper's gain"] if i and not is_text(table) and not table.spec.of_gains else []
        share = ["share"] if table.spec.of_gains else []
        if table.spec.of_controls:
            groups.append((column.header, [ours, *gains[:1]]))
        else:
            groups.append((column.header, [ours, "paper", *delta, *gains, *share]))
    return groups


def is_text(table: Table) -> bool:
    """Cells of words have no difference and no gain."""
    return any(cell.text is not None for cell in table.cells.values())


def has_delta(table: Table) -> bool:
    """Whether values stand beside published ones of the same test set, so that their difference means something."""
    return isinstance(table, TableOfRuns) and table.matrix.has_the_paper_s_test_set


def body(table: Table, bold: Callable[[str], str], word: Callable[[str], str] = str) -> list[list[str]]:
    """The rows as text, `bold` around the best of each row (ours and the paper's, each among its own), and what a table
    of words says, which others wrote, by way of `word`."""
    rows = []
    for row in table.spec.rows:
        best, best_published = table.best(row.key), table.best(row.key, published=True)
        line = [table.label(row.key)]
        for i, column in enumerate(table.spec.columns):
            cell = table.cells[row.key, column.key]
            ours, paper = value_text(cell, table), level(cell.published, table)
            if cell.text is not None:
                ours, paper = word(ours), word(paper)
            line += [bold(ours) if column.key in best else ours]
            if table.spec.of_controls:
                line += [gain_text(cell, table)] if i else []
                continue
            line += [bold(paper) if column.key in best_published else paper]
            if cell.text is None and has_delta(table):
                line += [signed(cell.delta, table)]
            if table.spec.of_gains:
                line += [share_text(cell)]
            elif i and cell.text is None:
                line += [gain_text(cell, table), signed(cell.published_gain, table)]
        rows.append(line)
    return rows


def value_text(cell: Cell, table: Table) -> str:
    """Mean and spread; an honest blank otherwise."""
    if cell.text is not None:
        return cell.text
    if cell.mean is None:
        return cell.status
    if table.spec.of_gains:
        return gain_text(cell, table)
    spread = f" ± {number(cell.std, table)}" if cell.std is not None else ""
    partial = f" [{cell.status}]" if cell.status != "done" else ""
    return level(cell.mean, table) + spread + partial


def level(value: float | str | None, table: Table) -> str:
    """A cell's number; one that is a gain has its sign."""
    return signed(value, table) if table.spec.of_gains else number(value, table)


def number(value: float | str | None, table: Table) -> str:
    if value is None:
        return BLANK
    return str(value) if table.spec.decimals is None else f"{value:.{table.spec.decimals}f}"


def signed(value: float | str | None, table: Table) -> str:
    if value is None or isinstance(value, str):
        return value or BLANK
    text = f"{value:+.{table.spec.decimals}f}"
    return text if float(text) else text[1:]  # a zero has no sign


def gain_text(cell: Cell, table: Table) -> str:
    """The gain and its interval, and what must be known of them: † no comparison with the published gain, †† its
    runs trained by more than one version of the code, images only."""
    if cell.gain is None:
        return BLANK
    text = signed(cell.gain, table)
    if cell.gain_interval is not None:
        low, high = signed(cell.gain_interval.low, table), signed(cell.gain_interval.high, table)
        text += f" [{low}, {high}]"
        text += "" if cell.gain_interval.over == "seeds and images" else f" ({cell.gain_interval.over})"
    return text + ("" if table.comparable else "†") + (" ††" if cell.crosses else "")


def share_text(cell: Cell) -> str:
    """Our gain as a share of the paper's, with its interval."""
    known = cell.gain_interval.estimate if cell.gain_interval else None
    if known is None or not isinstance(cell.published, int | float):
        return BLANK
    ratio = claims.effect_ratio(known, cell.published)
    if ratio is None or ratio[1] is None:
        return BLANK
    return f"{ratio[0]:.2f} [{ratio[1][0]:.2f}, {ratio[1][1]:.2f}]"


def _flat_header(table: Table, name: Callable[[str], str]) -> list[str]:
    return [
        table.spec.row_header,
        *(f"{name(group)} {sub}" if sub.startswith("ours") else sub for group, subs in columns(table) for sub in subs),
    ]


def terminal(table: Table, width: int | None = None) -> str:
    """The whole table side by side; where that is wider than `width` columns, what matters of it in a block for each
    method below each other: row, ours, gain with its interval, the paper's gain."""
    whole = _grid(body(table, str), _flat_header(table, lambda text: _words(text) + "\n"))
    fits = width is None or all(len(line) <= width for line in whole.splitlines())
    return "\n".join(
        [table.spec.title, "", whole if fits or width is None else _blocks(table, width), "", *table.notes]
    )


def _words(header: str) -> str:
    return SUBSCRIPT.sub(r"\1 \2", header)


def _grid(rows: list[list[str]], header: list[str], widths: list[int | None] | None = None) -> str:
    aligned = ("left", *["right"] * (len(header) - 1))
    return tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=aligned, maxcolwidths=widths)


def _blocks(table: Table, width: int) -> str:
    """One block a column of the table; rows, and columns, without any number of ours are counted in a line."""
    rows = body(table, str)
    blocks, first = [], 1
    for column, (name, subs) in zip(table.spec.columns, columns(table), strict=True):
        cells = [table.cells[row.key, column.key] for row in table.spec.rows]
        kept = [i for i, sub in enumerate(subs) if "gain" not in subs or sub not in ("paper", "Δ")]
        shown = [[row[0], *(row[first + i] for i in kept)] for row, c in zip(rows, cells, strict=True) if c.n or c.text]
        left = Counter(cell.status for cell in cells if not (cell.n or cell.text))
        counts = ", ".join(f"{status}: {num} of {len(rows)} rows" for status, num in left.items())
        if shown:
            block = _block(_words(name), [subs[i] for i in kept], shown, table.spec.row_header, width)
            blocks.append("\n".join([block, *([counts] if counts else [])]))
        else:
            blocks.append(f"{_words(name)}: {', '.join(left)}")
        first += len(subs)
    return "\n\n".join(blocks)


def _block(name: str, subs: list[str], rows: list[list[str]], row_header: str, width: int) -> str:
    """`subs` under the method's name. What all gains have to be told stands above them; words are broken to fit."""
    over = " (images only)"
    at = next((1 + i for i, sub in enumerate(subs) if sub == "gain"), 1)
    gains = [row[at] for row in rows if "[" in row[at]]
    if gains and all(over in text for text in gains):
        rows = [[text.replace(over, "") for text in row] for row in rows]
        name += "; intervals over images only"
    header = [row_header, *(sub.replace("paper's gain", "paper's\ngain") for sub in subs)]
    text = _grid(rows, header)
    if (too_wide := max(map(len, text.splitlines())) - width) > 0:
        most = [max(len(line) for row in (header, *rows) for line in row[i].splitlines()) for i in range(len(header))]
        widest = most.index(max(most))
        text = _grid(rows, header, [max(12, m - too_wide) if i == widest else None for i, m in enumerate(most)])
    return f"{name}\n{text}"


def markdown(table: Table) -> str:
    header = _flat_header(table, _markdown_header)
    header[0] = escape_markdown(header[0])
    grid = tabulate(
        [[escape_markdown(row[0]), *row[1:]] for row in body(table, "**{}**".format, escape_markdown)],
        header,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=("left", *["right"] * (len(header) - 1)),
    )
    notes = "\n".join(f"- {escape_markdown(note)}" for note in table.notes)
    return f"### {escape_markdown(table.spec.title)}\n\n{grid}\n\n{notes}\n"


def fragment(table: Table) -> str:
    """HTML for a notebook's cell: the table and its notes."""
    header = [escape(text) for text in _flat_header(table, str)]
    grid = tabulate(
        [[escape(str(cell)) for cell in row] for row in body(table, str)], header, tablefmt="unsafehtml",
        disable_numparse=True,
    )  # fmt: skip
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return visible(f"<p>{escape(table.spec.title)}</p>{grid}<ul>{notes}</ul>")


class NotebookTable(Table):
    """A table that a notebook's cell shows."""

    _repr_html_ = fragment


class NotebookTableOfRuns(TableOfRuns):
    """A table of runs that a notebook's cell shows."""

    _repr_html_ = fragment


def for_notebook(table: Table) -> Table:
    """Return the same table, shown as HTML in a notebook."""
    kind = NotebookTableOfRuns if isinstance(table, TableOfRuns) else NotebookTable
    return kind(**{each.name: getattr(table, each.name) for each in fields(table)})


def escape_markdown(text: str) -> str:
    return re.sub(r"([\\*_\[\]<>`|])", r"\\\1", text.replace("\n", " "))


def _markdown_header(text: str) -> str:
    return "".join(
        f"{escape_markdown(part[0])}<sub>{escape_markdown(part[1])}</sub>" if isinstance(part, tuple)
        else escape_markdown(part)
        for part in split_subscript(text)
    )  # fmt: skip


def minus(text: str) -> str:
    """A number's hyphen as a minus sign, the one that figures print; markup stays markup."""
    return type(text)(HYPHEN.sub("−", text))


def escape_latex(text: str) -> str:
    """Text that pdflatex sets as it reads; a letter that its fonts lack becomes its code, a control one nothing."""
    return "".join(LATEX.get(letter) or _plain_latex(letter) for letter in minus(text))


def _after_break(text: str) -> str:
    r"""Text after \\, which would take a bracket or a star at its beginning for its own."""
    escaped = escape_latex(text)
    return ("{}" if escaped.startswith(("[", "*")) else "") + escaped


def _plain_latex(letter: str) -> str:
    if not letter.isprintable():
        return ""
    return letter if ord(letter) < 0x180 and letter not in NOT_IN_T1 else f"[U+{ord(letter):04X}]"


def _latex_header(text: str) -> str:
    return "".join(
        f"{escape_latex(part[0])}\\textsubscript{{{escape_latex(part[1])}}}" if isinstance(part, tuple)
        else escape_latex(part)
        for part in split_subscript(text)
    )  # fmt: skip


def split_subscript(text: str) -> list[str | tuple[str, str]]:
    match = SUBSCRIPT.search(text)
    if match is None:
        return [text]
    return [text[: match.start()], (match[1], match[2]), text[match.end() :]]


def latex(table: Table) -> str:
    """A booktabs table; the preamble needs booktabs and graphicx."""
    groups = columns(table)
    rules, first = [], 2
    for _, subs in groups:
        rules.append(f"\\cmidrule(lr){{{first}-{first + len(subs) - 1}}}")
        first += len(subs)
    heads = " & ".join(f"\\multicolumn{{{len(subs)}}}{{c}}{{{_latex_header(name)}}}" for name, subs in groups)
    names = " & ".join(escape_latex(sub) for _, group in groups for sub in group)
    lines = [
        " & ".join([_after_break(row[0]), *map(_latex_cell, row[1:])]) + r" \\" for row in body(table, _latex_bold)
    ]
    if len(lines) > 1 and table.spec.rows[-1].key == MEAN:
        lines.insert(-1, r"\midrule")
    notes = r" \\ ".join(_after_break(note) for note in table.notes)
    return "\n".join([
        "% needs \\usepackage{booktabs} and \\usepackage{graphicx}",
        r"\begin{table}", r"\centering", f"\\caption{{{escape_latex(caption(table.spec))}}}",
        r"\resizebox{\linewidth}{!}{%",
        f"\\begin{{tabular}}{{l{'r' * (first - 2)}}}", r"\toprule", f" & {heads} \\\\", " ".join(rules),
        f"{escape_latex(table.spec.row_header)} & {names} \\\\", r"\midrule", *lines, r"\bottomrule",
        r"\end{tabular}}", "",
        f"\\par\\medskip\\raggedright\\footnotesize {notes}", r"\end{table}", "",
    ])  # fmt: skip


def caption(spec: Spec) -> str:
    """The title without its number, which LaTeX counts itself."""
    return spec.title.partition(". ")[2] or spec.title


def _latex_bold(text: str) -> str:
    return f"\x01{text}"  # escaped later, when the mark becomes the command


def _latex_cell(text: str) -> str:
    return f"\\textbf{{{escape_latex(text)}}}" if text.startswith("\x01") else escape_latex(text)


def inert(value: Any) -> Any:
    """For a CSV cell: what a spreadsheet would take for a formula becomes text, by an apostrophe before it."""
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value


def csv(table: Table) -> str:
    """One line a cell, numbers unrounded beyond six decimals."""
    lines = [
        {name: inert(value) for name, value in r.items()}
        | {"values": " ".join(f"{v:.6f}" for v in r["values"]), "runs": " ".join(r["runs"])}
        for r in table.records()
    ]
    return pd.DataFrame(lines).to_csv(index=False, float_format="%.6f", lineterminator="\n")


def json(table: Table) -> str:
    """The cells of `csv` and what belongs to the whole table."""
    document = {
        "table": table.spec.name, "title": table.spec.title, "scale": table.scale, "unit": table.spec.unit,
        "decimals": table.spec.decimals, "comparable": table.comparable,
        "verdicts": {level: dict(counts) for level, counts in table.verdicts().items()},
        "notes": list(table.notes), "cells": _rounded(table.records()),
    }  # fmt: skip
    return json_text.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return {k: _rounded(v) for k, v in value.items()} if isinstance(value, dict) else value


FORMATS: dict[str, Callable[[Table], str]] = {"md": markdown, "tex": latex, "csv": csv, "json": json}


def write(table: Table, folder: Path, replace: bool = False) -> list[Path]:
    """All formats as `<folder>/<table>.<format>`; none where a table of more runs lies there, unless told to replace
    it: half a run must not put blanks into a finished table."""
    if not replace and _num_values(folder / f"{table.spec.name}.json") > sum(cell.n for cell in table.cells.values()):
        return []
    paths = []
    for ending, text in FORMATS.items():
        path = folder / f"{table.spec.name}.{ending}"
        write_atomic(path, visible(text(table)).encode())
        paths.append(path)
    return paths


def _num_values(path: Path) -> int:
    """How many measured numbers a written table holds; none where there is no such table."""
    try:
        return sum(cell["n"] for cell in json_text.loads(path.read_bytes())["cells"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
