"""Pages of the site made from other files: benchmark logs, examples, the reference of the public names, the changes."""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "forecast",
    "forecast.graph",
    "forecast.jump",
    "forecast.coordinates",
    "models",
    "models.coordinates",
    "codec",
    "codec.baselines",
    "codec.distributed",
    "codec.federated",
    "callbacks",
)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that no file of this folder holds."""
    # The folders are installed as parts of one package; links make them look so to what reads their source.
    package = ROOT / "build" / "reference" / "deadreckon"
    package.mkdir(parents=True, exist_ok=True)
    for folder in {name.split(".")[0] for name in PACKAGES}:
        if not (package / folder).is_symlink():
            (package / folder).symlink_to(ROOT / folder)
    pages = {"changes.md": (ROOT / "CHANGELOG.md").read_text(), "reference/index.md": _packages()}
    pages |= {f"reference/{name}.md": _reference(name) for name in PACKAGES}
    pages["examples/index.md"] = _examples()
    pages["benchmarks/index.md"] = (ROOT / "benchmarks" / "README.md").read_text()
    for log in sorted((ROOT / "benchmarks").glob("*.txt")):
        pages[f"benchmarks/{log.stem}.md"] = f"# {log.name}\n\n{_as_page(log.read_text())}\n"
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to benchmark logs, which are files in the source and pages here."""
    markdown = re.sub(r"\]\(\.\./docs/", "](../", markdown)
    markdown = re.sub(r"\]\(\.\./benchmarks/README\.md\)", "](benchmarks/index.md)", markdown)
    markdown = re.sub(r"\]\((?:\.\./)?benchmarks/(\w+)\.txt\)", r"](benchmarks/\1.md)", markdown)
    markdown = re.sub(r"\]\((?:\.\./)?(\.\./)examples/README\.md\)", _to_examples(page.file.src_path), markdown)
    if page.file.src_path == "examples/index.md":
        markdown = re.sub(r"\]\((\w+)\.(py|yaml)\)", r"](#\1\2)", markdown)
    if page.file.src_path == "benchmarks/index.md":
        markdown = re.sub(r"\]\((\w+)\.txt\)", r"](\1.md)", markdown)
    return markdown


def _as_page(text: str) -> str:
    """A log as it is; one that is Markdown already, tables and headings, is left to be read as that."""
    return text if re.search(r"^\|[ :-]*-{3}", text, re.MULTILINE) else f"```text\n{text.rstrip()}\n```"


def _to_examples(page: str) -> str:
    """The link from a page to the examples, whose page lies beside the benchmarks'."""
    return f"]({'../' * page.count('/')}examples/index.md)"


def _examples() -> str:
    """The table of the examples, and each file as it is."""
    parts = [(ROOT / "examples" / "README.md").read_text()]
    for path in sorted((ROOT / "examples").glob("*.*")):
        if path.suffix in (".py", ".yaml"):
            language = {".py": "python", ".yaml": "yaml"}[path.suffix]
            parts.append(f"## {path.name}\n\n```{language}\n{path.read_text()}```\n")
    return "\n".join(parts)


def _packages() -> str:
    lines = ["# Reference", "", "Everything public. Names that a package does not list may change any day.", ""]
    lines += [f"* [`deadreckon.{name}`]({name}.md): {_first_line(name)}" for name in PACKAGES]
    return "\n".join(lines) + "\n"


def _reference(name: str) -> str:
    lines = [f"# deadreckon.{name}", "", _first_line(name), ""]
    for public in _public_names(name):
        lines += [f"::: deadreckon.{name}.{public}", ""]
    return "\n".join(lines)


def _source(name: str) -> ast.Module:
    return ast.parse((ROOT / name.replace(".", "/") / "__init__.py").read_text())


def _first_line(name: str) -> str:
    return (ast.get_docstring(_source(name)) or "").split("\n")[0]


def _public_names(name: str) -> list[str]:
    for node in _source(name).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return sorted(ast.literal_eval(node.value), key=str.lower)
    raise ValueError(f"deadreckon.{name} has no `__all__`.")
