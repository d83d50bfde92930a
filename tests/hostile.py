#!/usr/bin/env python3
"""Every broken and hostile picture of the corpora through `convolt predict` and through `convolt train`.

    tests/hostile.py [--asan]

CONVOLT_TEST_DATA names the folder that has corpora/. Uses build/cpu/convolt, or with --asan build/asan/convolt, and works in
build/hostile. Checks that each command ends as it should (predict with 3, since some pictures cannot be read; train with 0), that no
decode hangs and, but under ASan, that no more than 1 GiB is used. Prints what Pillow and Convolt make of the files, by format, and the
reasons of refusals. Exit code 1 when a check fails.
"""
import collections
import csv
import gzip
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "hostile"
ASAN = "--asan" in sys.argv
CONVOLT = ROOT / "build" / ("asan" if ASAN else "cpu") / "convolt"
SUPPORTED = {"PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM"}
MEMORY = 1 << 30


def convolt(*arguments, expected):
    """Standard output of a command that must end with the exit code; prints its time and peak memory."""
    start = time.monotonic()
    process = subprocess.Popen([CONVOLT, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                               cwd=FOLDER)
    out, err = process.communicate(timeout=1800)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"convolt {arguments[0]}: exit code {process.returncode}, {time.monotonic() - start:.0f} s, at most {peak / 2**20:.0f} MiB so far")
    if process.returncode != expected:
        sys.exit(f"expected exit code {expected}; standard error ends with\n{err[-3000:]}")
    if peak > MEMORY and not ASAN:
        sys.exit("expected at most 1024 MiB")
    return out, err


def unpack():
    corpora = pathlib.Path(os.environ["CONVOLT_TEST_DATA"]) / "corpora"
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "files").mkdir(parents=True)
    subprocess.run(["tar", "-C", FOLDER / "files", "-xJf", corpora / "corpora_shared.tar.xz"], check=True)
    with gzip.open(corpora / "MANIFEST.tsv.gz", "rt", newline="") as table:
        return {row["path"]: row for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE)}


def make_set(paths):
    """A folder set of two classes: all files to train on, good pictures to validate on."""
    convolt("synth", "good", "--classes", 2, "--train-per-class", 20, "--val-per-class", 5, expected=0)
    good = [path.relative_to(FOLDER) for path in sorted((FOLDER / "good" / "val").glob("*/*"))]
    for split, files in (("train", [pathlib.Path("files", path) for path in sorted(paths)]), ("val", good)):
        for n, file in enumerate(files):
            link = FOLDER / "set" / split / f"class{n % 2}" / f"{n:04}{file.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(FOLDER / file)


def reason_of(text):
    """Without numbers and names, so that refusals of a kind are counted together."""
    return re.sub(r"'[^']*'|\d+", "*", text)[:90]


def compare(manifest, lines):
    found = {str(pathlib.Path(line["path"]).relative_to("files")): line.get("error") for line in lines}
    missing = set(manifest) - set(found)
    if missing:
        sys.exit(f"predict said nothing of {len(missing)} files, such as {min(missing)}")
    table, reasons = collections.Counter(), collections.defaultdict(list)
    for path, row in manifest.items():
        good = row["pil940_status"] == "ok"
        kind = row["format"] if row["format"] in SUPPORTED else "other" if row["format"] else "unknown"
        table[kind, good, found[path] is None] += 1
        if good and kind in SUPPORTED and found[path] is not None:
            reasons[f"Pillow reads, Convolt does not: {kind}: {reason_of(found[path])}"].append(path)
        if not good and found[path] is None:
            reasons[f"Convolt reads, Pillow does not: {kind or 'unknown'}: {row['pil940_status']}"].append(path)
    print(f"\n{'format':8} {'both read':>10} {'only Pillow':>12} {'only Convolt':>13} {'neither':>8}")
    for kind in sorted({kind for kind, _, _ in table}):
        print(f"{kind:8} {table[kind, True, True]:10} {table[kind, True, False]:12} {table[kind, False, True]:13} {table[kind, False, False]:8}")
    print()
    for reason, paths in sorted(reasons.items()):
        print(f"{len(paths):4} {reason}; {paths[0]}")


def main():
    manifest = unpack()
    make_set(manifest)
    train = ("--model", "resnet20", "-b", 32, "--threads", 2)
    convolt("train", "--data-path", "good", "--epochs", 1, *train, "--output-dir", "run", expected=0)
    out, _ = convolt("predict", "--checkpoint", "run/best.safetensors", "files", "--json", expected=3)
    _, err = convolt("train", "--data-path", "set", "--epochs", 2, *train, "--output-dir", "hostile_run", expected=0)
    print(err.strip().splitlines()[-1])
    compare(manifest, [json.loads(line) for line in out.splitlines()])


if __name__ == "__main__":
    main()
