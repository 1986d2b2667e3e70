"""A headless Chromium, driven over pipes by its DevTools protocol: pages as a reader has them, and what they did.

usage: python tests/browser.py PAGE FOLDER    (pictures of a page at two widths, light and dark)
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTHS, SCHEMES = (400, 1400), ("light", "dark")

# Evaluated in the page: what a reader cannot see of it, and whether it is readable.
MEASURE = """(() => {
  const root = document.documentElement, images = [...document.images];
  const seen = element => element.checkVisibility();
  const inside = element => element.closest('.table, .figure') !== null;
  return JSON.stringify({
    width: root.clientWidth,
    scroll_width: root.scrollWidth,
    too_wide: [...document.body.querySelectorAll('*')].filter(each => seen(each) && !inside(each)
      && each.getBoundingClientRect().right > root.clientWidth + 1).map(each => each.tagName),
    broken: images.filter(each => !each.complete || each.naturalWidth === 0).length,
    images: images.filter(seen).length,
    alts: images.map(each => each.alt),
    empty: [...document.querySelectorAll('section')].filter(each => each.children.length < 2).length,
    background: getComputedStyle(document.body).backgroundColor,
    colour: getComputedStyle(document.body).color,
    text: document.body.innerText,
  });
})()"""


def find_browser() -> str | None:
    """Return the path of an installed Chromium or Chrome; None without one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Seen:
    """A page as it was rendered.

    Attributes:
        measured: the values of MEASURE.
        requests: URLs that were asked for, other than the page itself and what it holds.
        complaints: errors and warnings on the console.
        picture: a PNG file of the whole page.
    """

    measured: dict[str, Any]
    requests: list[str]
    complaints: list[str]
    picture: bytes


class Browser:
    """A headless Chromium, started once for any number of pages, and ended by the `with` statement."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.TemporaryDirectory()
        commands, answers = os.pipe(), os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
        script = f'exec "$0" "$@" 3<&{commands[0]} 4>&{answers[1]}'
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        options += ["--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={self._profile.name}"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *options, "about:blank"],
            pass_fds=(commands[0], answers[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands[0])
        os.close(answers[1])
        self._commands, self._answers = os.fdopen(commands[1], "wb"), os.fdopen(answers[0], "rb")
        self._number, self._rest, self._events = 0, b"", list[dict[str, Any]]()
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._ask(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commands.close()
        self._process.terminate()
        self._process.wait()
        self._answers.close()
        self._profile.cleanup()

    def see(self, page: Path, width: int, scheme: str, *, still: bool = False) -> Seen:
        """Open a page and wait until it is loaded.

        Args:
            width: of the window, in pixels.
            scheme: "light" or "dark", as the reader prefers.
            still: whether the reader prefers reduced motion.
        """
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        motion = "reduce" if still else "no-preference"
        wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        self._ask("Emulation.setEmulatedMedia", features=[{"name": n, "value": v} for n, v in wishes.items()])
        self._events.clear()
        url = page.resolve().as_uri()
        self._ask("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._read())
        measured = json.loads(self.evaluate(MEASURE))
        picture = self._ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        asked = [e["params"]["request"]["url"] for e in self._events if e["method"] == "Network.requestWillBeSent"]
        entries = [e["params"]["entry"] for e in self._events if e["method"] == "Log.entryAdded"]
        complaints = [entry["text"] for entry in entries if entry["level"] in ("error", "warning")]
        complaints += [
            json.dumps(event["params"])
            for event in self._events
            if event["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        ]
        requests = [each for each in asked if each != url and not each.startswith("data:")]
        return Seen(measured, requests, complaints, base64.b64decode(picture))

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        return self._ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._call(method, self._session, **parameters)

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come before it are kept."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        self._commands.write(json.dumps(command | ({"sessionId": session} if session else {})).encode() + b"\0")
        self._commands.flush()
        while True:
            message = self._read()
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            if "method" in message:
                self._events.append(message)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            received = os.read(self._answers.fileno(), 2**16)
            if not received:
                raise RuntimeError("the browser has ended")
            self._rest += received
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


def main() -> None:
    """Write pictures of a page into a folder, and print what was measured."""
    page, folder = map(Path, sys.argv[1:])
    program = find_browser()
    if program is None:
        sys.exit("no Chromium is installed")
    folder.mkdir(parents=True, exist_ok=True)
    with Browser(program) as browser:
        for width in WIDTHS:
            for scheme in SCHEMES:
                seen = browser.see(page, width, scheme)
                (folder / f"{page.stem}_{width}_{scheme}.png").write_bytes(seen.picture)
                shown = {name: value for name, value in seen.measured.items() if name not in ("text", "alts")}
                print(width, scheme, shown, seen.requests, seen.complaints)


if __name__ == "__main__":
    main()
