#!/usr/bin/env bash
# `to_markdown()` prints 1281167 images as 1.28117e+06, unless the table has a column of text.
#
# Versions: pandas 3.1.1, tabulate 0.10.0.
# Guess: a column of integers prints as integers, whatever the other columns hold.
# Seen: beside a column of floats the whole table becomes one float array on the way, and six digits are kept: 5011
#   stands, 1281167 turns into 1.28117e+06. With `floatfmt=".2f"` both get decimals (5011.00). One column of text, a
#   table of integers only, or `astype(object)` prints every digit.
# Why it matters: a table of methods by number and mAP (index the data set) loses digits of its counts and seeds; adding
#   a text column brings them back, so the fault hides in the small example. Seeds beyond 2**53 would even be rounded.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pandas==3.1.1 tabulate==0.10.0 numpy==2.4.6

"$work/venv/bin/python" - <<'PYTHON'
import pandas as pd
import tabulate

print("pandas", pd.__version__, "tabulate", tabulate.__version__)
frame = pd.DataFrame({"images": [5011, 1281167], "mAP": [0.5, 0.75]}, index=["VOC", "ImageNet"])
tables = {
    "plain": frame.to_markdown(),
    "two decimals": frame.to_markdown(floatfmt=".2f"),
    "with text": frame.assign(note=["a", "b"]).to_markdown(),
    "counts alone": frame[["images"]].to_markdown(),
    "astype(object)": frame.astype(object).to_markdown(),
}
for name, text in tables.items():
    print(f"{name}:\n{text}")

assert frame["images"].dtype == "int64"
assert "1.28117e+06" in tables["plain"] and "1281167" not in tables["plain"]
assert "5011.00" in tables["two decimals"]
for name in ("with text", "counts alone", "astype(object)"):
    assert "1281167" in tables[name]
PYTHON
