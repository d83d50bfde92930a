"""What benchmarks/peers computes, without PyTorch and without a GPU."""
import json
import pathlib
import sys
import tempfile
import tomllib
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks/peers"))

import card  # noqa: E402
import gpu_depthwise  # noqa: E402
import gpu_training  # noqa: E402
import intervals  # noqa: E402
from convolt_program import Failed, run  # noqa: E402
from recipes import RECIPES, step_flags  # noqa: E402
from results import Results  # noqa: E402


class Intervals(unittest.TestCase):
    def test_equal_values_have_an_interval_without_width(self):
        self.assertEqual(intervals.bootstrap_interval([2.0] * 7), [2.0, 2.0])

    def test_of_seventeen_values_the_exact_interval(self):
        # The bootstrap median of 1..17 is at most k with probability P(Binomial(17, k / 17) >= 9): 0.008 for 4, 0.036 for 5, 0.104 for 6.
        self.assertEqual(intervals.bootstrap_interval(list(range(1, 18))), [5, 13])

    def test_the_same_values_give_the_same_interval(self):
        values = [1.1 ** i for i in range(30)]
        low, high = intervals.bootstrap_interval(values, samples=100)
        self.assertLess(low, high)
        for _ in range(3):
            self.assertEqual(intervals.bootstrap_interval(values, samples=100), [low, high])

    def test_too_few_rounds_have_no_interval(self):
        self.assertNotIn("interval_95", intervals.summary([1.0, 2.0, 3.0, 4.0]))
        self.assertIn("interval_95", intervals.summary([1.0, 2.0, 3.0, 4.0, 5.0]))

    def test_the_fastest_peer_of_each_round_counts(self):
        self.assertEqual(intervals.ratios([1.0, 2.0], {"a": [4.0, 3.0], "b": [2.0, 8.0]}), [2.0, 1.5])


class Card(unittest.TestCase):
    rows = card.samples_of("1980, 3201, 512.5, 60, 9000, 0x0000000000000004\n1700, 3201, [N/A], 61, 9001, 0x0000000000000020\n1700, 32")

    def test_a_half_written_line_and_what_is_not_known_are_left_out(self):
        self.assertEqual(len(self.rows), 2)
        found = card.summary(self.rows)
        self.assertEqual(found["sm_mhz"], {"min": 1700.0, "median": 1840.0, "max": 1980.0})
        self.assertEqual(found["power_w"]["max"], 512.5)

    def test_every_reason_that_struck_is_named(self):
        self.assertEqual(card.summary(self.rows)["throttle"], ["power cap", "thermal (software)"])

    def test_without_samples_there_is_nothing(self):
        self.assertIsNone(card.summary([]))


class Depthwise(unittest.TestCase):
    def row(self, layer, what, shape, ms):
        return {"name": f"{layer} {what}", "shape": shape, "timings": {"other": {"ms_median": ms / 2}, "mine": {"ms_median": ms, "chosen": True}}}

    def test_the_chosen_candidates_of_all_passes_of_depthwise_shapes(self):
        deep, plain, grouped = "n2 32x32x96 -> 96, 3x3 s2 p1 g96", "n2 32x32x96 -> 64, 1x1 s1", "n2 8x8x96 -> 96, 3x3 s1 p1 g3"
        rows = [self.row("a", what, shape, 1.0) for shape in (deep, plain, grouped) for what in ("fprop", "dgrad", "wgrad")]
        rows += [self.row("b", "fprop", "n2 8x8x96 -> 96, 7x7 s1 p3 g96", 1.0)]
        self.assertEqual(gpu_depthwise.layers_of([{"rows": rows}]), {deep: 3.0})

    def test_the_geometric_mean_over_shapes_round_by_round(self):
        found = gpu_depthwise.summarise({"a": [1.0, 1.0], "b": [1.0, 2.0]}, {"a": [1.0, 2.0], "b": [9.0, 4.0]})
        self.assertAlmostEqual(found["speed_ratio"]["max"], 3.0)
        self.assertAlmostEqual(found["speed_ratio"]["min"], 2.0)
        self.assertEqual(found["shapes"][0]["shape"], "a")

    def measured(self, failing_round, seconds_left):
        """With a round that fails, seconds_left before the end of all of them."""
        args = unittest.mock.Mock(rounds=3, dtype="f16", device="cpu", steps=1)
        clock = unittest.mock.Mock(return_value=0.0)

        def convolt_round(*_):
            if rounds.call_count < failing_round:
                return {"shape": 2.0}
            clock.return_value = 10.0 - seconds_left
            raise Failed("cut short")

        with unittest.mock.patch.multiple(gpu_depthwise, time=unittest.mock.Mock(monotonic=clock), Watch=unittest.mock.MagicMock(),
                                          convolt_round=unittest.mock.DEFAULT, Peer=unittest.mock.DEFAULT) as patched:
            rounds = patched["convolt_round"]
            rounds.side_effect = convolt_round
            patched["Peer"].return_value.window.return_value = 6.0
            return gpu_depthwise.measure(("net", 1, ()), args, 10.0, lambda _: None)

    def test_a_round_that_time_cuts_short_costs_itself(self):
        self.assertEqual(self.measured(failing_round=2, seconds_left=0)["status"], "ok")
        self.assertEqual(self.measured(failing_round=2, seconds_left=0)["speed_ratio"]["n"], 1)
        self.assertEqual(self.measured(failing_round=2, seconds_left=5)["status"], "failed")
        self.assertEqual(self.measured(failing_round=1, seconds_left=0)["status"], "failed")


class Recipes(unittest.TestCase):
    def test_airbench94_is_trained_as_the_file_of_recipes_says(self):
        recipe, file = RECIPES["airbench94"], tomllib.loads((ROOT / "recipes/airbench94.toml").read_text())
        self.assertEqual((file["opt"], file["muon-renormalize"], list(recipe.frozen)), ("muon", True, file["freeze"]))
        self.assertEqual((recipe.momentum, recipe.muon_momentum, recipe.muon_iterations), (file["momentum"], file["muon-momentum"], file["muon-iterations"]))

    def test_what_is_frozen(self):
        names = ["whiten.weight", "whiten.bias", "layers.1.norm1.weight", "layers.1.norm1.bias", "layers.1.conv1.weight", "head.weight"]
        self.assertEqual([name for name in names if RECIPES["airbench94"].freezes(name)], ["whiten.weight", "layers.1.norm1.weight"])

    def test_both_sides_take_the_same_step(self):
        for device, cases in gpu_training.CASES.items():
            for case in cases:
                with unittest.mock.patch.object(gpu_training, "bench") as bench:
                    gpu_training.convolt_window(case, device, 2, 60)
                words = bench.call_args[0][0]
                self.assertEqual(words[-len(step_flags(case[1])):] if "--opt" in words else [], step_flags(case[1]))
        self.assertIn("--muon-renormalize", step_flags("airbench94"))


class Training(unittest.TestCase):
    def test_a_summary_of_rounds(self):
        result = {"batch": 10}
        said = {"eager": {"memory": 400}, "compiled": {"memory": 200}}
        gpu_training.summarise(result, {"device": "d", "provider": "p"}, {"memory": 100}, [1.0, 2.0, 1.0], {"eager": [4.0, 8.0, 4.0], "compiled": [2.0, 4.0, 3.0]},
                               said)
        self.assertEqual((result["speed_ratio"]["median"], result["speed_ratio_eager"]["median"]), (2.0, 4.0))
        self.assertEqual((result["best_variant"], result["memory_ratio"], result["images_per_second"]), ("compiled", 0.5, 10000.0))

    def test_cases_keep_one_entry_and_one_that_failed_is_no_success(self):
        with tempfile.TemporaryDirectory() as folder:
            results = Results(f"{folder}/r.json", {"peers": "x"})
            results.put({"case": "a", "status": "not run"})
            results.put({"case": "a", "status": "ok"})
            self.assertEqual(results.finish(), 0)
            results.put({"case": "b", "status": "failed"})
            self.assertEqual(results.finish(), 1)
            self.assertEqual([c["status"] for c in json.loads(pathlib.Path(f"{folder}/r.json").read_text())["cases"]], ["ok", "failed"])

    def test_a_program_that_fails_or_hangs_says_so(self):
        with self.assertRaisesRegex(Failed, "exit code 2"):
            run(["/nonexistent"], 5, "ls")
        with self.assertRaisesRegex(Failed, "did not end"):
            run(["5"], 0.2, "sleep")
        with self.assertRaisesRegex(Failed, "could not be started"):
            run(["5"], 0.2, "/nonexistent")


if __name__ == "__main__":
    unittest.main()
