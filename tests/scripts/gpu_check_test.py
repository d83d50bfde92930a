"""tools/gpu_check: limits, tests that crash and hang, results that merge and resume. Needs no GPU: programs are scripts."""
import contextlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tools/gpu_check"), str(ROOT / "benchmarks/peers")]

import figures  # noqa: E402
import programs  # noqa: E402
import record  # noqa: E402
import soak  # noqa: E402
import stages  # noqa: E402

SPEC = importlib.util.spec_from_file_location("gpu_check", ROOT / "tools/gpu_check/__main__.py")
gpu_check = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gpu_check)

# A GoogleTest program of tests that each do something: ok, fail, skip, crash, hang, slow, break (the device).
FAKE = r"""#!/bin/sh
tests='{tests}'
wanted=
for flag in "$@"; do case $flag in --gtest_flagfile=*) wanted=$(cat "${{flag#*=}}") ;; --gtest_list_tests) list=1 ;; esac; done
[ {every} = 1 ] && wanted=
bad=0 broken=
for test in $tests; do
  name=${{test%%:*}} what=${{test#*:}}
  if [ -n "$list" ]; then printf '%s.\n  %s  # GetParam() = 8\n' "${{name%%.*}}" "${{name#*.}}" && continue; fi
  case ":${{wanted#*=}}:" in *":$name:"*) ;; *) [ -z "$wanted" ] || continue ;; esac
  echo "[ RUN      ] $name"
  case $what in
    crash) kill -ABRT $$ ;; hang) sleep 60 ;; slow) sleep 0.1 ;; fail) bad=1 ;;
    break) echo "CUDA: an illegal memory access was encountered"; broken=1 ;;
  esac
  if [ $what = fail ] || [ -n "$broken" ]; then bad=1 && echo "[  FAILED  ] $name, where GetParam() = 8 (1 ms)"
  elif [ $what = skip ]; then echo "[  SKIPPED ] $name (0 ms)"
  else echo "[       OK ] $name (0 ms)"; fi
done
[ -n "$list" ] || echo "[  SKIPPED ] 0 tests, listed below:"
[ $bad = 0 ] || printf '[  FAILED  ] 1 test, listed below:\n[  FAILED  ] %s, where GetParam() = 8\n' "$name"
exit $bad
"""


def fake(tests, every=False):
    return FAKE.format(tests=" ".join(f"{name}:{what}" for name, what in tests.items()), every=int(every))


class WithFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def program(self, text, name="program"):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def run_fake(self, tests, limit=60, stall=None, shards=1):
        return programs.run_tests(self.program(fake(tests)), "*", str(self.folder / "log"), limit, stall, shards=shards)


class Limits(WithFolder):
    def test_the_exit_code_and_both_streams_are_kept(self):
        outcome = programs.run(["sh", "-c", "echo a; echo b >&2; exit 3"], self.folder / "log", 5)
        self.assertEqual((outcome.code, outcome.text), (3, "a\nb\n"))

    def test_a_program_that_hangs_ends_with_all_that_it_started(self):
        outcome = programs.run(["sh", "-c", "sleep 50 & echo $!; sleep 50"], self.folder / "log", 0.5)
        self.assertEqual(outcome.code, "timeout")
        child = int(outcome.text)
        for _ in range(100):  # the system takes its time to end it
            if not self.runs(child):
                return
            time.sleep(0.05)
        self.fail("what the program started still runs")

    def runs(self, process):
        try:
            return pathlib.Path(f"/proc/{process}/stat").read_text().split()[2] not in "ZX"
        except OSError:
            return False

    def test_output_is_no_stall(self):
        talk = "for i in 1 2 3; do echo $i; sleep 0.25; done"
        self.assertEqual(programs.run(["sh", "-c", talk], self.folder / "log", 20, stall=0.6).code, 0)


class Tests(WithFolder):
    def test_all_pass(self):
        facts = self.run_fake({"A.a": "ok", "A.b": "ok", "B.c": "skip"})
        self.assertEqual((facts["status"], facts["passed"], facts["skipped"], facts["exit_codes"]), ("ok", 2, 1, [0]))

    def test_a_failure_fails_and_is_named_once(self):
        facts = self.run_fake({"A.a": "ok", "A.b": "fail", "A.c": "ok"})
        self.assertEqual((facts["status"], facts["failures"], facts["passed"]), ("failed", ["A.b"], 2))

    def test_a_hang_and_a_crash_cost_only_their_own_results(self):
        facts = self.run_fake({"A.a": "ok", "A.b": "hang", "A.c": "ok", "A.d": "crash", "A.e": "ok"}, stall=1)
        self.assertEqual((facts["hung"], facts["crashed"], facts["passed"], facts["not_reached"]), (["A.b"], ["A.d"], 3, 0))
        self.assertEqual((facts["status"], len(facts["exit_codes"])), ("failed", 3))

    def test_a_test_that_breaks_the_device_takes_none_with_it(self):
        facts = self.run_fake({"A.a": "ok", "A.b": "break", "A.c": "ok", "A.d": "ok"})
        self.assertEqual((facts["failures"], facts["passed"]), (["A.b"], 3))

    def test_shards_run_every_test_once_and_one_that_crashes_costs_only_its_own_result(self):
        facts = self.run_fake({"A.a": "ok", "A.b": "crash", "A.c": "fail", "A.d": "ok", "A.e": "skip", "A.f": "ok"}, shards=2)
        self.assertEqual((facts["passed"], facts["skipped"], facts["failures"], facts["crashed"]), (3, 1, ["A.c"], ["A.b"]))
        self.assertEqual((facts["status"], facts["not_reached"], facts["tests"]), ("failed", 0, 6))
        self.assertEqual(self.run_fake({"A.a": "ok", "A.b": "ok", "A.c": "ok"}, shards=5)["status"], "ok")

    def test_a_shard_that_ran_out_of_time_is_not_run(self):
        facts = self.run_fake({"A.a": "ok", "A.b": "hang", "A.c": "ok", "A.d": "ok"}, limit=1, shards=2)
        self.assertEqual((facts["status"], facts["passed"]), ("not run", 2))

    def test_what_time_did_not_reach_is_not_run(self):
        facts = self.run_fake({f"A.t{i}": "slow" for i in range(40)}, limit=0.6)
        self.assertEqual(facts["status"], "not run")
        self.assertEqual(facts["passed"] + facts["not_reached"], 40)
        self.assertGreater(facts["passed"], 0)

    def test_nothing_that_ran_is_no_success(self):
        self.assertEqual(self.run_fake({})["status"], "failed")
        self.assertEqual(self.run_fake({"A.a": "skip"})["status"], "failed")

    def test_a_program_that_does_not_start_fails(self):
        program = self.program("#!/bin/sh\necho no library >&2; exit 127\n")
        facts = programs.run_tests(program, "*", str(self.folder / "log"), 5)
        self.assertEqual(facts["status"], "failed")
        self.assertIn("no library", facts["tail"])

    def test_findings_of_a_sanitizer_fail_and_a_clean_part_is_ok(self):
        part = {"status": "not run", "passed": 3, "tests": 9}
        self.assertEqual(stages.sanitizer_facts(dict(part), "========= RACECHECK SUMMARY: 0 hazards displayed\n")["status"], "ok")
        found = stages.sanitizer_facts(dict(part), "========= Invalid __global__ read of size 4 bytes\n=========     at f\n")
        self.assertEqual((found["status"], found["findings"]), ("failed", 1))
        self.assertEqual(stages.sanitizer_facts({**part, "status": "failed"}, "========= Error: Device not supported")["status"], "not run")
        self.assertEqual(stages.sanitizer_facts({**part, "passed": 0}, "")["status"], "not run")


class Results(WithFolder):
    def record(self, again=False):
        return record.Record(str(self.folder / "gpu" / "2026-01-02-abc"), {"gpu": "g"}, again)

    def put(self, stage, file="ops", **statuses):
        stage_record = {"parts": {name: {"status": status.replace("_", " "), "seconds": 1} for name, status in statuses.items()}}
        self.record().put(file, stage, stage_record)

    def test_a_stage_is_as_good_as_its_worst_part_and_not_run_never_passes(self):
        self.assertEqual(record.status_of(["ok", "not run", "failed"]), "failed")
        self.assertEqual(record.status_of(["ok", "not run"]), "not run")
        self.assertEqual(record.status_of([]), "not run")
        self.assertEqual(record.status_of(["ok", "ok"]), "ok")

    def test_stages_of_one_file_lie_beside_each_other(self):
        self.put("ops", a="ok")
        self.put("parity", b="failed")
        found = record.read(self.record().path("ops"))
        self.assertEqual({name: s["status"] for name, s in found["stages"].items()}, {"ops": "ok", "parity": "failed"})
        self.assertEqual(os.listdir(self.record().folder), ["ops.json"])

    def test_a_second_run_keeps_what_was_ok_and_nothing_else(self):
        self.put("ops", a="ok", b="failed", c="not_run", gone="ok")
        stage = self.record().begin("ops", "ops", ["a", "b", "c", "new"])
        self.assertEqual({name: p["status"] for name, p in stage["parts"].items()}, {"a": "ok", "b": "not run", "c": "not run", "new": "not run"})
        self.assertEqual(stage["kept"], ["a"])

    def test_again_keeps_nothing(self):
        self.put("ops", a="ok")
        self.assertEqual(self.record(again=True).begin("ops", "ops", ["a"])["parts"]["a"]["status"], "not run")

    def test_a_torn_file_is_none(self):
        os.makedirs(self.record().folder)
        pathlib.Path(self.record().path("ops")).write_text('{"stages": {"ops"')
        self.assertNotIn("kept", self.record().begin("ops", "ops", ["a"]))

    def test_the_folder_of_a_commit_is_found_again_on_another_day(self):
        (self.folder / "gpu/2020-01-02-abc").mkdir(parents=True)
        (self.folder / "gpu/2020-01-03-abcd").mkdir()
        self.assertTrue(record.folder_for(str(self.folder), "gpu", "abc").endswith("2020-01-02-abc"))
        self.assertTrue(record.folder_for(str(self.folder), "gpu", "eee", 0).endswith("1970-01-01-eee"))

    def test_at_most_eight_files_and_each_stage_under_eight_minutes(self):
        self.assertLessEqual(len({file for file, _, _ in stages.STAGES.values()}), 8)
        self.assertEqual(sorted(stages.STAGES), sorted("ops parity sanitize kernels conv step peers train soak".split()))
        for name, (_, limit, parts) in stages.STAGES.items():
            self.assertLess(limit, 480, name)
            self.assertTrue(all(0 < most <= limit for most, _ in parts.values()), name)


class Stage(WithFolder):
    """A stage of two parts, `a` and `b`."""

    def run_stage(self, end=60, again=False, **results):
        ran = []

        def part(name):
            def function(_, seconds):
                ran.append(name)
                if isinstance(results[name], BaseException):
                    raise results[name]
                return {"status": results[name], "given": seconds}
            return 30, function

        results_of = record.Record(str(self.folder), {"gpu": "g"}, again)
        with unittest.mock.patch.dict(gpu_check.STAGES, {"s": ("file", 60, {name: part(name) for name in results})}), \
             contextlib.redirect_stdout(io.StringIO()):
            self.stage = gpu_check.run_stage(None, results_of, "s", time.monotonic() + end)
        return ran

    def test_a_second_run_runs_only_what_was_not_ok(self):
        self.assertEqual(self.run_stage(a="ok", b="failed"), ["a", "b"])
        self.assertEqual(self.run_stage(a="failed", b="ok"), ["b"])
        self.assertEqual(self.stage["status"], "ok")
        self.assertEqual(self.run_stage(a="ok", b="ok"), [])
        self.assertEqual(self.run_stage(again=True, a="ok", b="ok"), ["a", "b"])

    def test_a_part_that_breaks_fails_and_hides_no_other(self):
        self.assertEqual(self.run_stage(a=ValueError("broken"), b="ok"), ["a", "b"])
        self.assertEqual((self.stage["status"], self.stage["parts"]["b"]["status"]), ("failed", "ok"))
        self.assertIn("broken", self.stage["parts"]["a"]["reason"])

    def test_without_time_nothing_begins_and_a_part_gets_what_is_left(self):
        self.assertEqual(self.run_stage(end=5, a="ok", b="ok"), [])
        self.assertEqual(self.stage["status"], "not run")
        self.run_stage(end=20, a="ok", b="ok")
        self.assertLessEqual(self.stage["parts"]["a"]["given"], 20)

    def test_killed_within_a_part_the_file_says_cut_off(self):
        with self.assertRaises(KeyboardInterrupt):
            self.run_stage(a="ok", b=KeyboardInterrupt())
        found = record.read(str(self.folder / "file.json"))["stages"]["s"]
        self.assertEqual((found["status"], found["parts"]["a"]["status"], found["parts"]["b"]["reason"]), ("not run", "ok", "cut off"))


class Figures(unittest.TestCase):
    record = {"copy": {"gb_per_second_best": 1000.0}, "matmul": {"gflop_per_second_best": 1e6}, "rows": [
        {"name": "small", "dtype": "f16", "shape": "a", "bytes": 1e6, "timings": {"cold": {"ms_median": 0.002, "fraction": 0.5}}},
        {"name": "large", "dtype": "f16", "shape": "b", "bytes": 1e9, "timings": {"warm": {"ms_median": 9}, "cold": {"ms_median": 1.1, "fraction": 0.91}}},
        {"name": "conv", "dtype": "f16", "shape": "c", "bytes": 1e6, "flops": 1e12, "count": 3,
         "timings": {"slow": {"ms_median": 9}, "quick": {"ms_median": 1.5, "chosen": True}}}]}

    def test_gaps_to_the_bound_the_largest_first(self):
        gaps = figures.gaps(self.record)
        self.assertEqual([g["kernel"] for g in gaps], ["conv: quick", "large", "small"])
        self.assertAlmostEqual(gaps[0]["gap_ms"], 3 * 0.5)  # 1 ms by its FLOP
        self.assertAlmostEqual(gaps[1]["gap_ms"], 0.1)
        self.assertAlmostEqual(gaps[2]["bound_ms"], 0.001)

    def test_kernels_below_the_goal(self):
        self.assertEqual(figures.below({"rows": self.record["rows"][:2]}), {"small f16": 0.5})

    def test_a_goal_is_met_by_the_worse_end_of_its_interval(self):
        case = {"case": "resnet50-f16-256", "status": "ok", "memory_ratio": 0.7, "speed_ratio": {"median": 1.7, "interval_95": [1.5, 1.9]}}
        self.assertEqual([g["met"] for g in figures.peer_goals([case])], [False, True])
        case["speed_ratio"]["interval_95"] = [1.61, 1.9]
        case["memory_ratio"] = 0.76
        self.assertEqual([g["met"] for g in figures.peer_goals([case])], [True, False])

    def test_too_few_rounds_and_what_failed_meet_nothing(self):
        case = {"case": "mobilenet_v2 depthwise, f16, batch 128", "status": "ok", "speed_ratio": {"median": 9.0}}
        self.assertEqual([g["met"] for g in figures.peer_goals([case])], [False])
        self.assertEqual(figures.peer_goals([{**case, "status": "failed"}]), [])

    def test_cards_that_plans_know(self):
        self.assertEqual(figures.described_device("NVIDIA H100 80GB HBM3"), "h100")
        self.assertIsNone(figures.described_device("NVIDIA L4"))


class Soak(WithFolder):
    def test_losses_without_a_half_written_line(self):
        path = self.folder / "metrics.jsonl"
        path.write_text('{"step":1,"loss":2.5}\n{"step":2,"train_loss":2,"val_loss":NaN}\n{"step":3,"lo')
        self.assertEqual(str(soak.losses_of(path)), "[2.5, 2, nan]")

    def test_growth_leaves_the_start_out(self):
        self.assertEqual(soak.growth([0, 50] + [100] * 6), 0)
        self.assertEqual(soak.growth([0, 50, 100, 100, 110, 120, 130, 130]), 30)
        self.assertIsNone(soak.growth([1, 2, 3]))

    def test_a_file_that_differs_or_lacks_is_named(self):
        for folder, text in (("a", "x"), ("b", "y")):
            (self.folder / folder).mkdir()
            (self.folder / folder / "one").write_text("same")
            (self.folder / folder / "two").write_text(text)
        self.assertEqual(soak.differing(self.folder / "a", self.folder / "b", ("one", "two", "three")), ["two", "three"])


class WholeRun(WithFolder):
    """The script itself on the CPU, with scripts for programs."""

    def setUp(self):
        super().setUp()
        (self.folder / "tests").mkdir()
        self.program("#!/bin/sh\nexit 1\n", "convolt")
        for name, what in {"test_kernels": "ok", "test_conv": "fail", "test_graph": "ok"}.items():
            self.fake(name, what)

    def fake(self, name, what):
        self.program(fake({"A.a": what}, every=True), f"tests/{name}")

    def start(self, *arguments, **environment):
        surroundings = {**os.environ, "CONVOLT_GPU_CHECK_DEVICE": "cpu", "CONVOLT_GPU_BUILD": str(self.folder),
                        "CONVOLT_GPU_LOGS": str(self.folder / "logs"), **environment}
        return subprocess.Popen([str(ROOT / "tools/gpu_check.sh"), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env=surroundings)

    def run_check(self, *arguments, **environment):
        process = self.start(*arguments, **environment)
        return process.communicate(timeout=60)[0], process.returncode

    def parts(self, gpu="cpu-dry-run", file="ops", stage="ops"):
        path = next((self.folder / "r").glob(f"{gpu}/*/{file}.json"))
        return {name: part["status"] for name, part in json.loads(path.read_text())["stages"][stage]["parts"].items()}

    def test_a_failing_part_hides_no_other_and_the_exit_code_is_1(self):
        said, code = self.run_check(str(self.folder / "r"), "ops")
        self.assertEqual(code, 1, said)
        self.assertEqual(self.parts(), {"kernels": "ok", "providers": "not run", "conv": "failed", "graph": "ok"})
        self.assertRegex(said, r"ops +failed +\d+  2 of 4 parts ok; 1 tests failed, the first A.a")

    def cut_off(self, word, *chosen, **environment):
        """Ends the script a moment after it said `word`, and expects that it says so."""
        process = self.start(str(self.folder / "r"), *chosen, **environment)
        for line in process.stdout:
            if word in line:
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[0]
        self.assertEqual(process.returncode, 1, said)
        self.assertIn("cut off", said)

    def test_cut_off_in_the_middle_it_leaves_what_it_had(self):
        self.fake("test_conv", "hang")
        self.cut_off("providers", "ops")
        self.assertEqual(self.parts(), {"kernels": "ok", "providers": "not run", "conv": "not run", "graph": "not run"})

    def test_cut_off_while_stages_run_at_once_it_leaves_what_it_had(self):
        for name in ("test_conv", "test_kernels"):
            self.fake(name, "hang")
        self.cut_off("parity", "ops", "parity", CONVOLT_GPU_SHARDS="4")
        self.assertEqual(set(self.parts().values()), {"not run"})

    def test_on_a_card_tests_run_and_sanitizers_wrap_them(self):
        for shards in ("1", "4"):
            with self.subTest(shards=shards):
                self.on_a_card(shards)
                shutil.rmtree(self.folder / "r")

    def on_a_card(self, shards):
        os.makedirs(self.folder / "path", exist_ok=True)
        os.makedirs(self.folder / "tests/cuda", exist_ok=True)
        self.program("#!/bin/sh\necho NVIDIA H100 80GB HBM3\n", "path/nvidia-smi")
        self.program("#!/bin/sh\nwhile [ \"${1#--}\" != \"$1\" ]; do shift 2; done\n"
                     "echo '========= COMPUTE-SANITIZER'; case $1 in *test_graph) echo '========= Invalid __global__ read' ;; esac\nexec \"$@\"\n",
                     "path/compute-sanitizer")
        self.fake("test_conv", "ok")
        self.fake("cuda/test_gpu", "ok")
        said, code = self.run_check(str(self.folder / "r"), "ops", "parity", "sanitize", CONVOLT_GPU_CHECK_DEVICE="cuda", CONVOLT_GPU_SHARDS=shards,
                                    PATH=f"{self.folder}/path:{os.environ['PATH']}")
        self.assertEqual(code, 1, said)
        card = "NVIDIA-H100-80GB-HBM3"
        self.assertEqual(set(self.parts(card).values()) | set(self.parts(card, stage="parity").values()), {"ok"}, said)
        self.assertEqual(self.parts(card, "sanitize", "sanitize"), {"memcheck, kernels": "ok", "racecheck, kernels": "ok", "memcheck, plans": "failed",
                                                                    "initcheck, kernels": "ok"})

    def test_usage_is_2_without_a_gpu_4(self):
        self.assertEqual(self.run_check(str(self.folder), "opps")[1], 2)
        self.assertEqual(self.run_check("--agian")[1], 2)
        self.assertEqual(self.run_check("ops")[1], 2)  # a dry run into the repository's results
        said, code = self.run_check(str(self.folder), "ops", CONVOLT_GPU_CHECK_DEVICE="cuda", PATH=self.path_without_smi())
        self.assertEqual(code, 4, said)

    def path_without_smi(self):
        os.makedirs(self.folder / "path", exist_ok=True)
        for name in ("python3", "bash", "dirname", "env", "git"):
            found = subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True).stdout.strip()
            if found and not (self.folder / "path" / name).exists():
                os.symlink(found, self.folder / "path" / name)
        return str(self.folder / "path")


if __name__ == "__main__":
    unittest.main()
