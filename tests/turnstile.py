"""Stores whose requests wait for one another: that they are on their way together."""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore, WrapperStore


class Turnstile:
    """Lets nobody pass until so many wait."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.waiting, self.opened = wanted, 0, asyncio.Event()
        self.chunks = 0
        """That came to it."""

    async def passed(self) -> None:
        self.waiting += 1
        if self.waiting >= self.wanted:
            self.opened.set()
        await asyncio.wait_for(self.opened.wait(), 60)


class Gate(WrapperStore):
    """A store whose chunks stand behind a turnstile."""

    def __init__(self, path: Path, turnstile: Turnstile) -> None:
        super().__init__(LocalStore(path, read_only=True))
        self.turnstile = turnstile

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        if "c/" in key:
            self.turnstile.chunks += 1
            await self.turnstile.passed()
        return await super().get(key, *arguments, **options)


def gated(path: str, turnstile: Turnstile) -> Any:
    return zarr.open_array(Gate(Path(path), turnstile), mode="r")


class Together(WrapperStore):
    """A store each of whose requests of a group passes once all of them wait.

    groups: of requests by "get" or "set" and the beginnings of their keys.
    """

    def __init__(self, store: LocalStore, *groups: Collection[str]) -> None:
        super().__init__(store)
        self.gates = {
            request: turnstile
            for group in groups
            for turnstile in [Turnstile(len(group))]
            for request in group
        }

    async def _pass(self, request: str) -> None:
        for beginning, turnstile in self.gates.items():
            if request.startswith(beginning):
                await turnstile.passed()

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        await self._pass(f"get {key}")
        return await super().get(key, *arguments, **options)

    async def set(self, key: str, *arguments: Any, **options: Any) -> None:
        await self._pass(f"set {key}")
        await super().set(key, *arguments, **options)
