#!/bin/sh
# Fills every row that needs a GPU: `make bench-gpu`. Results go to benchmarks/results/.
set -eu
run=.venv/bin
out="benchmarks/results/$(date +%F)-gpu"
"$run/pytest" -q -m gpu
"$run/pytest" -q tests/ops/test_kernels.py
"$run/python" benchmarks/ops.py --out "$out-ops.json"
# published: config E 61 images/s on 8 V100, config F 31 (Karras et al. 2020, table 1)
for precision in fp16 bf16 tf32; do
    "$run/stylegan" bench --device cuda --preset stylegan2-f --resolution 1024 --batch 16 \
        --layers --precision "$precision" --out "$out-f1024-$precision.json"
    "$run/stylegan" bench --device cuda --preset stylegan2-f --resolution 256 --batch 64 \
        --channel-base 16384 --precision "$precision" --out "$out-f256-$precision.json"
done
"$run/stylegan" bench --device cuda --preset stylegan2-f --resolution 1024 --batch 16 \
    --precision fp16 --compile --out "$out-f1024-compiled.json"
"$run/stylegan" bench --device cuda --preset stylegan2-f --resolution 256 --batch 64 \
    --channel-base 16384 --precision fp16 --compile --out "$out-f256-compiled.json"
