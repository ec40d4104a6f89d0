"""Opens a report in a real browser without a window and checks that it stands on its own: no error in the console, no
request but for the file itself, nothing wider than the screen of a phone, a tablet or a desk, each light and dark, no
fault that axe finds; and prints it. Writes what it saw to OUT, for people.

Usage: browser.py OUT REPORT...   (needs Chromium; says so and does nothing where there is none; `make target/slow/axe` before)
"""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

AXE = pathlib.Path(__file__).parents[2] / "target/slow/axe/axe_playwright_python/axe.min.js"
SCREENS = {"phone": (390, 844), "tablet": (820, 1180), "desk": (1440, 900)}
NAMES = ["chromium", "chromium-browser", "google-chrome"]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe",
]


class Browser:
    """Chromium's DevTools protocol over a pair of pipes: JSON messages that end with a zero."""

    def __init__(self, program: str, profile: str) -> None:
        ours, self.into, self.out, theirs = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (*os.pipe(), *os.pipe()))

        def plug() -> None:
            os.dup2(ours, 3)
            os.dup2(theirs, 4)

        call = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(call, preexec_fn=plug, pass_fds=(3, 4), stderr=subprocess.DEVNULL)
        os.close(ours)
        os.close(theirs)
        self.numbers, self.buffer, self.events, self.session = itertools.count(1), b"", [], None

    def receive(self) -> dict:
        while b"\0" not in self.buffer:
            part = os.read(self.out, 1 << 16)
            assert part, "the browser ended"
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, **parameters) -> dict:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.into, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def wait(self, method: str) -> None:
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.receive())

    def open(self, url: str) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Network", "Runtime", "Log"]:
            self.call(f"{domain}.enable")
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait("Page.loadEventFired")

    def value(self, expression: str):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{expression[:200]}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def close(self) -> None:
        self.session = None
        os.write(self.into, b'{"id":0,"method":"Browser.close"}\0')
        self.process.wait(timeout=30)


# What sticks out to the right of the window and is not in a box that scrolls.
WIDER = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, nav, pre, svg')
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className).slice(0, 5)"""
# Texts of charts that are set smaller than one can read.
SMALL = """[...document.querySelectorAll('figure > svg text')].filter(e => e.getBoundingClientRect().height < 9)
    .map(e => e.textContent).slice(0, 5)"""


# Faults of accessibility, with the first element that has each.
FAULTS = """axe.run({resultTypes: ['violations']}).then(found => found.violations.map(
    v => `${v.id}: ${v.help}: ${v.nodes.length} times, ${v.nodes[0].html.slice(0, 200)} ${v.nodes[0].failureSummary}`))"""


def look(browser: Browser, report: pathlib.Path, out: pathlib.Path) -> None:
    """Looks at a page that is open."""
    name = f"{report.parent.name}-{report.stem}"
    browser.call("Runtime.evaluate", expression=AXE.read_text())
    for (screen, (width, height)), scheme in itertools.product(SCREENS.items(), ["light", "dark"]):
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=screen == "phone")
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        found = browser.value("document.documentElement.scrollWidth")
        assert found <= width, f"{report} on a {screen}: {found} wide, the screen has {width}: {browser.value(WIDER)}"
        assert not (wider := browser.value(WIDER)), f"{report} on a {screen}: {wider} stick out"
        assert not (small := browser.value(SMALL)), f"{report} on a {screen}: {small} are too small to read"
        assert not (faults := browser.value(FAULTS)), f"{report} on a {screen}, {scheme}:\n" + "\n".join(faults)
        picture = browser.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        (out / f"{name}-{screen}-{scheme}.png").write_bytes(base64.b64decode(picture))
    browser.call("Emulation.setEmulatedMedia", features=[])
    printed = base64.b64decode(browser.call("Page.printToPDF", printBackground=True)["data"])
    (out / f"{name}.pdf").write_bytes(printed)
    assert printed.startswith(b"%PDF") and len(printed) > 20_000, "hardly anything is printed"
    named = lambda method: [event["params"] for event in browser.events if event.get("method") == method]
    requests = {event["request"]["url"] for event in named("Network.requestWillBeSent")}
    outside = {url for url in requests if not url.startswith(("data:", report.resolve().as_uri()))}
    assert not outside, f"{report} asks for {outside}"
    said = [*named("Runtime.exceptionThrown"), *named("Runtime.consoleAPICalled"), *named("Log.entryAdded")]
    assert not said, f"{report}: {said}"
    charts = browser.value("document.querySelectorAll('figure > svg').length")
    print(f"{report}: {charts} charts, on {len(SCREENS)} screens, light and dark, and on paper")


@contextlib.contextmanager
def chromium():
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        print("no Chromium here: pages are not looked at (Debian: apt install chromium)")
        sys.exit()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        yield browser
        browser.close()


def main(out: pathlib.Path, *reports: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for report in reports:
            browser.open(report.resolve().as_uri())
            look(browser, report, out)


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
