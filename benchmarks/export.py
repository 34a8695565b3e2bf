"""Measure sampling by an exported ONNX file and by PyTorch, side by side.

    python benchmarks/export.py --network NET [--threads 1] [--rounds 20]

Each round computes one batch by each of them, in turn, so that other load on the machine reaches
all. Prints the median images per second at batch 1 and 16 as JSON.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch

import stylegan


def sessions(network, folder, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    for name, fp16 in (("onnx", False), ("onnx fp16", True)):
        path = stylegan.export.onnx(network, folder / f"{name}.onnx", fp16=fp16).path
        yield name, onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = stylegan.load(arguments.network)
    rows = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        by_name = dict(sessions(generator, Path(folder), arguments.threads))
        for batch in (1, 16):
            z = torch.randn(batch, generator.z_dim)
            feeds = {"z": z.numpy()}
            if generator.w_avg is not None:
                feeds |= {
                    "psi": torch.tensor(1.0).numpy(),
                    "cutoff": torch.tensor(generator.num_ws).numpy(),
                }
            runs = {"eager": lambda z=z: generator(z)} | {
                name: lambda session=session, feeds=feeds: session.run(None, feeds)
                for name, session in by_name.items()
            }
            times = {name: [] for name in runs}
            for _ in range(arguments.rounds + 2):  # two to warm up
                for name, run in runs.items():
                    start = time.perf_counter()
                    run()
                    times[name].append(time.perf_counter() - start)
            rows[batch] = {
                name: round(batch / statistics.median(taken[2:]), 1)
                for name, taken in times.items()
            }
    load = os.getloadavg()[0]
    print(json.dumps({"threads": arguments.threads, "load": load, "images_per_second": rows}))


if __name__ == "__main__":
    main()
