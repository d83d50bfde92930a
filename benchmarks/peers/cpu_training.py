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
import tempfile
import time

import torch
import torch.nn.functional as F
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(HERE, "..", "..", "build", "cpu")
NETWORKS = os.path.join(HERE, "..", "networks")

WINDOWS = 3  # of which a round takes the median

# name, network, batch, dtype, steps in a window
CASES = [
    ("resnet18_cifar-f32", os.path.join(NETWORKS, "resnet18_cifar.json"), 64, "f32", 2),
    ("resnet20-f32", "resnet20", 128, "f32", 5),
    ("mnist_cnn-f32", os.path.join(NETWORKS, "mnist_cnn.json"), 128, "f32", 10),
    ("resnet18_cifar-bf16", os.path.join(NETWORKS, "resnet18_cifar.json"), 64, "bf16", 2),
    ("resnet20-bf16", "resnet20", 128, "bf16", 5),
]


class Network(nn.Module):
    """The layers of a network file that the cases use."""

    def __init__(self, text):
        super().__init__()
        self.layers, self.shapes, self.modules_of = text["layers"], {}, nn.ModuleDict()
        size, channels = text["input"]["size"], text["input"]["channels"]
        self.side = size if isinstance(size, int) else size[0]
        self.input_channels = channels
        shape = {"": (channels, self.side)}
        last, counts = "", {}
        for layer in self.layers:
            kind = layer["kind"]
            counts[kind] = counts.get(kind, 0) + 1
            layer.setdefault("name", f"{kind}{counts[kind]}")
            layer.setdefault("inputs", [last])
            c, side = shape[layer["inputs"][0]]
            module = None
            if kind == "conv2d":
                k, s, p = (one(layer.get(key, default)) for key, default in (("kernel", 3), ("stride", 1), ("padding", 0)))
                module = nn.Conv2d(c, layer["channels"], k, s, p, bias=layer.get("bias", False))
                c, side = layer["channels"], (side + 2 * p - k) // s + 1
            elif kind == "batch_norm":
                module = nn.BatchNorm2d(c)
            elif kind == "linear":
                units = text["classes"] if layer["units"] == "classes" else layer["units"]
                module, c = nn.Linear(c, units), units
            elif kind == "max_pool":
                side //= 2
            elif kind == "flatten":
                c, side = c * side * side, 1
            elif kind == "global_avg_pool":
                side = 1
            elif kind == "slice_pad":
                c, side = layer["channels"], -(-side // layer["stride"])
            elif kind not in ("relu", "add"):
                sys.exit(f"a layer of kind {kind} is not known here")
            if module is not None:
                self.modules_of[layer["name"].replace(".", "_")] = module
            shape[layer["name"]] = (c, side)
            last = layer["name"]
        self.output = text.get("output", last)

    def forward(self, x):
        values = {"": x}
        for layer in self.layers:
            a = values[layer["inputs"][0]]
            kind = layer["kind"]
            if layer["name"].replace(".", "_") in self.modules_of:
                y = self.modules_of[layer["name"].replace(".", "_")](a)
            elif kind == "relu":
                y = F.relu(a)
            elif kind == "add":
                y = a + values[layer["inputs"][1]]
            elif kind == "max_pool":
                y = F.max_pool2d(a, layer["kernel"], layer.get("stride", 1))
            elif kind == "flatten":
                y = torch.flatten(a, 1)
            elif kind == "global_avg_pool":
                y = torch.flatten(F.adaptive_avg_pool2d(a, 1), 1)
            elif kind == "slice_pad":
                step, before = layer["stride"], layer.get("channels_before", 0)
                a = a[:, :, ::step, ::step]
                y = F.pad(a, (0, 0, 0, 0, before, layer["channels"] - a.shape[1] - before))
            values[layer["name"]] = y
        return values[self.output]


def one(value):
    return value if isinstance(value, int) else value[0]


def network_text(model):
    if model.endswith(".json"):
        with open(model) as file:
            return json.load(file)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.json")
        subprocess.run([os.path.join(BUILD, "convolt"), "inspect", "--model", model, "--export-json", path], check=True,
                       stdout=subprocess.DEVNULL)
        with open(path) as file:
            return json.load(file)


class Peer:
    def __init__(self, model, batch, dtype, channels_last):
        torch.manual_seed(0)
        network = Network(network_text(model)).train()
        self.x = torch.randn(batch, network.input_channels, network.side, network.side)
        self.y = torch.arange(batch) % 10
        if channels_last:
            network = network.to(memory_format=torch.channels_last)
            self.x = self.x.to(memory_format=torch.channels_last)
        self.network, self.amp = network, dtype == "bf16"
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.amp):
            logits = self.network(self.x)
        F.cross_entropy(logits.float(), self.y).backward()
        self.optimizer.step()

    def window(self, steps):
        self.step()  # warm again after the other program ran
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        return (time.perf_counter() - start) * 1e3 / steps


def convolt_window(model, batch, dtype, steps, threads):
    out = subprocess.run([os.path.join(BUILD, "convolt"), "bench", "step", "--device", "cpu", "--model", model, "-b", str(batch),
                          "--dtype", dtype, "--steps", str(steps), "--samples", str(WINDOWS), "--threads", str(threads), "--json"],
                         check=True, capture_output=True, text=True)
    return json.loads(out.stdout)


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
    peer = Peer(model, batch, dtype, channels_last)
    for _ in range(3):
        peer.step()
    print(status_bytes("VmHWM") - before)


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(case, rounds, threads):
    name, model, batch, dtype, steps = case
    layouts = {"channels_last": Peer(model, batch, dtype, True), "contiguous": Peer(model, batch, dtype, False)}
    ours, theirs, ratios = [], {layout: [] for layout in layouts}, []
    for _ in range(rounds):
        result = convolt_window(model, batch, dtype, steps, threads)
        row = result["rows"][0]
        ours.append(row["timings"]["step"]["ms_median"])
        for layout, peer in layouts.items():
            theirs[layout].append(statistics.median(peer.window(steps) for _ in range(WINDOWS)))
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
