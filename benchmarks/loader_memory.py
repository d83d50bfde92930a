"""Whether the loader's memory stays as it is: the resident memory of `convolt bench loader` while so many pictures pass.

    python benchmarks/loader_memory.py --data-path FOLDER [--pictures 200000] [-- --loader-memory 1G ...] >> result.jsonl

FOLDER is a data set of pictures of very different sizes (convolt synth FOLDER --min-side 16 --max-side 1024). What follows `--` goes to the program. The first
tenth of the time is left out: slots are as large as they may ever have to be, and the system gives them memory when they are first written to.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONVOLT = os.environ.get("CONVOLT", os.path.join(ROOT, "build", "cpu", "convolt"))
BATCH, WINDOWS = 64, 3


def resident_kb(pid):
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
    except FileNotFoundError:
        pass
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-path", required=True)
    parser.add_argument("--pictures", type=int, default=200000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("flags", nargs="*", help="for convolt bench loader, after --")
    o = parser.parse_args()
    batches = -(-o.pictures // (BATCH * WINDOWS))
    program = subprocess.Popen([
        CONVOLT, "bench", "loader", "--data-path", o.data_path, "--device", "cpu", "-b", str(BATCH), "-j", str(o.threads), "--batches", str(batches),
        "--samples", str(WINDOWS), "--seconds", "100000", *o.flags
    ], stdout=subprocess.DEVNULL)
    seen = []
    while program.poll() is None:
        memory = resident_kb(program.pid)
        if memory:
            seen.append(memory)
        time.sleep(0.25)
    if program.returncode != 0:
        sys.exit(program.returncode)
    steady = seen[len(seen) // 10:]
    middle = statistics.median(steady)
    print(json.dumps({
        "pictures": batches * BATCH * (WINDOWS + 1), "threads": o.threads, "flags": o.flags, "samples": len(steady), "resident_mb_median": round(middle / 1e3, 1),
        "lowest_part": round(min(steady) / middle, 4), "highest_part": round(max(steady) / middle, 4), "last_part": round(steady[-1] / middle, 4)
    }))


if __name__ == "__main__":
    main()
