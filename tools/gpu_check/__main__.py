"""See tools/gpu_check.sh."""
import os
import re
import signal
import sys
import time

import surroundings
sys.path.insert(0, surroundings.PEERS)  # card.py

import record  # noqa: E402
from card import Watch  # noqa: E402
from figures import goal_line  # noqa: E402
from programs import CUT, at_once  # noqa: E402
from stages import STAGES, UNTIMED, Context  # noqa: E402

USAGE = f"""usage: tools/gpu_check.sh [--again] [RESULTS_DIR] [STAGE...]
stages, in this order: {' '.join(STAGES)}"""


def choose(arguments, environment):
    """(results folder, stages, again), or a text that says what is wrong."""
    again = "--again" in arguments
    names = [a for a in arguments if a != "--again"]
    unknown = [a for a in names if a.startswith("-")]
    results = names.pop(0) if names and not unknown and names[0] not in STAGES else None
    names = names or environment.get("CONVOLT_GPU_STAGES", "").split()
    unknown += [name for name in names if name not in STAGES and name not in unknown]
    if unknown:
        return f"'{unknown[0]}' is no stage or option"
    return results, [name for name in STAGES if not names or name in names], again


def run_part(ctx, function, seconds):
    start = time.monotonic()
    try:
        with Watch() as watch:
            facts = function(ctx, seconds)
    except KeyboardInterrupt:
        raise
    except Exception as e:  # a part that breaks must not hide the others
        return {"status": "failed", "reason": repr(e)[:500], "seconds": round(time.monotonic() - start, 1)}
    if CUT.is_set():
        return {"status": record.NOT_RUN, "reason": "cut off"}
    return {**facts, "seconds": round(time.monotonic() - start, 1), **({"card": watch.summary} if watch.rows and "card" not in facts else {})}


def run_stage(ctx, results, name, end):
    """Runs what is not kept of an earlier run, within the stage's time and that of all stages."""
    file, limit, parts = STAGES[name]
    stage = results.begin(file, name, parts)
    stage_end = min(end, time.monotonic() + limit)
    for part, (most, function) in parts.items():
        if stage["parts"][part]["status"] == "ok":
            continue
        seconds = min(most, stage_end - time.monotonic())
        if seconds < min(10, most):
            stage["parts"][part] = {"status": record.NOT_RUN, "reason": "no time was left"}
            continue
        stage["parts"][part] = {"status": record.NOT_RUN, "reason": "cut off"}  # stays when this program is killed
        results.put(file, name, stage)
        stage["parts"][part] = run_part(ctx, function, seconds)
        stage["figure"] = figure_of(stage["parts"])
        results.put(file, name, stage)
        print(f"  {name}, {part}: {line_of(stage['parts'][part])}", flush=True)
    stage["figure"] = figure_of(stage["parts"])
    results.put(file, name, stage)
    return stage


def run_untimed(ctx, results, names, end):
    """At once where the processor has enough cores for it: what is right or wrong needs no quiet card."""
    if ctx.shards < 4:
        return {name: run_stage(ctx, results, name, end) for name in names}
    return dict(zip(names, at_once([lambda name=name: run_stage(ctx, results, name, end) for name in names]))) if names else {}


def line_of(part):
    text = part.get("reason") if part["status"] != "ok" else part.get("figure") or (f"{part['passed']} tests" if "passed" in part else "")
    return f"{part['status']}, {part.get('seconds', 0):.0f} s{', ' + text if text else ''}"


def figure_of(parts):
    """The one that tells most: why it is not ok, else the first part's figure, else how many tests passed."""
    bad = next((p for status in ("failed", record.NOT_RUN) for p in parts.values() if p["status"] == status), None)
    if bad:
        return f"{sum(p['status'] == 'ok' for p in parts.values())} of {len(parts)} parts ok; {bad.get('reason', '')}"[:150]
    passed = sum(p.get("passed", 0) for p in parts.values())
    return next((p["figure"] for p in parts.values() if p.get("figure")), f"{passed} tests passed" if passed else f"{len(parts)} parts ok")


def table(stages):
    rows = [("stage", "", "seconds", "")] + [(name, s["status"], f"{s['seconds']:.0f}", s["figure"]) for name, s in stages.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(f"{n:{widths[0]}}  {s:{widths[1]}}  {t:>{widths[2]}}  {f}".rstrip() for n, s, t, f in rows)


def run(choice, dry):
    results_folder, chosen, again = choice
    if dry and not results_folder:
        print("gpu_check: a dry run needs a RESULTS_DIR of its own: its results are none", file=sys.stderr)
        return 2
    results_folder = os.path.abspath(results_folder or os.path.join(surroundings.ROOT, "benchmarks", "results"))
    paths, bundle = surroundings.programs_of(dry)
    gpu = "cpu dry run" if dry else surroundings.gpu_name()
    commit = surroundings.commit_of(bundle)
    logs = os.path.join(surroundings.ROOT, "build", "gpu", "logs")
    if dry:
        logs = os.path.join(results_folder, "logs")
    logs = os.environ.get("CONVOLT_GPU_LOGS", logs)  # two runs at once need two
    os.makedirs(logs, exist_ok=True)
    folder = record.folder_for(results_folder, re.sub(r"[^A-Za-z0-9]+", "-", gpu).strip("-"), commit)
    head = {"gpu": gpu, "commit": commit, "machine": surroundings.machine()}
    results = record.Record(folder, head, again or commit == "unknown" or commit.endswith("-changed"))
    environment = surroundings.environment_of(bundle, dry)
    if not dry:  # the `providers` of `ops` keep there what cuDNN says of the card
        environment["CONVOLT_DEVICE_DESCRIPTION"] = os.path.join(folder, "device.json")
    ctx = Context(paths, "cpu" if dry else "cuda", environment, logs, gpu)
    end = time.monotonic() + float(os.environ.get("CONVOLT_GPU_SECONDS", "inf"))
    print(f"gpu_check: {gpu}, {commit}, results in {folder}", flush=True)
    done, code = {}, 0
    try:
        done.update(run_untimed(ctx, results, [name for name in chosen if name in UNTIMED], end))
        for name in chosen:
            if name not in done:
                done[name] = run_stage(ctx, results, name, end)
    except KeyboardInterrupt:
        print("gpu_check: cut off; a second run goes on where this one was", file=sys.stderr)
        code = 1
    print("\n" + table(done))
    goals = [g for stage in done.values() for part in stage["parts"].values() for g in part.get("goals", [])]
    if goals and not dry:
        print("\n" + "\n".join(map(goal_line, goals)))
    return code or int(any(stage["status"] != "ok" for stage in done.values()))


def main():
    def cut_off(*_):
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, cut_off)
    if "--help" in sys.argv or "-h" in sys.argv:
        print(USAGE)
        return 0
    device = os.environ.get("CONVOLT_GPU_CHECK_DEVICE", "cuda")
    choice = choose(sys.argv[1:], os.environ)
    if isinstance(choice, str) or device not in ("cpu", "cuda"):
        print(f"gpu_check: {choice if isinstance(choice, str) else 'CONVOLT_GPU_CHECK_DEVICE is cuda or cpu'}\n{USAGE}", file=sys.stderr)
        return 2
    try:
        return run(choice, device == "cpu")
    except surroundings.Missing as e:
        print(f"gpu_check: {e}", file=sys.stderr)
        return e.code


if __name__ == "__main__":
    sys.exit(main())
