"""The result files: <results>/<gpu>/<date>-<commit>/<file>.json, each {"gpu", "commit", "machine", "stages": {stage: {"status", "seconds",
"figure", "parts": {part: {"status", "seconds", ...}}}}}. A status is "ok", "failed" or "not run"."""
import glob
import json
import os
import threading
import time

NOT_RUN = "not run"


def status_of(statuses):
    """Of a stage, from its parts': what is not run never passes."""
    statuses = list(statuses)
    if "failed" in statuses:
        return "failed"
    return "ok" if statuses and all(s == "ok" for s in statuses) else NOT_RUN


def read(path):
    """A result file's object; None when there is none, or none that can be read."""
    try:
        with open(path) as file:
            found = json.load(file)
        return found if isinstance(found, dict) and isinstance(found.get("stages"), dict) else None
    except (OSError, ValueError):
        return None


def write(path, value):
    with open(path + ".part", "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
    os.replace(path + ".part", path)


def folder_for(results, gpu, commit, now=None):
    """The newest folder of this commit on this card, else one of today's."""
    found = sorted(glob.glob(os.path.join(glob.escape(os.path.join(results, gpu)), "????-??-??-" + glob.escape(commit))))
    return found[-1] if found else os.path.join(results, gpu, time.strftime("%F", time.localtime(now)) + "-" + commit)


def kept_parts(stage, parts):
    """Of an earlier record of a stage what need not run again: its parts, among those that there are, that were ok."""
    earlier = (stage or {}).get("parts", {})
    return {name: earlier[name] for name in parts if earlier.get(name, {}).get("status") == "ok"}


class Record:
    """Results on disk, as they come."""

    def __init__(self, folder, head, again=False):
        self.folder, self.head, self.again = folder, head, again
        self.lock = threading.Lock()  # stages that run at once share files

    def path(self, file):
        return os.path.join(self.folder, file + ".json")

    def begin(self, file, stage, parts):
        """A stage's record, with what is kept of an earlier run; every other part is `not run` until it is put."""
        whole = read(self.path(file)) or {**self.head, "stages": {}}
        kept = {} if self.again else kept_parts(whole["stages"].get(stage), parts)
        rest = {"status": NOT_RUN, "reason": "not begun"}
        record = {"status": NOT_RUN, "seconds": 0, "figure": "", "parts": {name: kept.get(name, rest) for name in parts}}
        if kept:
            record["kept"] = list(kept)
        return record

    def put(self, file, stage, record):
        """Writes a stage beside the others of its file."""
        record["status"] = status_of(part["status"] for part in record["parts"].values())
        record["seconds"] = round(sum(part.get("seconds", 0) for part in record["parts"].values()), 1)
        with self.lock:
            os.makedirs(self.folder, exist_ok=True)
            whole = read(self.path(file)) or {"stages": {}}
            write(self.path(file), {**self.head, "stages": {**whole["stages"], stage: record}})
