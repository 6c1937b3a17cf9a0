"""A real Firefox, driven by WebDriver BiDi over its own web socket: no geckodriver, no patched build.

Only what the tests need: https://w3c.github.io/webdriver-bidi/ has the rest.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

STARTED = "WebDriver BiDi listening on "
START_TIMEOUT_S = 60
ANSWER_TIMEOUT_S = 60
POLL_S = 0.1
PREFERENCES: dict[str, bool | int | str] = {
    "media.navigator.permission.disabled": True,  # nobody is there to allow the microphone
    "media.navigator.streams.fake": True,  # a tone
    "media.autoplay.default": 0,
    "media.peerconnection.ice.loopback": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    # Nothing is asked of anybody else.
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}


def firefox_path() -> str | None:
    return shutil.which("firefox-esr") or shutil.which("firefox")


class FirefoxPage:
    """One tab. Errors of the page's own scripts are written to `complaints`."""

    def __init__(self, socket: ClientConnection, context: str) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._context = context
        self._numbers = itertools.count(1)

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result; raises `RuntimeError` for an error."""
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while True:
                message = json.loads(await self._socket.recv())
                if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                    self.complaints.append(str(message["params"]["text"]))
                if message.get("id") == number:
                    if message["type"] == "error":
                        raise RuntimeError(f"{method}: {message['message']}")
                    result: dict[str, Any] = message["result"]
                    return result

    async def open(self, url: str) -> None:
        await self.command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def before_scripts(self, function: str) -> None:
        """Runs `function` (JavaScript) in every document before its own scripts."""
        await self.command("script.addPreloadScript", functionDeclaration=function)

    async def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression gives, promises awaited; it must be JSON."""
        answer = await self.command(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then((value) => JSON.stringify(value) ?? null)",
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        text = answer["result"].get("value")
        return None if text is None else json.loads(text)

    async def until(self, expression: str, *, timeout_s: float) -> None:
        """Until the expression is true; `TimeoutError` says what the page showed instead."""
        end = asyncio.get_running_loop().time() + timeout_s
        while not await self.evaluate(expression):
            if asyncio.get_running_loop().time() > end:
                raise TimeoutError(
                    f"{expression} never came true: {await self.evaluate('document.body.innerText')}"
                )
            await asyncio.sleep(POLL_S)

    async def click(self, selector: str) -> None:
        """A real press of the left button in the middle of the element."""
        quoted = json.dumps(selector)
        x, y = await self.evaluate(
            f"(() => {{ const element = document.querySelector({quoted});"
            " element.scrollIntoView({ block: 'center' });"
            " const box = element.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2].map(Math.round); })()"
        )
        press = [
            {"type": "pointerMove", "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "actions": press}
        await self.command("input.performActions", context=self._context, actions=[mouse])

    async def screenshot(self, path: Path) -> None:
        answer = await self.command("browsingContext.captureScreenshot", context=self._context)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))


@contextlib.asynccontextmanager
async def firefox_page(
    profile: Path, preferences: dict[str, Any] | None = None
) -> AsyncIterator[FirefoxPage]:
    """A Firefox without a window and without a sound output, and its tab; `profile` is an empty folder for it."""
    lines = [
        f"user_pref({json.dumps(name)}, {json.dumps(value)});"
        for name, value in (PREFERENCES | (preferences or {})).items()
    ]
    (profile / "user.js").write_text("\n".join(lines))
    process = await asyncio.create_subprocess_exec(
        str(firefox_path()),
        *(
            "--headless",
            "--no-remote",
            "--remote-debugging-port",
            "0",
            "--profile",
            str(profile),
            "about:blank",
        ),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"HOME": str(profile), "PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(profile)},
    )
    assert process.stderr is not None
    reading: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while STARTED not in (line := (await process.stderr.readline()).decode()):
                if not line:
                    raise RuntimeError("Firefox ended before it was ready.")
        reading = asyncio.create_task(_drain(process.stderr))
        address = line.partition(STARTED)[2].strip()
        async with connect(f"{address}/session", max_size=None) as socket:
            page = FirefoxPage(socket, "")
            await page.command("session.new", capabilities={})
            await page.command("session.subscribe", events=["log.entryAdded"])
            tree = await page.command("browsingContext.getTree")
            page._context = tree["contexts"][0]["context"]
            yield page
            await page.open("about:blank")  # pages say goodbye to the server
            await page.command("browser.close")
    finally:
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            async with asyncio.timeout(10):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        if reading is not None:
            await reading


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass
