"""Windows of steps."""
import time


def milliseconds(step, wait, steps, warm):
    """Of a step, over some in a row after `warm` others, the device waited for before and after."""
    for _ in range(warm):
        step()
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return (time.perf_counter() - start) * 1e3 / steps
