"""What tools/count_tests.py tells of programs that end badly."""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import count_tests  # noqa: E402

RACE = ["==================", "WARNING: ThreadSanitizer: data race (pid=7)", "  Write of size 8 at 0x7b0400000010 by thread T1:",
        "    #0 fill row_filler.cpp:12", "SUMMARY: ThreadSanitizer: data race row_filler.cpp:12 in fill", "=================="]
PASSED = ["[ RUN      ] Suite.Case", "[       OK ] Suite.Case (0 ms)"]


class CountTests(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def counted(self, output, status="fail"):
        """What is printed of one program that has one passed case and that output."""
        text = escape("\n".join(output))
        (self.folder / "junit.xml").write_text(
            f'<testsuite><testcase name="data" status="{status}"><system-out>{text}</system-out></testcase></testsuite>')
        case = {"name": "Case", "result": "COMPLETED"}
        (self.folder / "test_data.json").write_text(json.dumps({"testsuites": [{"name": "Suite", "testsuite": [case]}]}))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = count_tests.main(["--show-failures", str(self.folder)])
        return code, printed.getvalue().splitlines()

    def test_a_race_in_a_program_whose_tests_pass_fails_and_is_shown(self):
        code, printed = self.counted([*RACE, *PASSED * 200, "ThreadSanitizer: reported 1 warnings"])
        self.assertEqual(code, 1)
        self.assertEqual(printed[-1], "1 passed, 1 failed, 0 skipped")
        for line in RACE[1:5]:
            self.assertEqual(printed.count(line), 1, line)
        self.assertIn("ThreadSanitizer: reported 1 warnings", printed)
        self.assertNotIn("[       OK ] Suite.Case (0 ms)", printed)

    def test_few_reports_are_shown_and_each_in_part(self):
        trap = "kernel.cpp:3:1: runtime error: signed integer overflow"
        long = ["ERROR: AddressSanitizer: heap-use-after-free", *["    #0 frame"] * 500, "SUMMARY: AddressSanitizer: heap-use-after-free"]
        _, printed = self.counted([trap, "SUMMARY: UndefinedBehaviorSanitizer: overflow", *long, *PASSED, *RACE, *RACE, *RACE])
        before_the_end = printed[:next(i for i, line in enumerate(printed) if line.startswith("The program failed"))]
        self.assertIn(trap, before_the_end)
        self.assertEqual(before_the_end.count("    #0 frame"), count_tests.REPORT_LINES - 1)
        self.assertEqual(before_the_end.count(RACE[1]), 1)
        self.assertNotIn(PASSED[0], before_the_end)

    def test_a_program_that_passes_is_not_shown(self):
        self.assertEqual(self.counted(RACE, "run"), (0, ["1 passed, 0 failed, 0 skipped"]))


if __name__ == "__main__":
    unittest.main()
