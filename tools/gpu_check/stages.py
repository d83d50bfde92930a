"""The stages, the most telling first. A part is a function of (context, seconds) that returns facts with a status."""
import functools
import json
import os
import shutil

import figures
import programs
import soak
from surroundings import PEERS


class Context:
    """What parts need: the programs, the device, and where to work."""

    def __init__(self, paths, device, environment, logs, gpu):
        self.paths, self.device, self.environment, self.logs, self.gpu = paths, device, environment, logs, gpu
        self.dry = device == "cpu"
        # Processes that share the card in tests; each has a context of half a GiB and more on it.
        self.shards = int(os.environ.get("CONVOLT_GPU_SHARDS") or (1 if self.dry else max(1, min(8, (os.cpu_count() or 1) // 2))))
        self.torch_python = os.environ.get("CONVOLT_TORCH_PYTHON", "python3")
        self.torch_missing = functools.cache(lambda: torch_missing(self))

    def log(self, name):
        return os.path.join(self.logs, name + ".log")

    def convolt(self, name, arguments, limit, look=None):
        # --threads: bits on the CPU depend on their number.
        device = ["--device", self.device] + (["--threads", "1"] if self.dry else []) if arguments[0] != "synth" else []
        return programs.run([self.paths["convolt"], *arguments, *device], self.log(name), limit, environment=self.environment, look=look)

    def fresh_folder(self, name):
        folder = os.path.join(self.logs, name)
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def shapes(self):
        """A data set of `convolt synth`: the bundle's, else made once beside the logs."""
        made = os.path.join(self.logs, "shapes")
        for ready in ([] if self.dry else [os.path.join(os.path.dirname(self.paths["convolt"]), "..", "data", "shapes")]) + [made]:
            if os.path.isdir(ready):
                return ready
        shutil.rmtree(made + ".part", ignore_errors=True)
        outcome = self.convolt("synth", ["synth", made + ".part", "--train-per-class", "10" if self.dry else "300", "-j", "8"], 120)
        if outcome.code != 0:
            raise RuntimeError(f"convolt synth ended with {outcome.code}: {outcome.text[-300:]}")
        os.rename(made + ".part", made)
        return made


def failed(outcome):
    last = (outcome.text.strip().splitlines() or ["it said nothing"])[-1]
    return {"status": "failed", "reason": f"ended with {outcome.code}: {last[:200]}", "tail": outcome.text[-1000:]}


def tests(name, program, pattern, dry_pattern=None, bounded=False, wrapper=None, environment=None):
    """A part that runs tests of a program. bounded: when time is up, what ran counts, so the order is shuffled (sanitizers)."""
    def part(ctx, seconds):
        if ctx.dry and dry_pattern is None:
            return {"status": "not run", "reason": "needs a GPU"}
        command = wrapper() if wrapper else []
        if command is None:
            return {"status": "not run", "reason": "compute-sanitizer was not found"}
        facts = programs.run_tests(ctx.paths[program], dry_pattern if ctx.dry else pattern, ctx.log(name), seconds, None if command else 150, command,
                                   {**ctx.environment, **(environment or {}), **({"GTEST_SHUFFLE": "1", "GTEST_RANDOM_SEED": "1"} if bounded else {})},
                                   ctx.shards)
        text = facts.pop("text", "")
        return sanitizer_facts(facts, text) if command else facts
    return part


def sanitizer_facts(facts, text):
    """With what compute-sanitizer found. A run that time cut short is ok when what ran was clean; a card it refuses is no run."""
    found = [line for line in text.splitlines() if line.startswith("========= ") and "SUMMARY" not in line and
             any(word in line for word in ("Invalid", "Uninitialized", "Race reported", "hazard", "Misaligned"))]
    facts["findings"], facts["first_findings"] = len(found), found[:20]
    if "Device not supported" in text:
        facts.update({"status": "not run", "reason": "compute-sanitizer: device not supported"})
    elif found:
        facts.update({"status": "failed", "reason": f"{len(found)} findings, the first: {found[0][10:120]}"})
    elif facts["status"] == "not run" and facts["passed"]:
        facts.update({"status": "ok", "reason": f"{facts['passed']} of {facts['tests']} tests within the time"})
    return facts


def sanitizer(tool):
    def wrapper():
        program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
        # Calls that fail are the program's to notice, and libraries try some that do.
        calls = ["--report-api-errors", "no"] if tool == "memcheck" else []
        return [program, "--tool", tool, "--error-exitcode", "9", "--print-limit", "20", *calls] if program else None
    return wrapper


def bench(name, arguments, dry_arguments, digest):
    """A part that keeps the record of `convolt bench` and what `digest` makes of it."""
    def part(ctx, seconds):
        record_file = os.path.join(ctx.logs, name.replace(" ", "-") + ".json")
        outcome = ctx.convolt("bench-" + name.replace(" ", "-"), ["bench", *(dry_arguments if ctx.dry else arguments), "--output", record_file], seconds)
        if outcome.code != 0:
            return failed(outcome)
        with open(record_file) as file:
            record = json.load(file)
        return {"status": "ok", **digest(ctx, record), "record": record}
    return part


def kernels_digest(_, record):
    low = figures.below(record)
    rows = len(record["rows"])
    return {"goals": [figures.goal(f"{record['rows'][0]['dtype']} kernels at {figures.KERNEL_GOAL} of a copy, of {rows}", rows - len(low), least=rows)],
            "below": low, "gaps": figures.gaps(record)[:30], "figure": f"{rows - len(low)} of {rows} at {figures.KERNEL_GOAL} of a copy"}


def conv_digest(_, record):
    gaps = figures.gaps(record)
    time, bound = (sum(g[key] * g["count"] for g in gaps) for key in ("ms", "bound_ms"))
    return {"gaps": gaps[:40], "ms": time, "bound_ms": bound, "figure": f"{bound / time:.2f} of the roofline over all convolutions"}


def step_digest(model, batch, dtype):
    def digest(ctx, record):
        row = record["rows"][0]
        step = row["timings"]["step"]
        facts = {"images_per_second": step["images_per_second"], "figure": f"{row['name']} {step['images_per_second']:.0f} pictures/s"}
        device = "h200" if ctx.dry else figures.described_device(ctx.gpu)
        if device is None:
            return facts
        outcome = programs.run([ctx.paths["convolt"], "inspect", "--model", model, "-b", str(batch), "--dtype", dtype, "--training", "--device", device,
                                "--json"], ctx.log("inspect-" + model), 60, environment=ctx.environment)
        if outcome.code == 0:
            plan = json.loads(outcome.text)
            facts.update({"bound_ms": plan["time_bound_ms"], "bound_of": device, "kernels_per_step": plan["kernels_per_step"]})
            if not ctx.dry:
                facts.update({"fraction_of_bound": plan["time_bound_ms"] / step["ms_median"],
                              "figure": f"{facts['figure']}, {plan['time_bound_ms'] / step['ms_median']:.2f} of the plan's bound"})
        return facts
    return digest


def step(model, batch, dtype):
    return bench(f"{model} {dtype} {batch}", ["step", "--model", model, "-b", str(batch), "--dtype", dtype, "--steps", "20"],
                 ["step", "--model", "resnet20", "-b", "4", "--steps", "1", "--samples", "3"], step_digest(model, batch, dtype))


def kernels(dtype):
    return bench("kernels " + dtype, ["kernels", "--dtype", dtype, "--seconds", "0.2"],
                 ["kernels", "--dtype", dtype, "--seconds", "0.01", "--samples", "3", "--tensor-size", "1", "--filter", "bn_"], kernels_digest)


def conv(model, batch, dtype):
    return bench(f"conv {model} {dtype}", ["conv", "--model", model, "-b", str(batch), "--dtype", dtype, "--seconds", "0.05"],
                 ["conv", "--model", "resnet20", "-b", "2", "--seconds", "0.01", "--samples", "3", "--filter", "layer1.0"], conv_digest)


def torch_missing(ctx):
    """Why PyTorch cannot be compared with; None when it can."""
    code = "import torch" if ctx.dry else "import torch; assert torch.cuda.is_available(), 'this PyTorch sees no GPU'"
    outcome = programs.run([ctx.torch_python, "-c", code], ctx.log("torch"), 120)
    return None if outcome.code == 0 else (outcome.text.strip().splitlines() or [f"ended with {outcome.code}"])[-1][:300]


def peers(script, arguments, dry_arguments):
    """A part that runs one of benchmarks/peers; what it had when time was up is kept."""
    def part(ctx, seconds):
        why = ctx.torch_missing()
        if why:
            return {"status": "not run", "reason": "no PyTorch: " + why}
        name = script + "-" + arguments[1] if arguments else script
        result_file = os.path.join(ctx.logs, name + ".json")
        if os.path.exists(result_file):
            os.remove(result_file)
        mine = {"CONVOLT": ctx.paths["convolt"], "CONVOLT_LIBRARY_PATH": ctx.environment.get("LD_LIBRARY_PATH", os.environ.get("LD_LIBRARY_PATH", "")),
                **{k: v for k, v in ctx.environment.items() if k != "LD_LIBRARY_PATH"}}
        command = [ctx.torch_python, os.path.join(PEERS, script + ".py"), "--device", ctx.device, "--seconds", str(max(10, seconds - 20)), "--output",
                   result_file, *(dry_arguments if ctx.dry else arguments)]
        outcome = programs.run(command, ctx.log(name), seconds, environment=mine)
        cases = []
        if os.path.exists(result_file):
            with open(result_file) as file:
                cases = json.load(file)["cases"]
        facts = {"cases": cases, "goals": [] if ctx.dry else figures.peer_goals(cases), "figure": "; ".join(outcome.text.strip().splitlines()[-1:])[:200]}
        return {"status": "ok", **facts} if outcome.code == 0 else {**failed(outcome), **facts}
    return part


def training(dtype):
    def part(ctx, seconds):
        size = ["--model", "resnet20", "--epochs", "1", "-b", "16"] if ctx.dry else [
            "--model", "resnet20", "--epochs", "20", "-b", "64", "--no-augment", "--rotate", "40", "--zoom", "0.6,1.5", "--hflip", "0.5"]
        outcome = ctx.convolt("training-" + dtype, ["train", "--data-path", ctx.shapes(), "--dtype", dtype, "--quiet", "--json", *size], seconds)
        if outcome.code != 0:
            return failed(outcome)
        result = json.loads([line for line in outcome.text.splitlines() if line.startswith("{")][-1])
        good = ctx.dry or result["best_top1"] > 0.5  # of 8 classes
        return {"status": "ok" if good else "failed", **result, "figure": f"top-1 {result['best_top1']:.2f}",
                **({} if good else {"reason": "top-1 is not above 0.5"})}
    return part


UNTIMED = ("ops", "parity", "sanitize")  # right or wrong, at whatever speed
# stage -> (file, seconds at most, {part: (seconds at most, function)}). Seven files in all.
STAGES = {
    "ops": ("ops", 450, {
        "kernels": (180, tests("kernels", "test_kernels", "*cuda*", "Op/PoolTest.*cpu*")),
        "providers": (120, tests("providers", "test_gpu", "*-*Parity*")),
        "conv": (120, tests("conv", "test_conv", "*cuda*", "Depthwise.*")),
        "graph": (180, tests("graph", "test_graph", "*cuda*", "GraphTest.*")),
    }),
    "parity": ("ops", 240, {"whole networks": (220, tests("parity", "test_gpu", "*Parity*"))}),
    "step": ("step", 300, {
        "resnet50 f16": (70, step("resnet50", 256, "f16")),
        "resnet18 f16 batch 32": (40, step("resnet18", 32, "f16")),
        "resnet50 bf16": (70, step("resnet50", 256, "bf16")),
        "mobilenet_v2 f16": (60, step("mobilenet_v2", 256, "f16")),
        "convnext_tiny f16": (60, step("convnext_tiny", 128, "f16")),
        "resnet50 tf32": (70, step("resnet50", 256, "tf32")),
    }),
    "peers": ("peers", 470, {
        "resnet50 f16": (240, peers("gpu_training", ["--case", "resnet50-f16-256"], ["--case", "resnet20-f32-8", "--variant", "eager", "--rounds", "5",
                                                                                  "--threads", "2"])),
        "resnet18 f16 batch 32": (130, peers("gpu_training", ["--case", "resnet18-f16-32"], ["--case", "resnet20-bf16-8", "--variant", "eager",
                                                                                          "--rounds", "2", "--threads", "2"])),
        "depthwise": (100, peers("gpu_depthwise", [], ["--rounds", "1", "--steps", "2", "--dtype", "f32"])),
        "airbench94 f16": (150, peers("gpu_training", ["--case", "airbench94-f16-2000"], ["--case", "airbench94-f32-4", "--variant", "eager",
                                                                                      "--rounds", "1", "--threads", "2"])),
        "resnet50 bf16": (200, peers("gpu_training", ["--case", "resnet50-bf16-256"], ["--case", "resnet20-bf16-8", "--variant", "eager", "--rounds", "1",
                                                                                    "--threads", "2"])),
        "mobilenet_v2 f16": (200, peers("gpu_training", ["--case", "mobilenet_v2-f16-256"], ["--case", "resnet20-f32-8", "--variant", "eager",
                                                                                          "--rounds", "1", "--threads", "2"])),
        "convnext_tiny f16": (200, peers("gpu_training", ["--case", "convnext_tiny-f16-128"], ["--case", "resnet20-f32-8", "--variant", "eager",
                                                                                            "--rounds", "1", "--threads", "2"])),
    }),
    "kernels": ("kernels", 400, {dtype: (140, kernels(dtype)) for dtype in ("f16", "bf16", "f32")}),
    "conv": ("conv", 400, {
        "resnet50 f16": (150, conv("resnet50", 256, "f16")),
        "mobilenet_v2 f16": (120, conv("mobilenet_v2", 256, "f16")),
        "convnext_tiny f16": (120, conv("convnext_tiny", 128, "f16")),
    }),
    "train": ("train", 400, {dtype: (150, training(dtype)) for dtype in ("f16", "f32", "bf16")}),
    "sanitize": ("sanitize", 470, {
        "memcheck, kernels": (130, tests("memcheck-kernels", "test_kernels", "*cuda*", wrapper=sanitizer("memcheck"), bounded=True)),
        "racecheck, kernels": (120, tests("racecheck-kernels", "test_kernels", "*cuda*", wrapper=sanitizer("racecheck"), bounded=True)),
        "memcheck, plans": (100, tests("memcheck-plans", "test_graph", "*cuda*", wrapper=sanitizer("memcheck"), bounded=True, environment={"CONVOLT_SLAB": "separate"})),
        "initcheck, kernels": (100, tests("initcheck-kernels", "test_kernels", "*cuda*", wrapper=sanitizer("initcheck"), bounded=True)),
    }),
    "soak": ("train", 400, {
        "killed and resumed": (150, soak.resumed),
        "flat": (240, lambda ctx, seconds: soak.flat(ctx, min(180, max(10, seconds - 60)) if not ctx.dry else 12)),
    }),
}
