"""Two processes of one script, and what they wrote down."""

import json
import subprocess
import sys
from pathlib import Path


def run_ranks(
    script: str, folder: Path, *arguments: str, codes: tuple[int, int] = (0, 0), seconds: float = 150
) -> list[dict]:
    """Starts `script RANK FOLDER ARGUMENTS` as ranks 0 and 1, and reads `FOLDER/rankRANK.json`.

    Args:
        script: a file beside this one.
        folder: where they write.
        arguments: of the script.
        codes: with which they must end.
        seconds: that each may take.
    """
    path = Path(__file__).with_name(script)
    processes = [
        subprocess.Popen(
            [sys.executable, str(path), str(rank), str(folder), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=seconds)[0].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for rank, (process, code) in enumerate(zip(processes, codes, strict=True)):
        assert process.returncode == code, f"rank {rank}: {outputs[rank][-3000:]}"
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
