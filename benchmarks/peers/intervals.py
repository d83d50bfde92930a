"""What several rounds of a comparison come to."""
import random
import statistics

ROUNDS_FOR_AN_INTERVAL = 5


def bootstrap_interval(values, samples=4000, level=0.95, seed=0):
    """Percentile interval of the median (B. Efron, Ann. Statist. 7(1), 1979): [low, high], the same for the same values."""
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(samples))
    cut = (1 - level) / 2
    return [medians[int(cut * samples)], medians[min(samples - 1, int((1 - cut) * samples))]]


def summary(values):
    """Median, spread and interval; too few rounds have no interval."""
    result = {"n": len(values), "median": statistics.median(values), "min": min(values), "max": max(values)}
    if len(values) >= ROUNDS_FOR_AN_INTERVAL:
        result["interval_95"] = bootstrap_interval(values)
    return result


def geometric_mean(values):
    return statistics.geometric_mean(values)


def ratios(ours, theirs):
    """By how much the best of several peers takes longer, round by round. theirs: name -> times of the same rounds."""
    return [min(round_times) / our_time for our_time, *round_times in zip(ours, *theirs.values())]
