"""Tables in Markdown."""

from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], num_text: int = 1) -> str:
    """A Markdown table whose columns line up.

    Args:
        columns: headings.
        rows: cells.
        num_text: columns from the left that are text; the rest are numbers.
    """
    cells = [[" ".join(str(text).replace("|", "/").split()) for text in row] for row in (columns, *rows)]
    widths = [max(3, *(len(row[index]) for row in cells)) for index in range(len(columns))]
    lines = [
        "| "
        + " | ".join(
            text.ljust(width) if index < num_text else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in cells
    ]
    rule = "".join(
        "|" + ("-" * (width + 2) if index < num_text else "-" * (width + 1) + ":") for index, width in enumerate(widths)
    )
    return "\n".join([lines[0], rule + "|", *lines[1:]])
