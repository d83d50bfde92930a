#!/usr/bin/env python3
"""What of src/ and kernels/ the tests ran: coverage.py BUILD, after the tests of a build with CONVOLT_COVERAGE.

Prints lines run of lines that have code, for each file and in all, then every block of neighbouring lines that nothing ran. A line of
a template or a header counts as run when any program ran any instance of it.
"""
import collections
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def reports(build):
    """Yields gcov's report of each object file."""
    notes = sorted(path.resolve() for path in build.rglob("*.gcno"))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["gcov", "--json-format", "--preserve-paths", "--hash-filenames", *notes], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for path in pathlib.Path(folder).glob("*.gcov.json.gz"):
            yield json.loads(gzip.decompress(path.read_bytes()))


def count(build):
    """How often each line ran: {file: {line: times}}."""
    files = collections.defaultdict(collections.Counter)
    for report in reports(build):
        for file in report["files"]:
            path = pathlib.Path(report["current_working_directory"], file["file"]).resolve()
            if not path.is_relative_to(ROOT):
                continue
            name = path.relative_to(ROOT)
            if name.parts[0] in ("src", "kernels", "include"):
                for line in file["lines"]:
                    files[str(name)][line["line_number"]] += line["count"]
    return files


def blocks(lines):
    """[first, last] of neighbouring lines with code that never ran."""
    found, open_block = [], False
    for line in sorted(lines):
        if lines[line] > 0:
            open_block = False
        elif open_block:
            found[-1][1] = line
        else:
            found.append([line, line])
            open_block = True
    return found


def row(name, lines):
    run = sum(times > 0 for times in lines.values())
    print(f"{name:42} {run:6} {len(lines):6} {100 * run / len(lines):6.1f} %")


def main(build):
    files = {name: lines for name, lines in sorted(count(pathlib.Path(build)).items()) if lines}
    print(f"{'file':42} {'run':>6} {'lines':>6}")
    for name, lines in files.items():
        row(name, lines)
    for folder in ("src", "kernels", "include", ""):
        inside = {(name, line): times for name, lines in files.items() if name.startswith(folder) for line, times in lines.items()}
        row(f"{folder}/" if folder else "all", inside)
    print("\nnot run:")
    for name, lines in files.items():
        text = (ROOT / name).read_text().splitlines()
        for first, last in blocks(lines):
            print(f"{name}:{first}{f'-{last}' if last > first else ''}: {text[first - 1].strip()}")


if __name__ == "__main__":
    main(sys.argv[1])
