"""What benchmarks/kernel_trace.py makes of traces."""
import pathlib
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import kernel_trace  # noqa: E402

UPDATE = "_ZN7convolt18grid_stride_kernelINS_7OneQuadIfEEEEvlT_"


def steps(*lengths, kernels=("_Zfirst", UPDATE)):
    """Lines of steps whose kernels take so many nanoseconds each, with 10 between them."""
    now, lines = 0, []
    for length in lengths:
        for name in kernels:
            lines.append(f"{now}\t{now + length}\t4\t1\t{name}\n")
            now += length + 10
    return lines


class Traces(unittest.TestCase):
    def test_the_mean_of_the_last_steps(self):
        found = kernel_trace.last_steps(kernel_trace.kernels_of(steps(9000, 5000, 1000, 3000)), "OneQuad", 2)
        rows, busy, between = kernel_trace.summary(found)
        self.assertEqual([row[1:] for row in rows], [("4x1", "2.0"), ("4x1", "2.0")])
        self.assertAlmostEqual(busy, 4000e-6)
        self.assertAlmostEqual(between, 10e-6)

    def test_lines_in_any_order(self):
        lines = steps(1000, 2000, 3000)
        self.assertEqual(kernel_trace.kernels_of(lines[::-1]), kernel_trace.kernels_of(lines))

    def test_a_line_of_something_else(self):
        with self.assertRaisesRegex(kernel_trace.Odd, "line 2: expected begin, end, x, y and a name between tabs, found 'kernel,grid"):
            kernel_trace.kernels_of(steps(1000)[:1] + ["kernel,grid,microseconds\n"])

    def test_too_few_steps(self):
        with self.assertRaisesRegex(kernel_trace.Odd, "1 whole steps end with a kernel like 'OneQuad', expected 2"):
            kernel_trace.last_steps(kernel_trace.kernels_of(steps(1000, 1000)), "OneQuad", 2)

    def test_steps_of_different_kernels(self):
        lines = steps(1000, 1000) + ["9000\t9001\t1\t1\tother\n", f"9002\t9003\t1\t1\t{UPDATE}\n"]
        with self.assertRaisesRegex(kernel_trace.Odd, "do not have the same kernels"):
            kernel_trace.last_steps(kernel_trace.kernels_of(lines), "OneQuad", 2)

    def test_names(self):
        for name, expected in (("void convolt::walk_kernel<convolt::Pool<convolt::f16> >", "walk_kernel<Pool<f16> >"),
                               ("nvjet_sm90_hsh_64x32_64x16_1x2_h_bz_splitK_NTT", "cublasLt nvjet_sm90_hsh_64x32_64x16_1x2_h_bz_splitK_NTT"),
                               ("void cublasLt::splitKreduce_kernel<32, 16, int>", "cublasLt splitKreduce"),
                               ("xmma__5x_cudnn::gemm<fprop_bn_stat, Hopper_cta_tile<Hopper, 128, 64, 32, 1>>", "cudnn fprop with sums tile 128x64x32")):
            self.assertEqual(kernel_trace.short(name), expected)


if __name__ == "__main__":
    unittest.main()
