#!/usr/bin/env python3
"""The stages of tools/gpu_check.sh, which sets up the surroundings and calls this: gpu_check.py BIN GPU COMMIT."""
import json
import os
import re
import subprocess
import sys
import tempfile
import time

bin_folder, gpu, commit = sys.argv[1:4]
out_file, logs = os.environ["GPU_CHECK_FILE"], os.environ["GPU_CHECK_LOGS"]
wanted = os.environ.get("CONVOLT_GPU_STAGES", "").split()
smi = "name,driver_version,clocks.sm,clocks.max.sm,power.draw,memory.total,clocks_throttle_reasons.active"
result = {"gpu": gpu, "commit": commit, "date": time.strftime("%F %T"), "stages": {}}
failed = False


def shell(command):
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout.strip()


def save():
    temporary = out_file + ".tmp"
    with open(temporary, "w") as f:
        json.dump(result, f, indent=1)
    os.replace(temporary, out_file)


def run(name, command, limit):
    """Runs a command with a time limit; returns (exit code or 'timeout', stdout). Everything goes to a log."""
    log = os.path.join(logs, name + ".log")
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit, text=True, errors="replace")
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired as e:
        code, text = "timeout", (e.stdout or b"").decode(errors="replace") if isinstance(e.stdout, bytes) else e.stdout or ""
    with open(log, "w") as f:
        f.write(text)
    return code, text


def stage(name):
    """Decorates a function that returns (ok, facts)."""
    def decorate(function):
        global failed
        if wanted and name not in wanted:
            return function
        start = time.time()
        try:
            ok, facts = function()
        except Exception as e:  # a stage that breaks must not hide the others
            ok, facts = False, {"error": repr(e)}
        result["stages"][name] = {"ok": ok, "seconds": round(time.time() - start, 1), **facts}
        save()
        failed = failed or not ok
        print(f"{'ok    ' if ok else 'FAILED'} {name:14} {time.time() - start:7.1f} s  {json.dumps(facts)[:300]}", flush=True)
        return function
    return decorate


def tests(name, program, pattern, limit, wrapper=()):
    code, text = run(name, [*wrapper, os.path.join(bin_folder, program), f"--gtest_filter={pattern}"], limit)
    count = lambda what: int((re.findall(rf"\[  {what}  \] (\d+) tests?", text) or ["0"])[0])
    facts = {"exit": code, "passed": count("PASSED"), "failed": count("FAILED"), "skipped": int((re.findall(r"\[  SKIPPED \] (\d+) tests?", text) or ["0"])[0])}
    if code != 0:
        facts["failures"] = sorted(set(re.findall(r"\[  FAILED  \] (\S+)", text)))[:40]
        facts["tail"] = text[-1500:]
    return code == 0 and facts["passed"] > 0, facts


@stage("machine")
def _():
    return True, {"smi": shell(f"nvidia-smi --query-gpu={smi} --format=csv,noheader"), "cpu": shell("nproc")}


@stage("kernels")
def _():
    return tests("kernels", "test_kernels", "*cuda*", 240)


@stage("providers")
def _():
    return tests("providers", "test_gpu", "*-*Parity*", 240)


@stage("conv")
def _():
    return tests("conv", "test_conv", "*cuda*", 240)


@stage("graph")
def _():
    return tests("graph", "test_graph", "*cuda*", 240)


@stage("parity")
def _():
    return tests("parity", "test_gpu", "*Parity*", 240)


def last_object(text):
    return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


for dtype in ("f16", "bf16", "tf32"):
    @stage("resnet50_" + dtype)
    def _():
        record = os.path.join(logs, "resnet50_" + dtype + ".json")
        code, text = run("resnet50_" + dtype, [os.path.join(bin_folder, "convolt"), "bench", "step", "--device", "cuda", "--model", "resnet50", "-b",
                                               "256", "--dtype", dtype, "--steps", "20", "--output", record], 120)
        return code == 0, json.load(open(record)) if code == 0 else {"exit": code, "tail": text[-800:]}


for dtype in ("f32", "f16", "bf16"):
    @stage("bench_kernels_" + dtype)
    def _():
        record = out_file.removesuffix(".json") + "-kernels-" + dtype + ".json"
        code, text = run("bench_kernels_" + dtype, [os.path.join(bin_folder, "convolt"), "bench", "kernels", "--device", "cuda", "--dtype", dtype,
                                                    "--output", record], 240)
        if code != 0:
            return False, {"exit": code, "tail": text[-800:]}
        kernels = json.load(open(record))
        slow = {row["name"]: round(row["timings"]["cold"]["fraction"], 2) for row in kernels["rows"] if row["timings"]["cold"]["fraction"] < 0.9}
        return True, {"copy": kernels["copy"], "below_0.9_of_it": slow}


@stage("training")
def _():
    program = os.path.join(bin_folder, "convolt")
    with tempfile.TemporaryDirectory() as folder:
        code, text = run("synth", [program, "synth", folder + "/shapes", "--train-per-class", "300", "-j", "8"], 60)
        if code != 0:
            return False, {"tail": text[-500:]}
        facts = {}
        for dtype in ("f32", "bf16"):
            code, text = run("training_" + dtype, [program, "train", "--device", "cuda", "--data-path", folder + "/shapes", "--model", "resnet20", "--epochs",
                                                   "20", "-b", "64", "--no-augment", "--rotate", "40", "--zoom", "0.6,1.5", "--hflip", "0.5", "--dtype",
                                                   dtype, "--quiet", "--json"], 180)
            if code != 0:
                return False, {"exit": code, "tail": text[-800:]}
            facts[dtype] = last_object(text)
        return all(f["best_top1"] > 0.5 for f in facts.values()), facts


sanitizer = shell("command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null")
if sanitizer:
    for tool in ("memcheck", "racecheck"):
        @stage(tool)
        def _():
            return tests(tool, "test_kernels", "*cuda*", 420, (sanitizer, "--tool", tool, "--error-exitcode", "9"))
else:
    result["stages"]["memcheck"] = {"ok": None, "note": "compute-sanitizer was not found"}

save()
print(out_file)
sys.exit(1 if failed else 0)
