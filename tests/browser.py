"""A headless browser, asked over its debugging protocol."""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.websocket import websocket_connect

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


@contextmanager
def browser(profile: Path) -> Iterator[str]:
    """The address of a browser of our own; where there is none, skips, or fails if CI=true."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no chromium on PATH: apt-get install chromium")
        pytest.skip("no chromium on PATH")
    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        started = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 240
        while not (started.exists() and len(started.read_text().splitlines()) == 2):
            assert process.poll() is None, "the browser ended"
            assert time.monotonic() < deadline, "the browser did not start"
            time.sleep(0.05)
        port, path = started.read_text().splitlines()
        yield f"ws://127.0.0.1:{port}{path}"
    finally:
        process.terminate()
        process.wait()


async def look(address: str, url: str, width: int, questions: list[str]) -> dict[str, Any]:
    """Open a page in a window so wide: what it asked for and complained of, and some answers."""
    seen: dict[str, Any] = {"urls": [], "complaints": []}
    connection = await websocket_connect(address)
    number, session = 0, {}

    async def ask(method: str, **parameters: Any) -> Any:
        nonlocal number
        number += 1
        wanted = number
        message = {"id": number, "method": method, "params": parameters, **session}
        await connection.write_message(json.dumps(message))
        while True:
            answer = await hear()
            if answer.get("id") == wanted:
                assert "error" not in answer, answer
                return answer["result"]

    async def hear() -> Any:
        message = json.loads(str(await connection.read_message()))
        method, parameters = message.get("method"), message.get("params")
        if method == "Network.requestWillBeSent":
            seen["urls"].append(parameters["request"]["url"])
        elif method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            seen["complaints"].append(parameters)
        return message

    target = await ask("Target.createTarget", url="about:blank")
    attached = await ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
    session = {"sessionId": attached["sessionId"]}
    for domain in ("Page", "Network", "Log", "Runtime"):
        await ask(f"{domain}.enable")
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    await ask("Emulation.setDeviceMetricsOverride", **size)
    await ask("Page.navigate", url=url)
    while (await hear()).get("method") != "Page.loadEventFired":
        pass
    answers = [await ask("Runtime.evaluate", expression=q, returnByValue=True) for q in questions]
    seen["answers"] = [answer["result"]["value"] for answer in answers]
    connection.close()
    while await connection.read_message() is not None:
        pass
    return seen


def look_at(address: str, url: str, width: int, questions: list[str]) -> dict[str, Any]:
    """`look`, in a thread, since asyncio.run takes the event loop of the one that it runs in."""
    seen = asyncio.wait_for(look(address, url, width, questions), 240)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, seen).result()
