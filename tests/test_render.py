"""Text from tables: hostile strings, stable bytes, LaTeX that compiles."""

import csv
import io
import json
import re
import shutil
import subprocess

import pytest

from benchmark.tables import diff, render
from tests.evidence import TABLES, golden_table

HOSTILE = r'a|b & c_d % $x$ #1 {e} ~ ^ \n <script>alert(1)</script> "q" ± 10 −5 ≥ 漢 *bold* `code` [l](u)' + "\n\x07new"


def hostile_table():
    spec = golden_table().spec
    rows = [spec.rows[0].model_copy(update={"key": HOSTILE, "item": "cow"}), *spec.rows[1:3]]
    columns = [spec.columns[0].model_copy(update={"header": HOSTILE}), *spec.columns[1:]]
    changes = {"title": f"Table 9. {HOSTILE}", "rows": rows, "columns": columns, "discrepancies": [HOSTILE]}
    return golden_table(spec_changes=changes)


def test_bytes_are_stable():
    for text in render.FORMATS.values():
        assert text(golden_table()) == text(golden_table())


def test_markdown_keeps_its_columns():
    text = render.markdown(hostile_table())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "<script>" not in text.replace(r"\<script\>", "")


def test_a_terminal_s_table_fits_and_keeps_what_matters():
    table = golden_table()
    narrow, whole = render.terminal(table, 80), render.terminal(table)
    shown, notes = narrow.split("\n\n" + table.notes[0])[0], "\n".join(table.notes)
    assert max(map(len, shown.splitlines())) <= 80 < max(map(len, whole.splitlines()[2:20]))
    assert narrow.endswith(notes)
    for cell in table.cells.values():
        if cell.gain is not None:
            kept = (render.value_text(cell, table), render.gain_text(cell, table))
            pattern = r"\s+".join(
                map(re.escape, (table.label(cell.row), *kept, render.signed(cell.published_gain, table)))
            )
            assert re.search(pattern, shown), pattern
    assert render.terminal(table, 500) == whole


def test_a_terminal_s_words_are_broken_to_fit():
    shown = render.terminal(hostile_table(), 80).partition("\n\nScale mini")[0].splitlines()[2:]
    assert max(map(len, [line for line in shown if "alert" not in line])) <= 80


def test_a_method_that_has_not_run_is_one_line(tmp_path):
    assert render.terminal(golden_table(runs=tmp_path), 80).splitlines()[2:7] == [
        "ResNet18: not run", "", "+ ICASC Grad-CAM: not run", "", "+ ICASC A_ch: not run",
    ]  # fmt: skip


def test_a_notebook_runs_nothing():
    text = render.fragment(hostile_table())
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_csv_and_json_read_back():
    table = hostile_table()
    lines = list(csv.DictReader(io.StringIO(render.csv(table))))
    assert lines[0]["row"] == HOSTILE
    assert json.loads(render.json(table))["cells"][0]["row"] == HOSTILE
    assert float(lines[0]["low"]) < float(lines[0]["mean"]) < float(lines[0]["high"])
    assert len(lines[0]["values"].split()) == len(lines[0]["runs"].split()) == 2


@pytest.mark.parametrize("first", ["=", "+", "-", "@"])
def test_no_cell_of_a_csv_is_a_formula(first, tmp_path):
    key = f"{first}HYPERLINK(A1)"
    spec = golden_table().spec
    rows = [spec.rows[0].model_copy(update={"key": key, "item": "cow"})]
    table = golden_table(spec_changes={"rows": rows})
    (tmp_path / "table2.csv").write_text(render.csv(table))
    lines = csv.DictReader(io.StringIO(render.csv(table)))
    assert {line["row"] for line in lines} == {f"'{key}"}
    assert {row for row, _ in diff.of_file(tmp_path / "table2.csv").cells} == {key}


def test_what_latex_takes_for_its_own_is_escaped():
    assert render.escape_latex("a & b_c % $ # {d} ~ ^ \\") == (
        r"a \& b\_c \% \$ \# \{d\} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    assert render.escape_latex("± Δ † – × < > | ≥ ≤") == (
        r"$\pm$ $\Delta$ \dag{} -- $\times$ \textless{} \textgreater{} \textbar{} $\geq$ $\leq$"
    )


def test_a_zero_has_no_sign():
    table = golden_table()
    assert [render.signed(v, table) for v in (-0.001, 0.001, -0.01, None)] == ["0.00", "0.00", "-0.01", "–"]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex on PATH")
@pytest.mark.parametrize("make", [golden_table, hostile_table])
def test_latex_compiles(make, tmp_path):
    head = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}"
    document = f"{head}\n\\begin{{document}}\n{render.latex(make())}\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000


def test_write_makes_every_format(tmp_path):
    paths = render.write(golden_table(), tmp_path)
    assert [path.suffix for path in paths] == [".md", ".tex", ".csv", ".json"]
    assert (tmp_path / "table2.md").read_bytes() == (TABLES / "mini" / "table2.md").read_bytes()
