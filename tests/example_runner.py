"""Runs Python examples, each as a program of its own. Started by `test_readme.py`.

For each line of standard input, `{"code": ..., "folder": ...}`, it runs the code in the folder, and answers with a line
that holds the exit status. What the code prints is in the files `stdout` and `stderr` beside the folder. Each example
has a process of its own that has imported torch and Lightning, which takes seconds, and nothing of this package.
"""

import json
import os
import sys
import types
from pathlib import Path

import lightning.pytorch  # noqa: F401  # pyright: ignore[reportUnusedImport]
import torch


def run(code: str, folder: str) -> None:
    """Does what `python -c CODE` does in `folder`."""
    os.chdir(folder)
    sys.argv, sys.path[0] = ["-c"], ""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    exec(compile(code, "<string>", "exec"), main.__dict__)


def main() -> None:
    """Answers until its input ends; in a child it runs the example instead, and ends as that does."""
    torch.set_num_threads(1)  # a fork has no other threads
    for line in sys.stdin:
        example = json.loads(line)
        child = os.fork()
        if child == 0:
            for number, name in enumerate(("stdout", "stderr"), 1):
                file = os.open(Path(example["folder"]).with_name(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, number)
            return run(**example)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
