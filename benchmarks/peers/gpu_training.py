"""The training step of Convolt beside PyTorch's on one GPU, in one run: forward, backward and update (SGD with momentum, or what recipes.py
says of the network), data at hand.

    python benchmarks/peers/gpu_training.py [--case NAME]... [--rounds 7] [--seconds 420] [--output result.json]

Wants PyTorch in this Python and Convolt's program (CONVOLT names it, else build/cuda/convolt; CONVOLT_LIBRARY_PATH is the
LD_LIBRARY_PATH that it alone gets). Both build the same network, from the description that Convolt exports. PyTorch has several variants (eager, compiled, compiled with graphs; all of them
channels-last, with autocast, fused SGD and cudnn.benchmark), each a process of its own that gets ready once; one that fails
or is not ready in time is left out and named. Then in each round Convolt and every variant run three windows of the same
number of steps, one program after the other, and give the median; the ratio of a round takes PyTorch's fastest variant of
that round. Result: the median of the ratios and its bootstrap 95 % interval, PyTorch's peak memory in steps without
tuning beside what Convolt planned (where that is more than three quarters, also what a step takes within them, by
--memory-budget), and the card's clocks and throttle reasons. The file is written after every round.

--device cpu runs small cases on the CPU, to prove this program where there is no GPU.
"""
import argparse
import json
import os
import selectors
import statistics
import subprocess
import sys
import time

import intervals
from card import Watch
from convolt_program import Failed, bench
from recipes import RECIPES, step_flags
from results import Results
WINDOWS = 3  # of which a round takes the median
MEMORY_PART = 0.75  # of PyTorch's: where a step takes more, what it costs to stay within that by recomputation
VARIANTS = {"eager": None, "compiled": "default", "compiled, graphs": "reduce-overhead"}

# name, network, batch, dtype, steps in a window
CASES = {
    "cuda": [
        ("resnet50-f16-256", "resnet50", 256, "f16", 20),
        ("resnet18-f16-32", "resnet18", 32, "f16", 50),
        ("resnet50-bf16-256", "resnet50", 256, "bf16", 20),
        ("mobilenet_v2-f16-256", "mobilenet_v2", 256, "f16", 20),
        ("convnext_tiny-f16-128", "convnext_tiny", 128, "f16", 20),
        ("airbench94-f16-2000", "airbench94", 2000, "f16", 20),
    ],
    "cpu": [
        ("resnet20-f32-8", "resnet20", 8, "f32", 2),
        ("resnet20-bf16-8", "resnet20", 8, "bf16", 2),
        ("airbench94-f32-4", "airbench94", 4, "f32", 2),
    ],
}


class PeerProcess:
    """A variant of PyTorch in a process that answers each line with one of JSON."""

    def __init__(self, variant, case, device, threads):
        self.variant = variant
        command = [sys.executable, os.path.abspath(__file__), "--serve", variant, "--case", case, "--device", device, "--threads",
                   str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def answer(self, limit):
        """The next line; Failed when there is none in time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            line, end = b"", time.monotonic() + limit
            while not line.endswith(b"\n"):
                if not selector.select(max(0, end - time.monotonic())):
                    raise Failed(f"no answer within {limit:.0f} s")
                piece = self.process.stdout.read(1 << 16)
                if not piece:
                    raise Failed(f"ended with exit code {self.process.wait()}")
                line += piece
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(reply["error"])
        return reply

    def window(self, steps, limit):
        try:
            self.process.stdin.write(f"{steps}\n".encode())
        except BrokenPipeError as e:
            raise Failed("ended") from e
        return self.answer(limit)["ms"]

    def close(self):
        self.process.kill()
        self.process.wait()


def status_bytes(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))


def serve(variant, case, device, threads):
    """The other side: gets ready, says so, and times windows until its input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print
    try:
        import torch
        from convolt_program import network_text
        from training import Training
        torch.set_num_threads(threads)
        _, model, batch, dtype, _ = case
        before = status_bytes("VmRSS")
        training = Training(network_text(model), batch, dtype, device, mode=VARIANTS[variant], recipe=RECIPES.get(model))
        for _ in range(12 if device == "cuda" else 2):
            loss = training.step()
        training.wait()
        if device == "cuda":
            torch.cuda.empty_cache()  # what tuning and compiling took is not the step's, and others need it
            torch.cuda.reset_peak_memory_stats()
            training.window(3)
            memory = torch.cuda.max_memory_allocated()
        else:
            memory = status_bytes("VmHWM") - before
        name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
        cudnn = torch.backends.cudnn.version() if device == "cuda" else None
        print(json.dumps({"memory": memory, "loss": float(loss), "device": name, "pytorch": torch.__version__, "cudnn": cudnn}), file=out)
        for line in sys.stdin:
            print(json.dumps({"ms": statistics.median(training.window(int(line)) for _ in range(WINDOWS))}), file=out)
    except Exception as e:  # the other side writes it down
        print(json.dumps({"error": f"{type(e).__name__}: {e}"[:600]}), file=out)


def convolt_window(case, device, threads, limit, budget=None):
    _, model, batch, dtype, steps = case
    return bench(["step", "--device", device, "--model", model, "-b", batch, "--dtype", dtype, "--steps", steps, "--samples", WINDOWS,
                  "--threads", threads, *step_flags(model), *(["--memory-budget", budget] if budget else [])], limit)


def within(part, memory, case, args, end):
    """What a step takes in `part` of PyTorch's memory, beside one without a budget, which the program times in turn."""
    budget = int(part * memory)
    try:
        rows = convolt_window(case, args.device, args.threads, max(1, end - time.monotonic()), budget)["rows"]
    except Failed as e:
        return {"budget_bytes": budget, "reason": str(e)}
    plain, less = (row["timings"]["step"]["ms_median"] for row in rows)
    return {"budget_bytes": budget, "planned_bytes": rows[1]["memory"], "ms": less, "ms_without": plain, "times_the_step": less / plain}


def get_ready(case, device, threads, variants, limit):
    """(peers that are ready, what each said, why others are not there). They compile side by side."""
    peers = {name: PeerProcess(name, case[0], device, threads) for name in variants}
    said, missing, end = {}, {}, time.monotonic() + limit
    for name, peer in list(peers.items()):
        try:
            said[name] = peer.answer(max(1, end - time.monotonic()))
            print(f"  PyTorch {name}: ready", file=sys.stderr, flush=True)
        except Failed as e:
            missing[name] = str(e)
            peers.pop(name).close()
            print(f"  PyTorch {name}: left out, {e}", file=sys.stderr, flush=True)
    return peers, said, missing


def take_rounds(case, peers, device, threads, rounds, end, note):
    """Fills `note`, round after round, while there is time for one more."""
    ours, theirs = [], {name: [] for name in peers}
    longest = 0
    for _ in range(rounds):
        start = time.monotonic()
        if start + 1.3 * longest > end:
            break
        limit = max(1, end - start)
        record = convolt_window(case, device, threads, limit)
        row = record["rows"][0]
        times = {name: peer.window(case[4], limit) for name, peer in peers.items()}
        ours.append(row["timings"]["step"]["ms_median"])
        for name, ms in times.items():
            theirs[name].append(ms)
        longest = max(longest, time.monotonic() - start)
        note(record, row, ours, theirs)


def summarise(result, record, row, ours, theirs, said):
    # Replayed graphs hold memory that the allocator does not see as used.
    memory = min((s["memory"] for name, s in said.items() if "graphs" not in name), default=float("nan"))
    result.update({
        "device": record["device"], "provider": record["provider"], "rounds": len(ours), "convolt_ms": intervals.summary(ours),
        "pytorch_ms": {name: intervals.summary(times) for name, times in theirs.items()},
        "rounds_ms": {"convolt": list(ours), **{name: list(times) for name, times in theirs.items()}},
        "best_variant": min(theirs, key=lambda name: statistics.median(theirs[name])),
        "speed_ratio": intervals.summary(intervals.ratios(ours, theirs)),
        "images_per_second": result["batch"] / statistics.median(ours) * 1e3,
        "convolt_planned_bytes": row["memory"], "memory_ratio": row["memory"] / memory})
    if "eager" in theirs:
        result["speed_ratio_eager"] = intervals.summary(intervals.ratios(ours, {"eager": theirs["eager"]}))


def measure(case, args, end, save):
    """One case into a dict, that `save` is given after every round."""
    name, model, batch, dtype, steps = case
    result = {"case": name, "model": model, "batch": batch, "dtype": dtype, "steps_in_a_window": steps, "status": "not run"}
    save(result)
    # Convolt alone first: it tunes its kernels once and keeps them.
    peers = {}
    try:
        convolt_window(case, args.device, args.threads, max(1, end - time.monotonic()))
        ready = min(args.ready_seconds, end - time.monotonic())
        peers, said, missing = get_ready(case, args.device, args.threads, args.variant, ready)
        result.update({"pytorch": said, "left_out": missing})
        save(result)
        if not peers:
            raise Failed("no variant of PyTorch ran: " + "; ".join(f"{k}: {v}" for k, v in missing.items()))
        with Watch() as watch:
            take_rounds(case, peers, args.device, args.threads, args.rounds, end,
                        lambda *facts: (summarise(result, *facts, said), save(result)))
        result["card"] = watch.summary
        if result.get("memory_ratio", 0) > MEMORY_PART:
            memory = result["convolt_planned_bytes"] / result["memory_ratio"]
            result["within_three_quarters"] = within(MEMORY_PART, memory, case, args, end)
        if not result.get("rounds"):
            raise Failed("no time was left for a round")
        result["status"] = "ok"
    except Failed as e:
        result.update({"status": "failed", "reason": str(e)})
    finally:
        for peer in peers.values():
            peer.close()
    save(result)
    return result


def line_of(r):
    if r["status"] != "ok":
        return f"{r['case']}: {r['status']}: {r.get('reason', '')}"
    ratio = r["speed_ratio"]
    low, high = ratio.get("interval_95", (ratio["min"], ratio["max"]))
    of = "95 % interval" if "interval_95" in ratio else "range"
    return (f"{r['case']}: {r['convolt_ms']['median']:.2f} ms, {ratio['median']:.2f} times the speed of PyTorch {r['best_variant']} "
            f"({of} {low:.2f} to {high:.2f}, {r['rounds']} rounds), {r['memory_ratio']:.2f} of its memory")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=list(CASES), default="cuda")
    parser.add_argument("--case", action="append", help="of these: " + ", ".join(c[0] for cases in CASES.values() for c in cases))
    parser.add_argument("--variant", action="append", choices=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="compute threads on the CPU")
    parser.add_argument("--seconds", type=float, default=420, help="for all cases together; later ones may go without")
    parser.add_argument("--ready-seconds", type=float, default=150, help="for compiling, of each case")
    parser.add_argument("--output", help="FILE.json, written after every round")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    known = {c[0]: c for c in CASES[args.device]}
    unknown = [name for name in args.case or [] if name not in known]
    if unknown:
        parser.error(f"no case '{unknown[0]}' on {args.device}; there are {', '.join(known)}")
    args.cases = [known[name] for name in args.case or known]
    args.variant = args.variant or list(VARIANTS)
    return args


def main():
    args = arguments()
    if args.serve:
        serve(args.serve, args.cases[0], args.device, args.threads)
        return 0
    end = time.monotonic() + args.seconds
    results = Results(args.output, {"peers": "training", "device": args.device})
    for case in args.cases:
        print(f"{case[0]}:", file=sys.stderr, flush=True)
        print(line_of(measure(case, args, end, results.put)), file=sys.stderr, flush=True)
    return results.finish()


if __name__ == "__main__":
    sys.exit(main())
