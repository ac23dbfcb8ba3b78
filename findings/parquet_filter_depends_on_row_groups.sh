#!/usr/bin/env bash
# Whether a filter returns a row with NaN from a Parquet file depends on which rows were written beside it.
#
# Versions: pyarrow 26.0.1.
# Guess: NaN != 50 is true, so `filters=[("map", "!=", 50.0)]` returns the run whose mAP is NaN, as the same filter on
#   the table in memory does.
# Seen: statistics of a row group leave NaN out, and the reader drops a whole group by them. The NaN beside two runs of
#   exactly 50 is dropped, the NaN beside runs of 50 and 60 is returned. One table gives two answers for two
#   row_group_size. `~(map < 60)` loses it in the same way. A null would be left out always.
# Why it matters: NaN marks a run that diverged. Looking for "all runs that are not at 50" or "not below 60" loses it
#   by chance. pandas writes NaN as null, but `Table.from_pylist` and `pa.table` of NumPy arrays write NaN.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pyarrow==26.0.1 numpy==2.4.6

WORK="$work" "$work/venv/bin/python" - <<'PYTHON'
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

print("pyarrow", pa.__version__)
runs = [("a", 50.0), ("b", float("nan")), ("c", 50.0), ("d", 60.0), ("e", float("nan")), ("f", 50.0)]
table = pa.Table.from_pylist([{"run": run, "map": value} for run, value in runs])
assert table["map"].null_count == 0
filters = {
    "map != 50": pc.field("map") != 50.0,
    "not map < 60": ~(pc.field("map") < 60.0),
}

found = {}
for name, keep in filters.items():
    found[name, "memory"] = "".join(table.filter(keep)["run"].to_pylist())
    for size in (6, 3):
        path = Path(os.environ["WORK"]) / f"{size}.parquet"
        pq.write_table(table, path, row_group_size=size)
        found[name, size] = "".join(pq.read_table(path, filters=keep)["run"].to_pylist())
    statistics = pq.read_metadata(path).row_group(0).column(1).statistics
    print(f"{name}: in memory {found[name, 'memory']}, one row group {found[name, 6]}, two {found[name, 3]}")
print(f"statistics of the first of two groups: {statistics.min} to {statistics.max}, {statistics.null_count} nulls")

for name in filters:
    assert found[name, "memory"] == found[name, 6] == "bde"
    assert found[name, 3] == "de"
assert (statistics.min, statistics.max, statistics.null_count) == (50.0, 50.0, 0)
PYTHON
