"""Runs programs that may fail, crash or hang: with a limit, their output in a log, and all that they started ended with them."""
import concurrent.futures
import os
import re
import signal
import subprocess
import threading
import time

CUT = threading.Event()  # set: every program ends, in whatever thread it is waited for
RESTARTS = 8  # of a test program after tests that crash or hang
STICKY = re.compile(r"illegal memory access|misaligned address|unspecified launch failure|illegal instruction|device-side assert")
EVENT = re.compile(r"\[ +(RUN|OK|FAILED|SKIPPED) +\] ([^\s,]+)(?:, where [^\n]*?)?(?: \(\d+ ms\))?$", re.MULTILINE)


class Outcome:
    """How a program ended: its exit code, "timeout", "stalled" or "cut off", and what it said, on both streams."""

    def __init__(self, code, text, seconds):
        self.code, self.text, self.seconds = code, text, seconds


def at_once(functions):
    """What they return, each called in a thread of its own. When this thread is interrupted, all programs end."""
    with concurrent.futures.ThreadPoolExecutor(len(functions)) as pool:
        futures = [pool.submit(f) for f in functions]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            CUT.set()  # the pool waits for its threads, and they for their programs
            raise


def end(process):
    """Ends a program's whole group, for it may have started others."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def run(command, log, limit, stall=None, environment=None, cwd=None, look=None):
    """limit: seconds at most. stall: seconds without any output. look: called with the process now and then."""
    start = changed = time.monotonic()
    size, code = 0, None
    with open(log, "wb") as out:
        process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   start_new_session=True, env={**os.environ, **(environment or {})}, cwd=cwd)
        try:
            while code is None:
                try:
                    code = process.wait(0.1)
                except subprocess.TimeoutExpired:
                    pass
                now, grown = time.monotonic(), os.path.getsize(log)
                if grown != size:
                    size, changed = grown, now
                if code is None and now - start > limit:
                    code = "timeout"
                elif code is None and stall and now - changed > stall:
                    code = "stalled"
                if CUT.is_set():
                    code = "cut off"
                if code is None and look:
                    look(process)
        finally:
            end(process)
    with open(log, errors="replace") as file:
        return Outcome(code, file.read(), time.monotonic() - start)


def listed_tests(text):
    """Of --gtest_list_tests."""
    suite, names = "", []
    for line in text.splitlines():
        name = line.split("#")[0].rstrip()
        if line.startswith("  "):
            names.append(suite + name.strip())
        elif name.endswith(".") and " " not in name:
            suite = name
    return names


class TestRun:
    """What one run of a GoogleTest program did, by test, from its output."""

    def __init__(self, text):
        self.outcomes, self.running, self.sticky = {}, None, False
        sticky = STICKY.search(text)
        for match in EVENT.finditer(text):
            what, name = match[1], match[2]
            if what == "RUN":
                if sticky and sticky.start() < match.start():
                    break  # the device is lost to this process: what follows fails for no fault of its own
                self.running = name
            elif name == self.running and match[0].endswith("ms)"):
                self.outcomes[name] = what
                self.running = None
        self.sticky = bool(sticky)


def run_tests(program, pattern, log, limit, stall=60, wrapper=(), environment=None, shards=1):
    """Runs the tests of a GoogleTest program that the pattern takes; a test that crashes, hangs (no output for `stall` seconds)
    or breaks the device costs its own result, not that of the tests behind it. Returns facts, see `facts_of`.
    shards: so many processes at once, each with every so-many-th test: most of a test's time is its reference on the processor."""
    end_time = time.monotonic() + limit
    listing = run([program, "--gtest_list_tests", f"--gtest_filter={pattern}"], log, min(60, limit), environment=environment)
    if listing.code != 0:
        return {"status": "failed", "reason": f"the list of tests: exit code {listing.code}", "tail": listing.text[-800:]}
    tests = listed_tests(listing.text)
    command = [*wrapper, program]
    logs = [log if shards == 1 else f"{log}.shard{i}" for i in range(shards)]
    runs = at_once([lambda i=i: run_list(command, tests[i::shards], logs[i], end_time, stall, environment) for i in range(shards)])
    outcomes = {name: outcome for r in runs for name, outcome in r["outcomes"].items()}
    codes = [code for r in runs for code in r["codes"]]
    ends = [r["codes"][-1] for r in runs if r["codes"]]
    return {**facts_of(tests, outcomes, codes, ends, "\n".join(r["tail"] for r in runs if r["tail"])), "text": "\n".join(r["text"] for r in runs)}


def run_list(command, tests, log, end_time, stall, environment):
    """A shard's share of `run_tests`."""
    outcomes, tail, codes, left, texts = {}, "", [], tests, []
    while left and not CUT.is_set() and len(codes) <= RESTARTS and time.monotonic() < end_time:
        flags = log + ".tests"
        with open(flags, "w") as file:
            file.write("--gtest_filter=" + ":".join(left) + "\n")
        part = log if not codes else f"{log}.{len(codes)}"
        outcome = run([*command, f"--gtest_flagfile={flags}"], part, end_time - time.monotonic(), stall, environment)
        codes.append(outcome.code)
        texts.append(outcome.text)
        seen = TestRun(outcome.text)
        outcomes.update(seen.outcomes)
        if seen.running and outcome.code != "timeout":
            outcomes[seen.running] = "HUNG" if outcome.code == "stalled" else "CRASHED"
        if "FAILED" in seen.outcomes.values() or outcome.code not in (0, "timeout"):
            tail = outcome.text[-1500:]
        before, left = left, [name for name in left if name not in outcomes]
        if outcome.code == "timeout" or len(left) == len(before):
            break
        if isinstance(outcome.code, int) and not seen.running and not seen.sticky:
            break
    return {"outcomes": outcomes, "codes": codes, "tail": tail, "text": "\n".join(texts)}


def facts_of(tests, outcomes, codes, ends, tail):
    """Counts and a status: failed when a test did, or the program for no test's fault; not run when tests were not reached.
    codes: of every process; ends: the last of each shard."""
    names = {what: [name for name, outcome in outcomes.items() if outcome == what] for what in ("OK", "FAILED", "SKIPPED", "CRASHED", "HUNG")}
    left = [name for name in tests if name not in outcomes]
    facts = {"tests": len(tests), "passed": len(names["OK"]), "failed": len(names["FAILED"]), "skipped": len(names["SKIPPED"]),
             "crashed": names["CRASHED"][:40], "hung": names["HUNG"][:40], "not_reached": len(left), "exit_codes": codes}
    bad = names["FAILED"] + names["CRASHED"] + names["HUNG"]
    if bad:
        facts.update({"status": "failed", "reason": f"{len(bad)} tests failed, the first {bad[0]}", "failures": names["FAILED"][:60], "tail": tail})
    elif not tests:
        facts.update({"status": "failed", "reason": "the filter takes no test"})
    elif left and "timeout" in codes:
        facts.update({"status": "not run", "reason": f"out of time: {len(left)} of {len(tests)} tests were not reached"})
    elif left or any(ends):
        facts.update({"status": "failed", "reason": f"ended with {next(filter(None, ends), 0)} and {len(left)} tests left", "tail": tail})
    elif not names["OK"]:
        facts.update({"status": "failed", "reason": "every test was skipped"})
    else:
        facts["status"] = "ok"
    return facts
