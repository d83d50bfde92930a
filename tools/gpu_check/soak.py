"""Trainings that go on for minutes and one that is killed and resumed."""
import json
import math
import os
import shutil
import signal
import statistics
import time

from card import Watch


def losses_of(path):
    """All losses of a metrics.jsonl, in order; a half-written last line is left out."""
    found = []
    if os.path.exists(path):
        with open(path) as file:
            for line in file:
                try:
                    values = json.loads(line)
                except ValueError:
                    continue
                found += [values[key] for key in ("loss", "train_loss", "val_loss") if key in values]
    return found


def growth(samples):
    """Of the used memory: the median of the last quarter over that of the second, when everything is there; None for too few."""
    quarter = len(samples) // 4
    if quarter < 2:
        return None
    return statistics.median(samples[-quarter:]) - statistics.median(samples[quarter:2 * quarter])


def resident_mib(process):
    try:
        with open(f"/proc/{process.pid}/status") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS:"))
    except (OSError, StopIteration):
        return None


def verdict(facts, checks):
    """The facts with a status; checks: name -> whether it holds."""
    wrong = [name for name, holds in checks.items() if not holds]
    return {**facts, "status": "failed" if wrong else "ok", **({"reason": "not so: " + "; ".join(wrong)} if wrong else {})}


def flat(ctx, seconds):
    """Trains for so long and then asks the program to save and go. Memory must not grow and every loss be finite."""
    folder = ctx.fresh_folder("soak")
    resident, asked = [], []
    stop_at, start = time.monotonic() + seconds, time.monotonic()

    def look(process):
        if time.monotonic() - start > len(resident) * 0.5:
            resident.append(resident_mib(process))
        if time.monotonic() > stop_at and not asked:
            asked.append(process.send_signal(signal.SIGTERM))

    flags = ["--model", "resnet20", "-b", "16", "--no-augment"] if ctx.dry else ["--model", "resnet18", "--train-crop-size", "128", "-b", "128",
                                                                               "--dtype", "f16"]
    with Watch() as watch:
        outcome = ctx.convolt("soak", ["train", "--data-path", ctx.shapes(), "--output-dir", folder, "--epochs", "100000", "--log-every", "5",
                                       "--lr", "0.02", "--quiet", "--json", *flags], seconds + 60, look=look)
    losses, used = losses_of(os.path.join(folder, "metrics.jsonl")), [row[4] for row in watch.rows if row[4] is not None]
    resident = [r for r in resident if r is not None]
    facts = {"exit": outcome.code, "losses": len(losses), "first_loss": losses[0] if losses else None, "last_loss": losses[-1] if losses else None,
             "card": watch.summary, "device_growth_mib": growth(used), "host_growth_mib": growth(resident), "tail": outcome.text[-400:]}
    # The device's memory is planned: nothing is allocated after the first step. The host's allocator may breathe.
    checks = {"ended as asked, exit code 75": outcome.code == 75, "every loss is finite": bool(losses) and all(map(math.isfinite, losses)),
              "no step was broken off as not finite": not [name for name in os.listdir(folder) if name.startswith("non_finite")],
              "the host's memory is flat": facts["host_growth_mib"] is not None and facts["host_growth_mib"] < 64}
    if not ctx.dry:
        checks["the device's memory is flat"] = facts["device_growth_mib"] is not None and facts["device_growth_mib"] < 8
    shutil.rmtree(folder, ignore_errors=True)
    return verdict(facts, checks)


def differing(folder, other, names=("last.safetensors", "best.safetensors", "metrics.jsonl", "metrics.csv")):
    """Which files of two trainings are not the same bytes."""
    def content(where, name):
        try:
            with open(os.path.join(where, name), "rb") as file:
                return file.read()
        except OSError:
            return None
    return [name for name in names if content(folder, name) is None or content(folder, name) != content(other, name)]


def resumed(ctx, limit):
    """A deterministic training, and the same one killed with SIGKILL after its first checkpoint and resumed: the same bytes."""
    end = time.monotonic() + limit
    whole, killed = ctx.fresh_folder("whole"), ctx.fresh_folder("killed")
    size = ["--model", "resnet20", "-b", "16", "--epochs", "3"] if ctx.dry else ["--model", "resnet18", "--train-crop-size", "128", "-b", "64",
                                                                              "--epochs", "12", "--dtype", "f16"]
    flags = ["train", "--data-path", ctx.shapes(), "--deterministic", "--checkpoint-every", "3" if ctx.dry else "10", "--log-every", "2", "--lr", "0.02", "--quiet",
             *size]
    last = os.path.join(killed, "last.safetensors")
    seen = []

    def look(process):
        if os.path.exists(last):
            seen.append(time.monotonic())
            if time.monotonic() - seen[0] > 0.3:
                process.kill()

    first = ctx.convolt("soak-whole", [*flags, "--output-dir", whole], end - time.monotonic())
    second = ctx.convolt("soak-killed", [*flags, "--output-dir", killed], end - time.monotonic(), look=look)
    lines = len(losses_of(os.path.join(killed, "metrics.jsonl")))
    third = ctx.convolt("soak-resumed", [*flags, "--output-dir", killed, "--resume", "auto"], end - time.monotonic())
    different = differing(whole, killed)
    facts = {"exits": [first.code, second.code, third.code], "losses_before_the_kill": lines, "differing": different,
             "losses": len(losses_of(os.path.join(whole, "metrics.jsonl")))}
    checks = {"the whole training ended with 0": first.code == 0, "the other was killed before its end": second.code == -signal.SIGKILL,
              "it was resumed and ended with 0": third.code == 0, "all files are the same bytes": not different}
    if third.code != 0 or first.code != 0:
        facts["tail"] = (first if first.code else third).text[-800:]
    for folder in (whole, killed):
        shutil.rmtree(folder, ignore_errors=True)
    return verdict(facts, checks)
