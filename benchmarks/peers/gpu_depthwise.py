"""Depthwise convolutions, forward and both gradients, of Convolt beside torch.nn.functional.conv2d with groups, on one GPU.

    python benchmarks/peers/gpu_depthwise.py [--rounds 5] [--seconds 200] [--output result.json]

The shapes of MobileNetV2 (3x3) and ConvNeXt-T (7x7). In each round `convolt bench conv` times its candidates for every
shape, of which the chosen ones count, and then PyTorch runs the same shapes, channels-last, with cudnn.benchmark. The ratio
of a round is the geometric mean over a network's shapes; the result their median and its bootstrap 95 % interval.
CONVOLT names the program, else build/cuda/convolt. --device cpu proves this program where there is no GPU.
"""
import argparse
import re
import statistics
import sys
import time

import intervals
from card import Watch
from convolt_program import Failed, bench
from results import Results
from windows import milliseconds

# network, batch, what of its layers' names tells the depthwise ones
NETWORKS = {
    "cuda": [("mobilenet_v2", 128, ("features.1.conv.0.0 ", "conv.1.0 ")), ("convnext_tiny", 128, ("block.0 ",))],
    "cpu": [("mobilenet_v2", 2, ("features.2.conv.1.0 ", "features.4.conv.1.0 ")), ("convnext_tiny", 2, ("features.1.0.block.0 ",))],
}
SIZE = {"cuda": [], "cpu": ["--size", 64]}
SHAPE = re.compile(r"n(\d+) (\d+)x(\d+)x(\d+) -> (\d+), (\d+)x\d+ s(\d+)(?: p(\d+))? g(\d+)$")
PASSES = ("fprop", "dgrad", "wgrad")


def chosen_ms(row):
    """Median of the candidate that plans take."""
    return next(t["ms_median"] for t in row["timings"].values() if t.get("chosen"))


def layers_of(records):
    """shape -> milliseconds of all passes together, for the depthwise layers of `bench conv` records."""
    passes = {}
    for row in (row for record in records for row in record["rows"]):
        match = SHAPE.match(row["shape"])
        if match and match[9] == match[4] == match[5]:
            passes.setdefault(row["shape"], {})[row["name"].split()[-1]] = chosen_ms(row)
    return {shape: sum(ms.values()) for shape, ms in passes.items() if sorted(ms) == sorted(PASSES)}


class Peer:
    """A shape in PyTorch."""

    def __init__(self, shape, dtype, device):
        import torch
        import torch.nn.functional as F
        torch.backends.cudnn.benchmark = True
        n, h, w, c, _, k, stride, padding, groups = (int(v or 0) for v in SHAPE.match(shape).groups())
        kinds = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}

        def tensor(*extents):
            return torch.randn(*extents, device=device).to(kinds[dtype], memory_format=torch.channels_last)

        x, weight = tensor(n, c, h, w).requires_grad_(), tensor(c, 1, k, k).requires_grad_()
        dy = tensor(*F.conv2d(x, weight, None, stride, padding, 1, groups).shape)
        self.step = lambda: torch.autograd.grad(F.conv2d(x, weight, None, stride, padding, 1, groups), (x, weight), dy)
        self.wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def window(self, steps):
        return milliseconds(self.step, self.wait, steps, warm=2)


def convolt_round(network, args, limit):
    model, batch, filters = network
    return layers_of([bench(["conv", "--device", args.device, "--model", model, "-b", batch, "--dtype", args.dtype, "--filter", text,
                             "--samples", 5, "--seconds", 0.05, *SIZE[args.device]], limit) for text in filters])


def summarise(ours, theirs):
    """ours, theirs: shape -> times of the same rounds."""
    by_round = zip(*([b / a for a, b in zip(ours[shape], theirs[shape])] for shape in ours))
    shapes = [{"shape": shape, "convolt_ms": statistics.median(ours[shape]), "pytorch_ms": statistics.median(theirs[shape]),
               "ratio": statistics.median(b / a for a, b in zip(ours[shape], theirs[shape]))} for shape in ours]
    return {"speed_ratio": intervals.summary([intervals.geometric_mean(ratios) for ratios in by_round]),
            "shapes": sorted(shapes, key=lambda s: s["ratio"])}


def measure(network, args, end, save):
    result = {"case": f"{network[0]} depthwise, {args.dtype}, batch {network[1]}", "status": "not run"}
    save(result)
    try:
        ours, theirs = {}, {}
        with Watch() as watch:
            for _ in range(args.rounds):
                if time.monotonic() > end:
                    break
                try:
                    times = convolt_round(network, args, max(1, end - time.monotonic()))
                except Failed:
                    if ours and time.monotonic() >= end:
                        break  # the round that time cut short
                    raise
                peers = {shape: Peer(shape, args.dtype, args.device) for shape in times}
                for shape, ms in times.items():
                    ours.setdefault(shape, []).append(ms)
                    theirs.setdefault(shape, []).append(statistics.median(peers[shape].window(args.steps) for _ in range(3)))
                del peers
                result.update(summarise(ours, theirs))
                save(result)
        if not ours:
            raise Failed("no time was left for a round, or no layer is depthwise")
        result.update({"status": "ok", "card": watch.summary})
    except (Failed, RuntimeError) as e:
        result.update({"status": "failed", "reason": str(e)[:600]})
    save(result)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=list(NETWORKS), default="cuda")
    parser.add_argument("--dtype", choices=["f16", "bf16", "f32"], default="f16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="in a window of PyTorch's")
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--output", help="FILE.json, written after every round")
    args = parser.parse_args()
    end = time.monotonic() + args.seconds
    results = Results(args.output, {"peers": "depthwise", "device": args.device})
    for network in NETWORKS[args.device]:
        r = measure(network, args, end, results.put)
        said = f"{r['speed_ratio']['median']:.2f} times PyTorch's speed" if r["status"] == "ok" else f"{r['status']}: {r.get('reason', '')}"
        print(f"{r['case']}: {said}", file=sys.stderr, flush=True)
    return results.finish()


if __name__ == "__main__":
    sys.exit(main())
