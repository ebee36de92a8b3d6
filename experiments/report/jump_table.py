"""The table of every opportunity to jump."""

from collections.abc import Mapping, Sequence
from typing import Any

from . import html as web

MAX_JUMP_ROWS = 500


def jump_table(jumps: Sequence[Mapping[str, Any]]) -> str:
    """All of them, folded; beyond `MAX_JUMP_ROWS` the data alone have them."""
    columns = ["outcome", "step", "horizon", "loss before", "loss after", "margin", "credited steps", "regime"]
    rows = [
        [
            str(jump.get("meaning", jump["outcome"])),
            jump["step"],
            jump["horizon"],
            web.number(jump["loss_before"], ".4f"),
            web.number(jump["loss_after"], ".4f"),
            web.number(jump["margin"], "+.2g"),
            web.number(jump["credited"], "+.3g"),
            str(jump["regime"]),
        ]
        for jump in jumps[:MAX_JUMP_ROWS]
    ]
    left = len(jumps) - len(rows)
    title = "Every opportunity to jump" + (f" (the last {left} are in the data only)" if left else "")
    return web.folded(title, web.table(columns, rows))
