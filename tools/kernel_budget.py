#!/usr/bin/env python3
"""Compares the registers, stack, spills, shared memory and occupancy of every CUDA kernel with the recorded budget.

    tools/kernel_budget.py BUILD_DIR             compare; exit 1 with a line for each kernel that is over
    tools/kernel_budget.py BUILD_DIR --record    write the budget from this build
    tools/kernel_budget.py BUILD_DIR --table     print them, the least occupied first
    tools/kernel_budget.py --launch COMMAND...   run a compiler and keep ptxas' report beside the object file

The build compiles kernels through --launch (see cmake/cuda.cmake), so that the numbers are those of the very objects
that are linked. On the architecture that kernels are tuned on a spill fails always and has no place in the budget; on
others, as in a release, more than is recorded. Fewer registers than recorded never fail. Occupancy is the theoretical one: the warps that a multiprocessor holds at once, in per cent of the most, as far as threads,
registers and static shared memory allow.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

TUNED = "sm_90a"
FIELDS = ("registers", "stack", "shared", "occupancy", "spills")  # of a kernel in the budget, in this order
BUDGET = pathlib.Path(__file__).resolve().parent.parent / "tests/cuda/kernel_budget.json"
REPORT_SUFFIX = ".resources"

# Threads of a block, by the kernel's template; "B": its first argument (kernels/exec/).
THREADS = {"grid_stride_kernel": 256, "product_kernel": 512, "reduce_channels_kernel": "B", "reduce_then_kernel": "B",
           "picture_kernel": 256, "walk_kernel": 128, "channels_kernel": 256, "block_kernel": "B",
           "block_then_kernel": "B"}


class Multiprocessor:
    """What one holds at once, and in which units: CUDA C++ Programming Guide, "Technical Specifications per Compute
    Capability". 65,536 registers, given to warps in units of 256; shared memory in units of 128 bytes, and 1 KiB of
    each block for the system."""

    def __init__(self, warps, blocks, shared_kib):
        self.warps, self.blocks, self.shared = warps, blocks, shared_kib << 10

    def occupancy(self, threads, registers, shared):
        warps = -(-threads // 32)
        by_registers = 65536 // (-(-registers * 32 // 256) * 256) // warps
        by_shared = self.shared // (-(-shared // 128) * 128 + 1024)
        return 100 * min(self.blocks, self.warps // warps, by_registers, by_shared) * warps // self.warps


MULTIPROCESSORS = {"sm_80": Multiprocessor(64, 32, 164), "sm_86": Multiprocessor(48, 16, 100),
                   "sm_89": Multiprocessor(48, 24, 100), "sm_90": Multiprocessor(64, 32, 228),
                   "sm_100": Multiprocessor(64, 32, 228), "sm_120": Multiprocessor(48, 24, 100)}

ENTRY = re.compile(r"Compiling entry function '(?P<name>[^']+)' for '(?P<arch>sm_\w+)'")
STACK = re.compile(r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads")
USED = re.compile(r"Used (?P<registers>\d+) registers")
SHARED = re.compile(r"(?P<shared>\d+) bytes smem")


def launch(command):
    """Runs the compiler; its ptxas report goes into a file, everything else to stderr as it came."""
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    report, rest = [], []
    for line in run.stderr.splitlines(keepends=True):
        of_ptxas = line.startswith("ptxas info") or line.startswith("    ")
        (report if of_ptxas else rest).append(line)
    sys.stderr.writelines(rest)
    if "-o" in command and run.returncode == 0:
        path = pathlib.Path(command[command.index("-o") + 1] + REPORT_SUFFIX)
        path.write_text("".join(report))
    return run.returncode


def parse(text):
    """{(arch, mangled name): {registers, stack, spills, shared}} of one ptxas report."""
    kernels, stack = {}, None
    current = None
    for line in text.splitlines():
        if found := ENTRY.search(line):
            current = kernels.setdefault((found["arch"], found["name"]), {})
            stack = None
        elif found := STACK.search(line):
            stack = found
        elif (found := USED.search(line)) and current is not None and stack is not None:
            shared = SHARED.search(line)
            current.update(registers=int(found["registers"]), stack=int(stack["stack"]),
                           spills=int(stack["stores"]) + int(stack["loads"]),
                           shared=int(shared["shared"]) if shared else 0)
            current = None
    return kernels


def without_arguments(signature):
    """"void f<A(1)>(int, A(1))" -> "f<A(1)>": up to the first bracket that is no part of a template argument."""
    signature = signature.removeprefix("void ")
    depth = 0
    for i, character in enumerate(signature):
        if character == "(" and depth == 0:
            return signature[:i]
        depth += {"<": 1, ">": -1}.get(character, 0)
    return signature


def readable(names):
    """Demangled names without namespaces and arguments."""
    run = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return [without_arguments(re.sub(r"\(anonymous namespace\)::|convolt::", "", name)) for name in run.stdout.splitlines()]


def threads_of(name):
    template = re.match(r"\w+", name)[0]
    if template not in THREADS:
        raise SystemExit(f"{name}: how many threads a block of {template} has is not known; add it to THREADS in {__file__}")
    return int(re.search(r"<(\d+)", name)[1]) if THREADS[template] == "B" else THREADS[template]


def measured(build):
    """{arch: {"relu.cu: kernel": numbers}} of a build folder."""
    result = {}
    for report in sorted(pathlib.Path(build).rglob("*" + REPORT_SUFFIX)):
        obj = report.with_suffix("")
        if not obj.exists():  # the object of a source file that is gone
            continue
        kernels = parse(report.read_text())
        for ((arch, mangled), numbers), name in zip(kernels.items(), readable([name for _, name in kernels])):
            if not numbers:
                raise SystemExit(f"ptxas reported no registers for {mangled}: rebuild the kernels")
            if multiprocessor := MULTIPROCESSORS.get(arch.rstrip("a")):  # sm_90a: with what later ones lack
                numbers["occupancy"] = multiprocessor.occupancy(threads_of(name), numbers["registers"], numbers["shared"])
            result.setdefault(arch, {})[f"{obj.stem}: {name}"] = numbers
    return result


def over(name, arch, numbers, allowed):
    """What is wrong with one kernel; `allowed`: its record, None where it has none."""
    if arch == TUNED and numbers["spills"]:
        yield f"spills {numbers['spills']} bytes to local memory"
    if allowed is None:
        yield "not in the budget"
        return
    for field, limit in zip(FIELDS, allowed):
        found = numbers.get(field, 0)
        if (field == "spills" and arch == TUNED) or (found >= limit if field == "occupancy" else found <= limit):
            continue
        yield f"{found} {field}, the budget is {limit}; if that is meant"


def compare(found, budget, record_command):
    problems = []
    for arch, kernels in sorted(found.items()):
        if not any(arch in record for record in budget.values()):
            problems.append(f"{arch} has no budget; record one with: {record_command}")
            continue
        for name, numbers in sorted(kernels.items()):
            for problem in over(name, arch, numbers, budget.get(name, {}).get(arch)):
                advice = "" if problem.startswith("spills") else f", record it with: {record_command}"
                problems.append(f"{arch} {name}: {problem}{advice}")
    return problems


def read_budget(path):
    """{kernel: {arch: numbers in the order of FIELDS}}."""
    return json.loads(path.read_text())["kernels"] if path.exists() else {}


def write_budget(path, found):
    """Replaces the architectures of this build and keeps the others; one kernel a line."""
    budget = {name: {arch: numbers for arch, numbers in record.items() if arch not in found}
              for name, record in read_budget(path).items()}
    for arch, kernels in found.items():
        for name, numbers in kernels.items():
            kept = {**numbers, "spills": 0 if arch == TUNED else numbers["spills"]}
            budget.setdefault(name, {})[arch] = [kept.get(field, 0) for field in FIELDS]
    lines = [f"    {json.dumps(name)}: {json.dumps(dict(sorted(record.items())))}"
             for name, record in sorted(budget.items()) if record]
    path.write_text('{\n  "fields": ' + json.dumps(FIELDS) + ',\n  "kernels": {\n' + ",\n".join(lines) + "\n  }\n}\n")


def main():
    if sys.argv[1:2] == ["--launch"]:
        return launch(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--budget", type=pathlib.Path, default=BUDGET)
    options = parser.parse_args()
    found = measured(options.build)
    count = sum(len(kernels) for kernels in found.values())
    if not count:
        raise SystemExit(f"{options.build} holds no kernel reports (*{REPORT_SUFFIX}): build it with CONVOLT_CUDA=ON first")
    if options.table:
        for arch, kernels in sorted(found.items()):
            for name, n in sorted(kernels.items(), key=lambda item: item[1].get("occupancy", 0)):
                print(f"{arch}  {n.get('occupancy', 0):3} %  {n['registers']:3} registers  {n['shared']:6} B shared  {name}")
        return 0
    if options.record:
        write_budget(options.budget, found)
        print(f"{count} kernels recorded in {options.budget}")
    problems = compare(found, read_budget(options.budget), f"tools/kernel_budget.py {options.build} --record")
    if problems:
        print("\n".join(problems), file=sys.stderr)
    elif not options.record:
        print(f"{count} kernels within their budget")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
