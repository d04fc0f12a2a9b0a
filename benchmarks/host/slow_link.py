"""A link with a delay: hands on TCP connections, each piece of data some milliseconds later.

A stand-in for `tc … netem delay`, which needs a kernel module and root.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PIECE_BYTES = 1 << 16


@contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """Yield a port of loopback behind which `port` lies, with `seconds` of delay each way."""
    loop = asyncio.new_event_loop()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the end
            there, back = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_hand_on(reader, back, seconds), _hand_on(there, writer, seconds))

    server = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_ended(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _ended() -> None:
    """Cancel what still hands on."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _hand_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_PIECE_BYTES):
            loop.call_later(seconds, writer.write, data)
    loop.call_later(seconds, writer.close)
