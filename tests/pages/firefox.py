"""A Firefox of the machine, driven by Marionette: the protocol that Firefox itself speaks, over a socket.

Playwright drives only a Firefox of its own, Selenium needs a driver that is downloaded; Debian's Firefox
needs neither. A message is its length, a colon, and JSON: `[0, id, command, arguments]`, answered by
`[1, id, error, answer]`.
"""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("firefox-esr", "firefox")


def find_firefox() -> str | None:
    """The program, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Firefox:
    """A headless Firefox with a profile of its own.

    Args:
        program: the browser.
        folder: gets the profile.
    """

    def __init__(self, program: str, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = {"marionette.port": port, "app.update.enabled": False, "dom.w3c_touch_events.enabled": 1}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in settings.items()]
        (folder / "user.js").write_text("".join(lines))
        self.socket: socket.socket | None = None
        self.process = subprocess.Popen(
            [program, "--headless", "--marionette", "--no-remote", "--profile", str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self.socket = self._connect(port)
            self.file = self.socket.makefile("rb")
            self._read()  # it introduces itself
            self.number = 0
            self.ask("WebDriver:NewSession")
            self.ask("WebDriver:SetWindowRect", width=1440, height=1000)
        except BaseException:
            self.kill()
            raise

    def _connect(self, port: int) -> socket.socket:
        end = time.monotonic() + 120
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=120)
            except ConnectionRefusedError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise
                time.sleep(0.2)

    def _read(self) -> Any:
        length = b""
        while not length.endswith(b":"):
            length += self.file.read(1) or b":"
        return json.loads(self.file.read(int(length[:-1])))

    def ask(self, command: str, **arguments: Any) -> Any:
        """The answer to a command; an error is raised with the browser's own words."""
        self.number += 1
        data = json.dumps([0, self.number, command, arguments]).encode()
        self.socket.sendall(b"%d:%s" % (len(data), data))
        _, _, error, answer = self._read()
        if error:
            raise AssertionError(f"{command}: {error['message']}")
        return answer["value"] if isinstance(answer, dict) and set(answer) == {"value"} else answer

    def open(self, url: str) -> None:
        """Goes to an address."""
        self.ask("WebDriver:Navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """What an expression of the page gives."""
        return self.ask("WebDriver:ExecuteScript", script=f"return {script}", args=[])

    def until(self, script: str, seconds: float = 60) -> Any:
        """Waits until an expression holds."""
        end = time.monotonic() + seconds
        while not (found := self.evaluate(script)):
            assert time.monotonic() < end, f"not within {seconds} seconds: {script}"
            time.sleep(0.05)
        return found

    def press(self, *keys: str) -> None:
        """Presses keys together, the last one last."""
        down = [{"type": "keyDown", "value": key} for key in keys]
        up = [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self.ask("WebDriver:PerformActions", actions=[{"type": "key", "id": "keys", "actions": down + up}])

    def type(self, text: str) -> None:
        """Types a text."""
        for letter in text:
            self.press(letter)

    def drag(self, kind: str, *paths: list[tuple[float, float]]) -> None:
        """Drags a mouse or fingers (`kind` "mouse" or "touch"), each along its path."""
        actions = []
        for number, (start, *rest) in enumerate(paths):
            steps: list[dict[str, Any]] = [_to(start), {"type": "pointerDown", "button": 0}]
            steps += [_to(place) for place in rest]
            steps.append({"type": "pointerUp", "button": 0})
            pointer = {"type": "pointer", "id": f"{kind}{number}", "actions": steps}
            actions.append(pointer | {"parameters": {"pointerType": kind}})
        self.ask("WebDriver:PerformActions", actions=actions)

    def kill(self) -> None:
        """Ends the browser."""
        self.process.kill()
        self.process.wait()
        if self.socket is not None:
            self.file.close()
            self.socket.close()


def _to(place: tuple[float, float]) -> dict[str, Any]:
    return {"type": "pointerMove", "x": round(place[0]), "y": round(place[1]), "duration": 30}
