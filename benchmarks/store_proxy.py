"""Between a service and its store: passes on what the store says, late, in pieces, or something else."""

import random
import socket
import threading
import time
from contextlib import suppress
from typing import Literal

Mode = Literal["pass", "slow", "trickle", "garbage", "other"]
SLOW_S = 0.2
TRICKLE_S = 0.01


class StoreProxy:
    """A TCP proxy on a free port; its `mode` says what becomes of what the store answers.

    pass: nothing. slow: 200 ms late. trickle: a byte every 10 ms. garbage: random bytes, as many. other: a
    good answer of the protocol, to another question.
    """

    def __init__(self, goal_port: int) -> None:
        self.mode: Mode = "pass"
        self._goal_port = goal_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._generator = random.Random(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        # The store may be gone: then the client hears that the connection ended.
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._goal_port)) as store:
            answers = threading.Thread(target=self._pump, args=(store, client, True), daemon=True)
            answers.start()
            self._pump(client, store, False)
            answers.join()

    def _pump(self, source: socket.socket, goal: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._pass_on(data, goal, is_answer)
        for end in (source, goal):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, data: bytes, goal: socket.socket, is_answer: bool) -> None:
        if is_answer and self.mode == "slow":
            time.sleep(SLOW_S)
        if is_answer and self.mode == "trickle":
            for byte in data:
                goal.sendall(bytes([byte]))
                time.sleep(TRICKLE_S)
        elif is_answer and self.mode == "garbage":
            goal.sendall(self._generator.randbytes(len(data)))
        elif is_answer and self.mode == "other":
            goal.sendall(b"$5\r\nhello\r\n:0\r\n")
        else:
            goal.sendall(data)
