"""The CPU training step of Convolt beside PyTorch's, in one run: forward, backward, SGD with momentum, data at hand.

    python benchmarks/peers/cpu_training.py [--rounds 7] [--threads 2] [--case resnet20-f32] > result.json

Wants PyTorch in this Python and build/cpu/convolt. Both programs build the same network, from the files that Convolt
reads (benchmarks/networks, or inspect --export-json). In each round Convolt and then PyTorch in both memory layouts run
three windows of a few steps and give the median, so that a slow moment of the machine strikes all three; the ratio of a
round takes PyTorch's faster layout. Memory: what Convolt's plan, parameters and
optimizer hold (exactly; nothing is allocated later) against the growth of PyTorch's resident set over its imports, in a
process of its own for each layout.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F
from torch import nn

from convolt_program import ROOT, bench, network_text
from training import Training

CONVOLT = os.environ.get("CONVOLT", os.path.join(ROOT, "build", "cpu", "convolt"))
NETWORKS = os.path.join(ROOT, "benchmarks", "networks")

WINDOWS = 3  # of which a round takes the median

# name, network, batch, dtype, steps in a window
CASES = [
    ("resnet18_cifar-f32", os.path.join(NETWORKS, "resnet18_cifar.json"), 64, "f32", 2),
    ("resnet20-f32", "resnet20", 128, "f32", 5),
    ("mnist_cnn-f32", os.path.join(NETWORKS, "mnist_cnn.json"), 128, "f32", 10),
    ("resnet18_cifar-bf16", os.path.join(NETWORKS, "resnet18_cifar.json"), 64, "bf16", 2),
    ("resnet20-bf16", "resnet20", 128, "bf16", 5),
]


def convolt_window(model, batch, dtype, steps, threads):
    return bench(["step", "--device", "cpu", "--model", model, "-b", batch, "--dtype", dtype, "--steps", steps, "--samples", WINDOWS,
                  "--threads", threads], 1800, CONVOLT)


def peer(model, batch, dtype, channels_last):
    return Training(network_text(model, CONVOLT), batch, dtype, channels_last=channels_last)


def peer_memory(case, channels_last):
    """Bytes by which a training of three steps grows PyTorch's resident set."""
    out = subprocess.run([sys.executable, __file__, "--memory-of", case, *(["--channels-last"] if channels_last else [])],
                         check=True, capture_output=True, text=True)
    return int(out.stdout)


def status_bytes(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))


def print_memory(case, channels_last):
    _, model, batch, dtype, _ = case
    # The libraries' own first allocations are not the network's.
    F.cross_entropy(nn.Conv2d(1, 1, 1)(torch.zeros(1, 1, 1, 1)).flatten(1), torch.zeros(1, dtype=torch.long)).backward()
    before = status_bytes("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak, VmHWM, begins anew
    training = peer(model, batch, dtype, channels_last)
    for _ in range(3):
        training.step()
    print(status_bytes("VmHWM") - before)


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(case, rounds, threads):
    name, model, batch, dtype, steps = case
    layouts = {"channels_last": peer(model, batch, dtype, True), "contiguous": peer(model, batch, dtype, False)}
    ours, theirs, ratios = [], {layout: [] for layout in layouts}, []
    for _ in range(rounds):
        result = convolt_window(model, batch, dtype, steps, threads)
        row = result["rows"][0]
        ours.append(row["timings"]["step"]["ms_median"])
        for layout, training in layouts.items():
            theirs[layout].append(statistics.median(training.window(steps) for _ in range(WINDOWS)))
        ratios.append(min(times[-1] for times in theirs.values()) / ours[-1])
    memory = {layout: peer_memory(name, layout == "channels_last") for layout in layouts}
    return {"case": name, "batch": batch, "rounds": rounds, "steps_in_a_window": steps, "device": result["device"],
            "provider": result["provider"], "convolt_ms": spread(ours),
            "pytorch_ms": {layout: spread(times) for layout, times in theirs.items()}, "speed_ratio": spread(ratios),
            "convolt_planned_bytes": row["memory"], "pytorch_bytes": memory,
            "memory_ratio": row["memory"] / min(memory.values())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", action="append", choices=[c[0] for c in CASES])
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--channels-last", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cases = {c[0]: c for c in CASES}
    if args.memory_of:
        return print_memory(cases[args.memory_of], args.channels_last)
    results = []
    for name in args.case or cases:
        results.append(measure(cases[name], args.rounds, args.threads))
        r = results[-1]
        print(f"{name}: {r['speed_ratio']['median']:.2f} times PyTorch's speed ({r['speed_ratio']['min']:.2f} to "
              f"{r['speed_ratio']['max']:.2f}), {r['memory_ratio']:.2f} of its memory", file=sys.stderr)
    print(json.dumps({"pytorch": torch.__version__, "threads": args.threads, "cases": results}, indent=1))


if __name__ == "__main__":
    main()
