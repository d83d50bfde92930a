#!/usr/bin/env python3
"""Breaks each kernel's formula in turn, by sign, constant, index or missing barrier, and sees whether the tests notice.

    tests/mutation/mutate.py [--only PATTERN] [--list | --check] [--jobs N]

The faults are listed in kernel_mutations.py, augment_mutations.py, conv_mutations.py and data_mutations.py. Works in a copy of the tree under build/mutation, which it keeps, so
that a second run builds little. Prints a table and "N caught, N survived"; exit code 1 when any survives, or does not compile. --only takes those whose line of
--list matches a regular expression; --check only looks whether each fault still has its place, and compiles nothing.
"""
import argparse
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from augment_mutations import AUGMENTATION  # noqa: E402
from conv_mutations import CONV  # noqa: E402
from data_mutations import DATA  # noqa: E402
from kernel_mutations import KERNELS  # noqa: E402
from product_mutations import PRODUCTS  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
TREE = ROOT / "build" / "mutation" / "tree"
BUILD = ROOT / "build" / "mutation" / "build"
SECONDS = 300  # a test program that runs longer hangs
# All kernels but the faults of this file are compiled for f32 alone, in a third of the time.
TYPES = "kernels/exec/types.h"
OTHER_TYPES = """    case DType::bf16:
      return f(bf16{});
    case DType::f16:
      return f(f16{});
"""
# Tests whose f32 case needs another type too.
NOT_F32_ALONE = "Op/BatchNormTest.PlainSumsFinalizeAsShiftedOnes/*"
PHASE = re.compile(r"(block|team)\.phase\(")
# By the program whose tests must find them.
MUTATIONS = {"test_kernels": KERNELS | PRODUCTS | AUGMENTATION, "test_conv": CONV, "test_data": DATA}

Fault = collections.namedtuple("Fault", "program file kind old new tests")


def faults():
    for program, files in MUTATIONS.items():
        for file, (tests, listed) in files.items():
            for kind, old, *new in listed:
                yield Fault(program, file, kind, old, new[0] if new else None, tests)


def name(fault):
    text = fault.old if fault.new is None else f"{fault.old} -> {fault.new}"
    return f"{fault.file} {fault.kind}: {' '.join(text.split())}"


def call_at(text, phase):
    """The argument and the end of the call block.phase(...) that the match `phase` begins."""
    depth = 0
    for i in range(phase.end() - 1, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return text[phase.end():i], i + 1
    raise ValueError(f"a phase is not closed: {text[phase.start():phase.start() + 80]}")


def without_barrier(text, inside):
    """The phase that holds `inside` and the one after it as one phase."""
    first = list(PHASE.finditer(text, 0, text.index(inside)))[-1]
    body, end = call_at(text, first)
    second = PHASE.search(text, end)
    next_body, next_end = call_at(text, second)
    return (text[:first.start()] + text[end:second.start()] +
            f"{second[0]}[&](int lane) {{ ({body})(lane); ({next_body})(lane); }})" + text[next_end:])


def broken(fault, text):
    if text.count(fault.old) != 1:
        raise ValueError(f"found {text.count(fault.old)} times, expected once")
    return without_barrier(text, fault.old) if fault.new is None else text.replace(fault.old, fault.new)


def f32_alone(text):
    if text.count(OTHER_TYPES) != 1:
        raise ValueError("dispatch_float is no longer what mutate.py expects")
    return text.replace(OTHER_TYPES, "")


def check(chosen):
    wrong = 0
    f32_alone((ROOT / TYPES).read_text())
    for fault in chosen:
        try:
            broken(fault, (ROOT / fault.file).read_text())
        except ValueError as error:
            wrong += 1
            print(f"{name(fault)}: {error}; mend its line in tests/mutation/*_mutations.py")
    print(f"{len(chosen) - wrong} of {len(chosen)} faults have their place")
    return wrong


def copy_tree():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, text=True,
                            stdout=subprocess.PIPE).stdout.split()
    for file in listed:
        source, target = ROOT / file, TREE / file
        if source.is_file() and not (target.is_file() and target.read_bytes() == source.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    known = {TREE / file for file in listed}
    for path in TREE.rglob("*"):
        if path.is_file() and path not in known:
            path.unlink()


def build(jobs, program):
    done = subprocess.run(["cmake", "--build", BUILD, "-j", str(jobs), "--target", program], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.returncode == 0, done.stdout


def prepare(jobs, programs):
    copy_tree()
    types = TREE / TYPES
    types.write_text(f32_alone(types.read_text()))
    # -O0: what is changed here is compiled, not run, most of the time. Warnings stay warnings: a fault may leave things unused.
    subprocess.run(["cmake", "-S", TREE, "-B", BUILD, "-G", "Ninja", "-DCONVOLT_CUDA=OFF", "-DCMAKE_BUILD_TYPE=Debug",
                    "-DCMAKE_CXX_FLAGS_DEBUG=-O0", "-DCMAKE_CXX_FLAGS=-w"], check=True, stdout=subprocess.DEVNULL)
    for program in programs:
        good, output = build(jobs, program)
        if not good:
            sys.exit(f"The tree does not build as it is:\n{output[-3000:]}")
        if run(program, "Op/*/cpu_f32:Codes/*") != "survived":
            sys.exit(f"{program} fails without any fault.")


def run(program, tests):
    """How the tests see a fault: "survived", or by what they caught it."""
    try:
        done = subprocess.run([BUILD / "tests" / program, f"--gtest_filter={tests}:-{NOT_F32_ALONE}", "--gtest_fail_fast", "--gtest_brief=1"], text=True, errors="replace",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS,
                              env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode == 0:
        return "survived"
    failed = re.search(r"\[  FAILED  \] (\S+?),? ", done.stdout)
    return failed[1] if failed else f"ends with {done.returncode}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="PATTERN")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    chosen = [fault for fault in faults() if re.search(options.only, name(fault))]
    if options.list:
        print(*map(name, chosen), sep="\n")
        return 0
    if check(chosen):
        return 1
    if options.check:
        return 0
    prepare(options.jobs, sorted({fault.program for fault in chosen}))
    verdicts = collections.Counter()
    for fault in chosen:
        start, path = time.monotonic(), TREE / fault.file
        original = path.read_text()
        path.write_text(broken(fault, (ROOT / fault.file).read_text()))
        try:
            good, output = build(options.jobs, fault.program)
            verdict = run(fault.program, fault.tests) if good else "DOES NOT COMPILE"
        finally:
            path.write_text(original)
        if not good:
            print(output[-2000:])
        caught = good and verdict != "survived"
        verdicts["caught" if caught else "survived"] += 1
        print(f"{'caught' if caught else 'SURVIVED':8} {name(fault)}\n         {verdict}, {time.monotonic() - start:.0f} s",
              flush=True)
    print(f"{verdicts['caught']} caught, {verdicts['survived']} survived")
    return 1 if verdicts["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
