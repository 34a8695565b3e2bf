#!/bin/sh
# Fills every row that needs a GPU: `make bench-gpu`, or `sh benchmarks/gpu.sh PYTHON` with one that
# has torch's CUDA build. Results go to benchmarks/results/. A part that fails is told, and the
# rest goes on.
set -u
python=${1:-.venv/bin/python}
out="benchmarks/results/$(date +%F)-gpu"
failed=0

part() {
    echo "== $*"
    "$python" "$@" || { echo "FAILED: $*"; failed=1; }
}

bench() {  # of config F, whose published times are those of 8 V100 (Karras et al. 2020, table 1)
    name=$1
    shift
    part -m stylegan bench --device cuda --preset stylegan2-f --rounds 3 --out "$out-$name.json" "$@"
}

part -m pytest -q -m "gpu and not slow"
part -m pytest -q tests/ops/test_kernels.py
for precision in bf16 fp16 tf32; do
    bench "f1024-$precision" --resolution 1024 --batch 16 --precision $precision --layers
    bench "f256-$precision" --resolution 256 --batch 64 --channel-base 16384 --precision $precision
done
part benchmarks/ops.py --out "$out-ops.json"
bench f1024-compiled --resolution 1024 --batch 16 --precision bf16 --compile
bench f256-compiled --resolution 256 --batch 64 --channel-base 16384 --precision bf16 --compile
exit $failed
