#!/usr/bin/env bash
# Archive files side by side: diptych, tar and zstd on one tree, in turn, medians of several rounds.
#
#   bench/compare.sh [TREE]      default: DIPTYCH_BENCH_TREE, or else /usr
#
# ROUNDS     rounds after one that warms the cache (default 5)
# BENCH_TMP  where archives and copies go, best a tmpfs (default /dev/shm/diptych-bench)
# DIPTYCH    the command to measure (default: the release build of this workspace, made if need be)
#
# Prints a Markdown table: median seconds, the ratio to the first line of the same group, the peak memory of one
# process (with GNU time), and sizes. Compare ratios of one run, on a machine that does nothing else.
set -euo pipefail

here="$(cd "$(dirname "$0")/.." && pwd)"
tree="$(realpath "${1:-${DIPTYCH_BENCH_TREE:-/usr}}")"
rounds="${ROUNDS:-5}"
tmp="${BENCH_TMP:-/dev/shm/diptych-bench}"

need() {
  command -v "$1" >/dev/null || { echo "$1 is missing: apt-get install $2" >&2; exit 1; }
}
need tar tar
need zstd zstd
need python3 python3
[ -d "$tree" ] || { echo "$tree is not a directory" >&2; exit 1; }

if [ -z "${DIPTYCH:-}" ]; then
  (cd "$here" && cargo build --release --locked --package diptych-client >&2)
  DIPTYCH="${CARGO_TARGET_DIR:-$here/target}/release/diptych"
fi

# A folder of this run's own: what else is in BENCH_TMP is not touched.
mkdir -p "$tmp"
work="$(mktemp -d "$tmp/run.XXXXXX")"
trap 'rm -rf "$work"' EXIT
results="$work/results"
: >"$results"

timer=()
if [ -x /usr/bin/time ]; then
  timer=(/usr/bin/time -f '%M' -o "$work/peak")
else
  echo "no peak memory without GNU time: apt-get install time" >&2
fi

# One measured command: group, name, shell code. The code finds TREE, WORK and DIPTYCH in its environment.
measure() {
  local group="$1" name="$2" code="$3" begin end peak="-"
  rm -f "$work/peak"
  begin="$(date +%s%N)"
  if ! TREE="$tree" WORK="$work" DIPTYCH="$DIPTYCH" "${timer[@]}" bash -o pipefail -c "$code" >"$work/out" 2>"$work/err"; then
    echo "failed: $name" >&2
    tail -5 "$work/err" >&2
    exit 1
  fi
  end="$(date +%s%N)"
  [ ! -f "$work/peak" ] || peak="$(tail -1 "$work/peak")"
  [ "$round" = 0 ] || printf '%s\t%s\t%s\t%s\n' "$group" "$name" "$(((end - begin) / 1000))" "$peak" >>"$results"
}

# What is made anew each time, outside of what is measured.
clear() {
  rm -rf "${work:?}/$1" "$work/$1.meta.dpt" "$work/$1.data.dpt"
}

copy() {
  clear copy
  mkdir "$work/copy"
}

# Files of /usr and the like may be unreadable for who runs this: both sides then leave the same out, tar with 1 or
# 2, diptych with 3. Anything else is a failure.
tar_may_miss='rc=$?; [ $rc -le 2 ] || exit $rc'
diptych_may_miss='rc=$?; [ $rc = 0 ] || [ $rc = 3 ] || exit $rc'
tar_all="tar --xattrs --xattrs-include='*' --acls --numeric-owner"

for round in $(seq 0 "$rounds"); do
  echo "round $round of $rounds" >&2
  clear a.tar.zst
  measure create "tar c \\| zstd -1 -T2" \
    "{ $tar_all -C \"\$TREE\" -cf - . || { $tar_may_miss; }; } | zstd -1 -T2 -q -o \"\$WORK/a.tar.zst\""
  clear packed
  measure create "diptych create" "\"\$DIPTYCH\" create -q --no-ignore-files \"\$WORK/packed\" \"\$TREE\" || { $diptych_may_miss; }"
  clear a.tar
  measure "create, not compressed" "tar cf" "$tar_all -C \"\$TREE\" -cf \"\$WORK/a.tar\" . || { $tar_may_miss; }"
  clear plain
  measure "create, not compressed" "diptych create --compression none" \
    "\"\$DIPTYCH\" create -q --no-ignore-files --compression none \"\$WORK/plain\" \"\$TREE\" || { $diptych_may_miss; }"

  copy
  measure extract "zstd -dc \\| tar x" "zstd -dcq \"\$WORK/a.tar.zst\" | $tar_all -C \"\$WORK/copy\" -xpf -"
  copy
  measure extract "diptych extract" "\"\$DIPTYCH\" extract -q \"\$WORK/packed\" \"\$WORK/copy\""
  copy
  measure "extract, not compressed" "tar xf" "$tar_all -C \"\$WORK/copy\" -xpf \"\$WORK/a.tar\""
  copy
  measure "extract, not compressed" "diptych extract" "\"\$DIPTYCH\" extract -q \"\$WORK/plain\" \"\$WORK/copy\""
  clear copy

  measure list "tar tv" "tar -tvf \"\$WORK/a.tar.zst\""
  measure list "diptych list --long" "\"\$DIPTYCH\" list --long \"\$WORK/packed\""
done

python3 - "$results" "$work" "$tree" <<'PYTHON'
import collections, os, platform, statistics, sys

results, work, tree = sys.argv[1:]
runs = collections.OrderedDict()
for line in open(results):
    group, name, microseconds, peak = line.rstrip("\n").split("\t")
    runs.setdefault((group, name), []).append((int(microseconds) / 1e6, peak))

size = lambda *names: sum(os.path.getsize(os.path.join(work, name)) for name in names) / 1e6
entries = contents = 0
for folder, folders, files in os.walk(tree, onerror=lambda error: None):
    entries += len(folders) + len(files)
    for name in files:
        try:
            contents += os.lstat(os.path.join(folder, name)).st_size
        except OSError:
            pass
load = " ".join(f"{value:.1f}" for value in os.getloadavg())
print(f"{tree}: {entries:,} entries, {contents / 1e6:,.0f} MB; {os.cpu_count()} processors, {platform.machine()}, load {load}.")
print()
print("| | command | median s | least s | ratio | peak MiB |")
print("| --- | --- | --- | --- | --- | --- |")
first = {}
for (group, name), taken in runs.items():
    seconds = [taken_seconds for taken_seconds, _ in taken]
    median = statistics.median(seconds)
    label = "" if group in first else group
    first.setdefault(group, median)
    peaks = [int(peak) / 1024 for _, peak in taken if peak != "-"]
    peak = f"{max(peaks):.0f}" if peaks else "-"
    print(f"| {label} | {name} | {median:.2f} | {min(seconds):.2f} | {median / first[group]:.2f} | {peak} |")
print()
print("| archive | MB |")
print("| --- | --- |")
print(f"| tar, zstd -1 | {size('a.tar.zst'):,.1f} |")
print(f"| diptych | {size('packed.meta.dpt', 'packed.data.dpt'):,.1f}, metadata {size('packed.meta.dpt'):,.1f} |")
print(f"| tar | {size('a.tar'):,.1f} |")
print(f"| diptych, not compressed | {size('plain.meta.dpt', 'plain.data.dpt'):,.1f} |")
PYTHON
