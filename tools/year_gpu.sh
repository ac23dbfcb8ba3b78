#!/usr/bin/env bash
# All jobs of grid voc at scale year2008 on one GPU, several at once, in a limited time. Needs nothing but Python with the
# suite's packages, and the parts that tools/pack_year.py has made. What is not done in time stays resumable in WORK.
#
#   tools/year_gpu.sh PARTS WORK MINUTES [options of `run`, such as --set epochs=1]
#
# PARTS: the folder of the parts. They may come one after the other: called with some of them, it unpacks these into WORK
# and says what is missing. RECORDS=FILE: where the records go as a tar.gz (default: WORK/records.tar.gz).
# DEVICE (cuda), AT_ONCE (jobs on the GPU, 6), PYTHON (python3): what else may be set.
set -euo pipefail
parts=$(cd "${1:?a folder of parts}" && pwd)
mkdir -p "${2:?a folder to work in}"
work=$(cd "$2" && pwd)
deadline=$(($(date +%s) + 60 * ${3:?minutes}))
shift 3

for part in "$parts"/*of*.tar; do
  [ -e "$part" ] || break
  [ -e "$work/$(basename "$part").unpacked" ] && continue
  tar -xf "$part" -C "$work"
  touch "$work/$(basename "$part").unpacked"
done
here=$(find "$work" -maxdepth 1 -name '*of*.tar.unpacked' | wc -l)
all=$(find "$work" -maxdepth 1 -name '*of*.tar.unpacked' | sed 's/.*of\([0-9]*\)\.tar.*/\1/' | sort -u)
if [ "$here" != "$all" ]; then
  echo "$here of ${all:-?} parts are here: call again with the others"
  exit 0
fi
[ -d "$work/suite" ] || tar -xf "$work/suite.tar" -C "$work"
cd "$work/suite"
command -v git >/dev/null || { echo "error: git is not here, so no record would name its commit: install it" >&2; exit 1; }
git config --global --get-all safe.directory | grep -qxF "$PWD" || git config --global --add safe.directory "$PWD"
export PYTHONPATH=$PWD
weights=$(find "$work/weights" -type f)
device=${DEVICE:-cuda}
options=(--grid voc --scale year2008 --data-root "$work/data" --weights "$weights" --runs "$work/runs" --tables "$work/tables"
  --cache "$work/cache" --device "$device")
[ "$device" = cpu ] || options+=(--jobs-per-gpu "${AT_ONCE:-6}")

train() { # options of run: in what is left of the time
  local left=$((deadline - $(date +%s))) status=0
  [ "$left" -gt 30 ] || return 0
  "${PYTHON:-python3}" -m benchmark run "${options[@]}" --budget "${left}s" "$@" || status=$?
  [ "$status" = 3 ] || return "$status" # 3: the time is over
}

status=0
paper=(--only method=baseline --only method=icasc-a_ch --only method=icasc-grad_cam)
train "${paper[@]}" --only seed=0 --only seed=1 --only seed=2 "$@" || status=$?
train "$@" || status=$?
train "${paper[@]:2}" --set attention_weight=1.0 "$@" || status=$? # the paper's literal weight
tar -czf "${RECORDS:-$work/records.tar.gz}" --exclude=checkpoint.pt --exclude=model.safetensors -C "$work" runs tables
left=$((deadline - $(date +%s)))
if [ "$device" = cuda ] && [ "$left" -gt 120 ]; then
  timeout --kill-after=10 "$left" "${PYTHON:-python3}" -m benchmark gpu-session "$work/gpu-session" || status=$?
fi
exit "$status"
