"""The README and the pages are true: their Python runs, commands exist, links lead somewhere."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "examples" / "README.md",
]
README = PAGES[0].read_text()
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}_{number}", marks=[] if page == PAGES[0] else [pytest.mark.slow])
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_python_examples_run(code: str, tmp_path: Path) -> None:
    """Each Python block of the pages runs by itself in an empty folder; what it prints is something."""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() or "print(" not in code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "made"),
    [
        ("tutorial.md", "runs/page"),
        ("how-to/wandb-and-sweeps.md", "runs/sweep_page"),
        ("how-to/read-the-report.md", "runs/both"),
    ],
)
def test_the_commands_of_a_page_run(page: str, made: str, tmp_path: Path) -> None:
    """A page's commands, one after the other in one folder, end with the report that it tells to look at."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    scripts = Path(sysconfig.get_path("scripts"))
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(blocks) > 2
    assert "<html" in (tmp_path / made / "report.html").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page points at a file of the project."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_two_commands_exist() -> None:
    """What the README tells newcomers to type are targets of the Makefile."""
    for verb in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{verb}:", (ROOT / "Makefile").read_text(), re.MULTILINE), verb
