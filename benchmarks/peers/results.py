"""What a comparison has found so far, kept in a file case by case, so that a cut-off run leaves what it had."""
import json
import os
import sys


class Results:
    def __init__(self, path, head):
        self.path, self.record = path, {**head, "cases": []}

    def put(self, case):
        """A case, again after every round."""
        self.record["cases"] = [c for c in self.record["cases"] if c["case"] != case["case"]] + [case]
        if self.path:
            with open(self.path + ".part", "w") as file:
                json.dump(self.record, file, indent=1)
            os.replace(self.path + ".part", self.path)

    def finish(self):
        """The exit code: 0 when every case is ok. Without a path all goes to standard output."""
        if not self.path:
            json.dump(self.record, sys.stdout, indent=1)
        return 0 if all(c["status"] == "ok" for c in self.record["cases"]) else 1
