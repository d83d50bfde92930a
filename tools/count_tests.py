#!/usr/bin/env python3
"""Counts what tools/test.sh ran: count_tests.py [--show-failures] FOLDER...

A folder is one stage: ctest's junit.xml and one JSON report for each GoogleTest program, or an empty file `build_failed`
or `skipped`. Prints "N passed, N failed, N skipped"; exit code 1 when any failed.
"""
import json
import pathlib
import re
import sys
import xml.etree.ElementTree

OUTPUT_LINES = 80  # of a program that failed without a report
REPORT_LINES = 120  # of a sanitizer
REPORTS = 3


def google_tests(report):
    """Yields (name, passed | failed | skipped, messages) for each case of a GoogleTest report."""
    for suite in report["testsuites"]:
        for case in suite["testsuite"]:
            messages = [failure["failure"] for failure in case.get("failures", [])]
            ran = case["result"] == "COMPLETED"
            yield f"{suite['name']}.{case['name']}", "failed" if messages else "passed" if ran else "skipped", messages


def sanitizer_reports(lines):
    """The first reports among those lines; a program goes on after some, so that they lie far from its end."""
    reports = []
    inside = False
    for line in lines:
        if re.search(r"(ERROR|WARNING): \w+Sanitizer|: runtime error: ", line):
            if len(reports) == REPORTS:
                break
            reports.append([])
            inside = True
        if inside and len(reports[-1]) < REPORT_LINES:
            reports[-1].append(line)
        if line.startswith("SUMMARY: "):
            inside = False
    return [line for report in reports for line in report]


def program(folder, test):
    """Yields the same for one test of ctest; one that is missing, crashes or hangs has no report and is one failure."""
    name, status = test.get("name"), test.get("status")
    report = folder / f"test_{name}.json"
    cases = list(google_tests(json.loads(report.read_text()))) if report.exists() else []
    yield from cases
    skipped = test.find("skipped")
    if status == "disabled" or skipped is not None and skipped.get("message", "").startswith("SKIP_"):
        yield name, "skipped", []
    elif status != "run" and not any(outcome == "failed" for _, outcome, _ in cases):
        lines = (test.findtext("system-out") or "").splitlines()
        told = [line for line in lines if not line.startswith(("[       OK ]", "[  SKIPPED ]"))]
        yield name, "failed", [*sanitizer_reports(lines), "The program failed without a failed test; the end of its output:",
                               *told[-OUTPUT_LINES:]]
    elif not report.exists():  # no GoogleTest program
        yield name, "passed", []


def stage(folder):
    if (folder / "skipped").exists():
        yield "stage", "skipped", []
        return
    if (folder / "build_failed").exists():
        yield "build", "failed", ["see the log"]
    junit = folder / "junit.xml"
    tests = xml.etree.ElementTree.parse(junit).getroot().findall("testcase") if junit.exists() else []
    for test in tests:
        yield from program(folder, test)
    if not tests:
        yield "tests", "failed", ["none were run"]


def main(arguments):
    show = "--show-failures" in arguments
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for folder in [pathlib.Path(a) for a in arguments if a != "--show-failures"]:
        for name, outcome, messages in stage(folder):
            counts[outcome] += 1
            if show and outcome == "failed":
                print(f"-- {folder.name}: {name}", *messages, sep="\n")
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
