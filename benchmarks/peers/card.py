"""Watches a GPU's clocks, power, memory and throttle reasons with nvidia-smi while something runs."""
import shutil
import statistics
import subprocess
import tempfile

FIELDS = "clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used,clocks_throttle_reasons.active"
INTERVAL_MS = 500

# NVML's bits, nvmlClocksEventReasons.
REASONS = {
    0x1: "idle", 0x2: "application clocks", 0x4: "power cap", 0x8: "hardware slowdown", 0x10: "sync boost", 0x20: "thermal (software)",
    0x40: "thermal (hardware)", 0x80: "power brake", 0x100: "display clocks"}


def reasons_of(mask):
    return [name for bit, name in REASONS.items() if mask & bit]


def number(text):
    try:
        return int(text, 16) if text.startswith("0x") else float(text)
    except ValueError:
        return None  # "[N/A]"


def samples_of(text):
    """Rows of numbers in the order of FIELDS; a half-written last line is left out."""
    rows = [[number(field.strip()) for field in line.split(",")] for line in text.splitlines()]
    return [row for row in rows if len(row) == len(FIELDS.split(","))]


def summary(rows):
    """Of the samples; None when there are none."""
    if not rows:
        return None

    def spread(values):
        known = [v for v in values if v is not None]
        return {"min": min(known), "median": statistics.median(known), "max": max(known)} if known else None

    sm, memory_clock, power, temperature, used, throttle = map(list, zip(*rows))
    mask = 0
    for value in throttle:
        mask |= int(value or 0)
    return {"samples": len(rows), "sm_mhz": spread(sm), "memory_mhz": spread(memory_clock), "power_w": spread(power),
            "celsius": spread(temperature), "used_mib": spread(used), "throttle": reasons_of(mask)}


class Watch:
    """Samples from `with` to its end; then .rows and .summary. Without nvidia-smi both stay empty."""

    def __enter__(self):
        self.rows, self.process = [], None
        if shutil.which("nvidia-smi"):
            self.file = tempfile.NamedTemporaryFile()
            command = ["nvidia-smi", "-i", "0", f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits", "-lms", str(INTERVAL_MS)]
            self.process = subprocess.Popen(command, stdout=self.file, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        return self

    def read(self):
        """All samples so far."""
        if self.process:
            with open(self.file.name) as file:  # of its own: nvidia-smi writes where self.file stands
                self.rows = samples_of(file.read())
        return self.rows

    def __exit__(self, *_):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.read()
            self.file.close()

    @property
    def summary(self):
        return summary(self.rows)
