"""What records of `convolt bench` and of benchmarks/peers come to. Pure functions."""

KERNEL_GOAL = 0.90   # of the copy's bandwidth
MEMORY_GOAL = 0.75   # of PyTorch's peak
SPEED_GOALS = {      # case of benchmarks/peers -> (against what, times its speed)
    "resnet50-f16-256": ("speed_ratio", "the best PyTorch", 1.6),
    "resnet18-f16-32": ("speed_ratio_eager", "eager PyTorch", 4.0),
}
DEPTHWISE_GOAL = 3.0


def bound_ms(row, copy, matmul=None):
    """The least time that bytes and FLOP of a row take: at the copy's bandwidth, at the matrix product's rate."""
    times = [row.get("bytes", 0) / copy["gb_per_second_best"] / 1e6]
    if matmul:
        times.append(row.get("flops", 0) / matmul["gflop_per_second_best"] / 1e6)
    return max(times)


def gaps(record):
    """Each kernel's distance to its bound, the largest first; of convolutions the chosen candidate, times the layers alike."""
    found = []
    for row in record["rows"]:
        timings = row["timings"]
        name, timing = next(((n, t) for n, t in timings.items() if n == "cold" or t.get("chosen")), (None, None))
        if timing is None:
            continue
        bound, count = bound_ms(row, record["copy"], record.get("matmul")), row.get("count", 1)
        found.append({"kernel": row["name"] if name == "cold" else f"{row['name']}: {name}", "dtype": row["dtype"], "shape": row["shape"],
                      "count": count, "ms": timing["ms_median"], "bound_ms": bound, "gap_ms": (timing["ms_median"] - bound) * count,
                      "fraction": timing.get("fraction")})
    return sorted(found, key=lambda g: -g["gap_ms"])


def below(record, goal=KERNEL_GOAL):
    """Kernels whose fraction of the copy's bandwidth, cold, is below the goal: name -> fraction, the lowest first."""
    rows = [(f"{row['name']} {row['dtype']}", row["timings"]["cold"]["fraction"]) for row in record["rows"]]
    return dict(sorted(((name, round(fraction, 3)) for name, fraction in rows if fraction < goal), key=lambda item: item[1]))


def goal(what, value, least=None, most=None, interval=None):
    """least, most: what is asked for; met by the side of the interval that is nearer to missing it."""
    low, high = interval or (value, value)
    return {"goal": what, "value": value, "interval_95": interval, "asked": least if least is not None else most,
            "met": low >= least if least is not None else high <= most}


def ratio_goal(what, ratio, least):
    found = goal(what, ratio["median"], least=least, interval=ratio.get("interval_95"))
    if "interval_95" not in ratio:  # too few rounds prove nothing
        found["met"] = False
    return found


def peer_goals(cases):
    """What results of benchmarks/peers say to the goals; nothing where a case was not measured."""
    found = []
    for case in (c for c in cases if "speed_ratio" in c and c["status"] == "ok"):
        name = case["case"]
        if "depthwise" in name:
            found.append(ratio_goal(f"{name}: speed against PyTorch, forward and backward", case["speed_ratio"], DEPTHWISE_GOAL))
            continue
        if name in SPEED_GOALS and SPEED_GOALS[name][0] in case:
            key, against, least = SPEED_GOALS[name]
            found.append(ratio_goal(f"{name}: speed against {against}", case[key], least))
        found.append(goal(f"{name}: peak memory against PyTorch", case["memory_ratio"], most=MEMORY_GOAL))
    return found


def described_device(gpu):
    """The name under which `inspect --device` plans for a card, or None."""
    return next((name for name in ("h200", "h100", "a100") if name in gpu.lower()), None)


def goal_line(g):
    interval = " ({:.3g} to {:.3g})".format(*g["interval_95"]) if g.get("interval_95") else ""
    return f"{'met   ' if g['met'] else 'MISSED'} {g['goal']}: {g['value']:.3g}{interval}, asked {g['asked']}"
