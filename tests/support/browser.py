"""Headless Chromium, driven through chromedriver: open, measure, photograph and print pages."""

import base64
import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

FLAGS = [
    "--headless",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]


def missing() -> str:
    """The reason why no browser can be started here; empty if one can."""
    gone = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"not installed: {', '.join(gone)} (Debian's chromium and chromium-driver)" if gone else ""


class Browser:
    """One window of the browser. Widths are in CSS pixels."""

    def __init__(self, session: httpx.Client) -> None:
        self._session = session

    def _do(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        reply = self._session.request(method, path, json=body)
        value = reply.json()["value"]
        assert reply.status_code == 200, value
        return value

    def _command(self, name: str, **parameters: Any) -> Any:
        return self._do("POST", "goog/cdp/execute", {"cmd": name, "params": parameters})

    def open(self, page: Path, *, width: int = 1280, dark: bool = False) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._command("Emulation.setEmulatedMedia", media="", features=[scheme])
        self._command(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self._do("POST", "url", {"url": page.absolute().as_uri()})

    def run(self, script: str) -> Any:
        return self._do("POST", "execute/sync", {"script": script, "args": []})

    def console_messages(self) -> list[str]:
        """The messages of the console since the last call."""
        return [entry["message"] for entry in self._do("POST", "se/log", {"type": "browser"})]

    def photograph(self, path: Path, height: int = 0) -> None:
        """Save an image of the whole page, or of its first `height` pixels."""
        size = self._command("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        shot = self._command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def print_to(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._do("POST", "print", {"page": {"width": 21.0, "height": 29.7}})))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser with its profile in an empty folder, and end it with the block."""
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        port = next(found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
        options = {"args": [*FLAGS, f"--user-data-dir={folder}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        address = f"http://127.0.0.1:{port}/session"
        with httpx.Client(timeout=60, trust_env=False) as client:
            made = client.post(address, json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
            with httpx.Client(base_url=f"{address}/{made['sessionId']}/", timeout=60, trust_env=False) as session:
                try:
                    yield Browser(session)
                finally:
                    client.delete(f"{address}/{made['sessionId']}")
    finally:
        driver.terminate()
        driver.communicate(timeout=20)
