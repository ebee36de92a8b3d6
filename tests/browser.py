"""A headless Chromium, driven through its debugging pipe, without any library."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str | None:
    """Where Chromium is; None where it is not installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """An open page.

    Args:
        send: a command and its parameters; returns the answer.
        messages: what the console and the log have said so far.
    """

    def __init__(self, send: Any, messages: list[str]) -> None:
        self._send = send
        self.messages = messages

    def open(self, path: Path, width: int, scheme: str) -> None:
        """Load a file at a width, in a colour scheme."""
        self._send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.media("screen", scheme)
        self._send("Page.navigate", url=path.resolve().as_uri())
        loaded = "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))"
        self.value(loaded)

    def media(self, kind: str, scheme: str) -> None:
        """Show it on a screen or as on paper, in a colour scheme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._send("Emulation.setEmulatedMedia", media=kind, features=features)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives."""
        answer = self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, left: float, top: float, width: float, height: float) -> bytes:
        """A part of the page as PNG."""
        clip = {"x": left, "y": top, "width": width, "height": height, "scale": 1}
        answer = self._send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    def pdf(self) -> bytes:
        """The page on paper."""
        return base64.b64decode(self._send("Page.printToPDF", paperWidth=8.27, paperHeight=11.7)["data"])


@contextmanager
def open_browser(program: str, folder: Path) -> Iterator[Page]:
    """A browser with one empty page.

    Args:
        program: Chromium.
        folder: for its profile.
    """
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()

    def wire() -> None:  # Chromium reads commands from descriptor 3 and writes answers to 4
        first, second = os.dup(commands_out), os.dup(answers_in)
        os.dup2(first, 3)
        os.dup2(second, 4)

    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
    process = subprocess.Popen(
        [program, *flags, f"--user-data-dir={folder}", "about:blank"],
        preexec_fn=wire,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands_out)
    os.close(answers_in)
    messages: list[str] = []
    with os.fdopen(commands_in, "wb") as commands, os.fdopen(answers_out, "rb") as answers:
        state: dict[str, Any] = {"number": 0, "session": None, "rest": b""}

        def send(method: str, **parameters: Any) -> Any:
            state["number"] += 1
            number = state["number"]
            text: dict[str, Any] = {"id": number, "method": method, "params": parameters}
            if state["session"] is not None:
                text["sessionId"] = state["session"]
            commands.write(json.dumps(text).encode() + b"\0")
            commands.flush()
            while True:
                while b"\0" not in state["rest"]:
                    part = os.read(answers.fileno(), 65536)
                    assert part, "the browser has ended"
                    state["rest"] += part
                one, _, state["rest"] = state["rest"].partition(b"\0")
                answer = json.loads(one)
                if answer.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                    messages.append(json.dumps(answer["params"])[:500])
                if answer.get("id") == number:
                    assert "error" not in answer, answer
                    return answer["result"]

        try:
            target = send("Target.createTarget", url="about:blank")["targetId"]
            state["session"] = send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                send(f"{domain}.enable")
            yield Page(send, messages)
            state["session"] = None
            send("Browser.close")
            process.wait(timeout=20)
        finally:
            process.kill()
            process.wait()
