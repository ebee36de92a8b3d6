"""Offline wandb runs, read back by wandb's own reader."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class OfflineRun:
    """What is in the `.wandb` file of a run: its records, in order, as wandb's reader prints them."""

    folder: Path
    records: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind."""
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def axes(self) -> dict[str, str | None]:
        """The axis of each pattern of metrics that has one."""
        return {item["glob_name"]: item.get("step_metric") for item in self.of("metric") if "glob_name" in item}

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, call by call."""
        return [item["item"] for item in self.of("history")]

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration."""
        return self.of("run")[0]["config"]["update"]

    @property
    def artifacts(self) -> dict[str, dict[str, Any]]:
        """Those of our own, by name; wandb makes one of each table as well. Metadata are parsed."""
        found = {item["name"]: item for item in self.of("artifact") if item["type"] != "run_table"}
        return {name: {**item, "metadata": json.loads(item["metadata"])} for name, item in found.items()}

    def contents(self, artifact: str) -> dict[str, dict[str, Any]]:
        """What an artifact holds, by path."""
        return {entry["path"]: entry for entry in self.artifacts[artifact]["manifest"]["contents"]}

    def tables(self, key: str) -> list[dict[str, Any]]:
        """The tables that were logged under a key."""
        paths = self.folder.glob(f"files/media/table/{key}_*.table.json")
        return [json.loads(path.read_text()) for path in paths]


def read_offline_run(folder: Path) -> OfflineRun:
    """The only offline run in a run's folder."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return OfflineRun(file.parent, [json.loads(line) for line in done.stdout.splitlines()])
