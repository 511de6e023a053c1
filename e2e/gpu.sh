#!/usr/bin/env bash
# All that wants a real GPU, one thing after the other: what is wrong ends it at last, and what follows is done all the same.
#
#   gpu.sh              builds what it needs, and runs it
#   gpu.sh pack FILE    builds, and packs what runs into FILE (tar.xz), for a machine without a compiler: unpacked there, its gpu.sh runs it
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

say() { printf '\n== %s\n' "$*"; }

# build FOLDER: the binary, and the tests and the benchmark that know GPUs.
build() (
    cd "$here/.."
    mkdir -p "$1" || return
    cargo build --release --locked --workspace --bins --test tidy || return
    cp "${CARGO_TARGET_DIR:-target}/release/clawbernetes" "$1/" || return
    local listed
    listed=$(cargo test --release --no-run --locked --workspace --test gpus --test exact --bench tensors --message-format=json-render-diagnostics) || return
    printf '%s\n' "$listed" | python3 -c '
import json, shutil, sys
wanted = {("gpus", "test"): "gpus", ("exact", "test"): "exact", ("tensors", "bench"): "tensors"}
for line in sys.stdin:
    said = json.loads(line)
    if said.get("reason") != "compiler-artifact" or not said.get("executable"):
        continue
    name = wanted.pop((said["target"]["name"], said["target"]["kind"][0]), None)
    if name:
        shutil.copy(said["executable"], sys.argv[1] + "/" + name)
sys.exit(f"not built: {list(wanted)}" if wanted else 0)
' "$1" || return
    cp "$here/gpu.sh" "$1/"
)

failed=()
part() {
    say "$1"
    shift
    local start=$SECONDS
    "$@" || failed+=("$*")
    echo "($((SECONDS - start)) s)"
}

run() {
    export CLAWBERNETES_BIN=$1/clawbernetes
    nvidia-smi -L || echo "gpu: nvidia-smi lists no GPU here: what follows is of the processors, or skipped" >&2
    part "the inventory" "$1/clawbernetes" gpu ls
    part "the same by nvidia-smi; a pod and a kernel job on a GPU" "$1/gpus" real:: --nocapture
    part "every kernel against float64" "$1/exact"
    part "qualification, in full" bash -c 'time "$1" gpu check --full' - "$1/clawbernetes"
    part "figures, for docs/benchmarks.md" "$1/tensors"
    [ ${#failed[@]} = 0 ] && return
    say "failed:"
    printf '   %s\n' "${failed[@]}"
    return 1
}

if [ "${1:-}" = pack ]; then
    scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT
    build "$scratch/gpu" && strip "$scratch"/gpu/{clawbernetes,gpus,exact,tensors} && tar -C "$scratch" -cJf "$2" gpu && ls -l "$2"
elif [ -x "$here/tensors" ]; then
    run "$here"
else
    scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT
    build "$scratch" && run "$scratch"
fi
