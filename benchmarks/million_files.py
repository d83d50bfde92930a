#!/usr/bin/env python3
"""How long a start on a million pictures takes, the first time and with an index.

    benchmarks/million_files.py CONVOLT PICTURES WORK [--classes 1000] [--each 1000] [--starts 7] [--forms folder,tar,list]

Makes WORK/set/train/<class>/part/<picture>, hard links to copies of the pictures found below PICTURES, where it is not there yet, and of it WORK/set.tar (which
has all their bytes) and WORK/set.csv where these are asked for. Runs `CONVOLT bench loader` on each with a cache folder of its own: once without an index
(--no-index), once to make it, then --starts times with it. Prints a line of JSON for each run, which decodes a few batches of 16: seconds of wall clock, of the
processor (user and system), and of the process until its first batch was on the device; and the most memory that was resident. A file system allows so many
links to one file (ext4: 65,000); 20 pictures are enough for a million.
"""
import argparse
import csv
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
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


def make_tar(work):
    with tarfile.open(work / "set.tar", "w") as tar:
        for path in sorted((work / "set").rglob("*.*")):
            info = tarfile.TarInfo(str(path.relative_to(work / "set")))
            info.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(info, file)


def make_list(work):
    with (work / "set.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for path in sorted((work / "set").rglob("*.*")):
            rows.writerow([path.relative_to(work), path.parts[-3]])


FORMS = {"folder": ("set", None), "tar": ("set.tar", make_tar), "list": ("set.csv", make_list)}


def make_forms(a, forms):
    if not (a.work / "set").exists():
        make(a.pictures, a.work, a.classes, a.each)
    for form in forms:
        file, make_it = FORMS[form]
        if not (a.work / file).exists():
            make_it(a.work)


def start(form, name, convolt, work, *flags):
    command = [convolt, "bench", "loader", "--data-path", work / FORMS[form][0], "--model", "resnet18", "-b", "16", "-j",
               "2", "--batches", "1", "--samples", "3", *flags]
    begin = time.monotonic()
    child = subprocess.Popen(list(map(str, command)), env=os.environ | {"XDG_CACHE_HOME": str(work / "cache")},
                             stdout=subprocess.PIPE, text=True)
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{command}: exit code {child.returncode}")
    pictures, first = re.search(r" of (\d+) pictures; the first batch was there ([0-9.]+) s", said).groups()
    print(json.dumps({"form": form, "pictures": int(pictures), "start": name, "first_batch_s": float(first),
                      "wall_s": round(time.monotonic() - begin, 2), "user_s": round(usage.ru_utime, 2),
                      "system_s": round(usage.ru_stime, 2), "resident_mb": round(usage.ru_maxrss / 1024)}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("convolt", type=pathlib.Path)
    parser.add_argument("pictures", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--each", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--forms", default="folder", help="of folder, tar, list")
    a = parser.parse_args()
    a.work = a.work.resolve()  # a relative folder for caches counts for nothing
    forms = a.forms.split(",")
    # In a process of its own: a program that is started counts the memory of the one that starts it for its own.
    maker = multiprocessing.Process(target=make_forms, args=(a, forms))
    maker.start()
    maker.join()
    if maker.exitcode != 0:
        return maker.exitcode
    time.sleep(3)  # what has just changed is not relied on
    shutil.rmtree(a.work / "cache", ignore_errors=True)
    for form in forms:
        start(form, "no index", a.convolt, a.work, "--no-index")
        start(form, "first", a.convolt, a.work)
        for _ in range(a.starts):
            start(form, "indexed", a.convolt, a.work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
