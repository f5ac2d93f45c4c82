"""Uvicorn, told to say when it answers, and to end quietly when it is asked to."""

import contextlib
import signal
import socket
from collections.abc import Callable, Generator

import uvicorn


class Server(uvicorn.Server):
    """A server that ends with the requests under way, and whose process then ends as it likes.

    Args:
        config: of uvicorn.
        ready: called once it answers.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop at a signal. Uvicorn's own raises it again at the end, so that a clean stop looks like a failure."""
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
