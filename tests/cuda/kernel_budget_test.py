"""tools/kernel_budget.py on planted ptxas reports: what fits passes, a spill or a grown kernel fails."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOL = pathlib.Path(__file__).resolve().parent.parent.parent / "tools/kernel_budget.py"
REPORT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4copyPKfPf' for 'sm_90a'
ptxas info    : Function properties for _Z4copyPKfPf
    {stack} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers, {shared} bytes smem, 400 bytes cmem[0]
"""


class KernelBudget(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.build = pathlib.Path(folder.name)
        self.budget = self.build / "budget.json"
        self.plant()
        self.assertEqual(self.run_tool("--record").returncode, 0)

    def plant(self, stack=0, stores=0, loads=0, registers=32, shared=1024, name="walk_kernel", arch="sm_90a"):
        (self.build / "copy.cu.o").touch()
        text = REPORT.format(stack=stack, stores=stores, loads=loads, registers=registers, shared=shared)
        (self.build / "copy.cu.o.resources").write_text(text.replace("_Z4copy", f"_Z{len(name)}{name}").replace("sm_90a", arch))

    def run_tool(self, *options):
        return subprocess.run([sys.executable, TOOL, self.build, "--budget", self.budget, *options],
                              capture_output=True, text=True)

    def assert_fails_with(self, text):
        run = self.run_tool()
        self.assertEqual(run.returncode, 1, run.stdout)
        self.assertIn(text, run.stderr)

    def test_the_same_kernel_or_a_smaller_one_passes(self):
        self.assertEqual(self.run_tool().returncode, 0)
        self.plant(registers=16)
        self.assertEqual(self.run_tool().returncode, 0)

    def test_a_spill_fails_and_recording_does_not_excuse_it(self):
        self.plant(stack=8, stores=8, loads=4)
        self.assert_fails_with("walk_kernel: spills 12 bytes")
        self.assertEqual(self.run_tool("--record").returncode, 1)
        self.assert_fails_with("walk_kernel: spills 12 bytes")

    # Where it is not tuned, a kernel may spill what is recorded and no more.
    def test_a_spill_elsewhere_is_held_to_its_record(self):
        self.plant(stores=8, loads=4, arch="sm_86")
        self.assertEqual(self.run_tool("--record").returncode, 0)
        self.assertEqual(self.run_tool().returncode, 0)
        self.plant(stores=8, loads=8, arch="sm_86")
        self.assert_fails_with("sm_86 copy.cu: walk_kernel: 16 spills, the budget is 12")
        self.plant(registers=33)  # the other architecture keeps its record
        self.assert_fails_with("33 registers, the budget is 32")

    def test_an_architecture_without_a_record_is_no_success(self):
        self.plant(arch="sm_120")
        self.assert_fails_with("sm_120 has no budget")

    def test_more_registers_stack_or_shared_memory_fail(self):
        self.plant(registers=33)
        self.assert_fails_with("33 registers, the budget is 32")
        self.plant(stack=16)
        self.assert_fails_with("16 stack, the budget is 0")
        self.plant(shared=2048)
        self.assert_fails_with("2048 shared, the budget is 1024")

    # As NVIDIA's occupancy calculator has it for a block of 128 threads.
    def test_fewer_warps_at_once_fail(self):
        for arch, registers, shared, percent in (("sm_90a", 32, 1024, 100), ("sm_90", 64, 0, 50), ("sm_90a", 65, 0, 43),
                                                 ("sm_90a", 255, 0, 12), ("sm_90a", 32, 102400, 12), ("sm_86", 40, 0, 100),
                                                 ("sm_89", 56, 0, 75), ("sm_80", 32, 40960, 25)):
            self.plant(registers=registers, shared=shared, arch=arch)
            table = self.run_tool("--table").stdout
            self.assertRegex(table, rf"^{arch} +{percent} % +{registers} registers +{shared} B shared  copy\.cu: walk_kernel$")
        self.plant(registers=64)
        self.assert_fails_with("50 occupancy, the budget is 100")

    def test_a_kernel_of_unknown_threads_says_what_to_do(self):
        self.plant(name="paste")
        self.assertIn("is not known; add it to THREADS", self.run_tool().stderr)

    def test_an_unknown_kernel_fails_with_the_command_that_records_it(self):
        self.plant(name="grid_stride_kernel")
        self.assert_fails_with("--record")

    def test_the_report_of_a_removed_file_is_ignored(self):
        (self.build / "old.cu.o.resources").write_text(REPORT.format(stack=8, stores=8, loads=8, registers=9, shared=0))
        self.assertEqual(self.run_tool().returncode, 0)

    def test_a_build_without_kernels_is_no_success(self):
        (self.build / "copy.cu.o.resources").unlink()
        self.assertNotEqual(self.run_tool().returncode, 0)

    def test_the_launcher_keeps_the_report_and_passes_on_warnings(self):
        script = "import sys; print('ptxas info    : Used 7 registers', file=sys.stderr); print('warning: w', file=sys.stderr)"
        run = subprocess.run([sys.executable, TOOL, "--launch", sys.executable, "-c", script, "-o", self.build / "x.o"],
                             capture_output=True, text=True)
        self.assertEqual(run.stderr, "warning: w\n")
        self.assertIn("Used 7 registers", (self.build / "x.o.resources").read_text())


if __name__ == "__main__":
    unittest.main()
