"""The kernels of a training step, from a trace of benchmarks/kernel_trace.cpp: each in its place, the mean of the last steps.

    python benchmarks/kernel_trace.py TRACE.tsv [--steps 8] [--last-kernel REGEX] > step.csv

CSV: kernel, grid, microseconds. A step ends with the last kernel whose name matches --last-kernel, the optimizer's. On stderr: how many
kernels a step has, their time together, and the time between them.
"""
import argparse
import csv
import re
import statistics
import subprocess
import sys


class Odd(Exception):
    """A trace that has no such steps."""


def kernels_of(lines):
    """(begin, end, grid, mangled name) in order."""
    kernels = []
    for number, line in enumerate(lines, 1):
        try:
            begin, end, x, y, name = line.rstrip("\n").split("\t")
            kernels.append((int(begin), int(end), f"{x}x{y}", name))
        except ValueError:
            raise Odd(f"line {number}: expected begin, end, x, y and a name between tabs, found {line[:80]!r}") from None
    return sorted(kernels)


def last_steps(kernels, last_kernel, count):
    """The last `count` whole steps, of as many kernels each."""
    ends = [i for i, k in enumerate(kernels) if re.search(last_kernel, k[3])]
    steps = [kernels[a + 1:b + 1] for a, b in zip(ends, ends[1:])][-count:]
    if len(steps) < count:
        raise Odd(f"{len(steps)} whole steps end with a kernel like {last_kernel!r}, expected {count}: give --steps or --last-kernel")
    names = {tuple(k[3] for k in step) for step in steps}
    if len(names) > 1:
        raise Odd(f"the last {count} steps do not have the same kernels")
    return steps


def demangled(names):
    try:
        return subprocess.run(["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        return names


def short(name):
    """Without what every name has; of the libraries' kernels what tells them apart."""
    name = re.sub(r"convolt::|\(anonymous namespace\)::|^void ", "", name)
    if match := re.search(r"nvjet\w+|cutlass_80\w+", name):
        return "cublasLt " + match[0]
    if "splitK" in name:
        return "cublasLt splitKreduce"
    if "cudnn" not in name and "xmma" not in name:
        return name[:120]
    kinds = (("wgrad", "wgrad"), ("ImplicitGemmConv", "wgrad"), ("ReduceSplitK", "wgrad"), ("dbn", "dgrad sums"), ("dgrad", "dgrad"),
             ("bn_stat", "fprop with sums"), ("bn_apply", "fprop behind a batch norm"), ("fprop", "fprop"))
    tile = re.search(r"Hopper_cta_tile<[^,]*, (\d+), (\d+), (\d+)", name)
    kind = next((kind for part, kind in kinds if part in name), name[:80])
    return "cudnn " + kind + (" tile " + "x".join(tile.groups()) if tile else "")


def summary(steps):
    """Rows of the CSV, and milliseconds of the kernels of a step and between them."""
    names = demangled([k[3] for k in steps[0]])
    rows = [(short(names[i]), k[2], f"{statistics.fmean(step[i][1] - step[i][0] for step in steps) / 1e3:.1f}") for i, k in enumerate(steps[0])]
    busy = statistics.fmean(sum(end - begin for begin, end, *_ in step) for step in steps) / 1e6
    whole = statistics.fmean(step[-1][1] - step[0][0] for step in steps) / 1e6
    return rows, busy, whole - busy


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("trace")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--last-kernel", default="OneQuad")
    args = parser.parse_args()
    try:
        with open(args.trace) as file:
            rows, busy, between = summary(last_steps(kernels_of(file), args.last_kernel, args.steps))
    except (Odd, OSError) as e:
        print(f"kernel_trace: {args.trace}: {getattr(e, 'strerror', None) or e}", file=sys.stderr)
        return 1
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["kernel", "grid", "microseconds"])
    writer.writerows(rows)
    print(f"{len(rows)} kernels, {busy:.2f} ms, {between:.2f} ms between them", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
