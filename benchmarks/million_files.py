#!/usr/bin/env python3
"""How long a start on a million files takes, the first time and with an index.

    benchmarks/million_files.py CONVOLT PICTURES WORK [--classes 1000] [--each 1000] [--starts 7]

Makes WORK/set/train/<class>/part/<picture>, hard links to copies of the pictures found below PICTURES, where it is not there yet, and runs
`CONVOLT bench loader` on it with a cache folder of its own: once without an index (--no-index), once to make it, then --starts times with it. Each run decodes
a few batches of 16, so its time is above that to the first batch. Prints a line of JSON for each run: seconds of wall clock, of the processor (user and
system), and the most memory that was resident. A file system allows so many links to one file (ext4: 65,000); 20 pictures are enough for a million.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import time

LINKS = 60_000


def make(pictures, work, classes, each):
    sources = work / "sources"
    sources.mkdir(parents=True)
    found = sorted(p for p in pictures.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[:2000]
    if len(found) * LINKS < classes * each:
        raise SystemExit(f"{pictures}: has {len(found)} pictures, too few for {classes * each} links")
    copies = [shutil.copyfile(p, sources / f"{i}{p.suffix}") for i, p in enumerate(found)]
    for c in range(classes):
        folder = work / "set" / "train" / f"class_{c:05d}" / "part"
        folder.mkdir(parents=True)
        for i in range(each):
            source = copies[(c * each + i) % len(copies)]
            os.link(source, folder / f"picture_{i:07d}{source.suffix}")


def start(name, convolt, work, *flags):
    command = [convolt, "bench", "loader", "--data-path", work / "set", "--model", "resnet18", "-b", "16", "-j", "2",
               "--batches", "1", "--samples", "3", *flags]
    begin = time.monotonic()
    child = subprocess.Popen(list(map(str, command)), env=os.environ | {"XDG_CACHE_HOME": str(work / "cache")},
                             stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{command}: exit code {child.returncode}")
    print(json.dumps({"start": name, "wall_s": round(time.monotonic() - begin, 2), "user_s": round(usage.ru_utime, 2),
                      "system_s": round(usage.ru_stime, 2), "resident_mb": round(usage.ru_maxrss / 1024)}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("convolt", type=pathlib.Path)
    parser.add_argument("pictures", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--each", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=7)
    a = parser.parse_args()
    if not (a.work / "set").exists():
        make(a.pictures, a.work, a.classes, a.each)
        time.sleep(3)  # what has just changed is not relied on
    shutil.rmtree(a.work / "cache", ignore_errors=True)
    start("no index", a.convolt, a.work, "--no-index")
    start("first", a.convolt, a.work)
    for _ in range(a.starts):
        start("indexed", a.convolt, a.work)


if __name__ == "__main__":
    main()
