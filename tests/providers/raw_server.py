"""A server on loopback that does with its connections whatever a test wants."""

import contextlib
import socket
import threading
import time

from providers.contract import HttpRequest

KEY = "key_" + "ab12" * 16
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n" + b'{"id":"j1"}'


class Server:
    """Accepts connections and hands each to `behave(connection, request_bytes)`; keeps what arrived."""

    def __init__(self, behave, *, keep_alive=False, read_first=True):
        self.behave, self.keep_alive, self.read_first = behave, keep_alive, read_first
        self.requests: list[bytes] = []
        self.connections = 0
        self.stopping = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.stopping.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError):
            while True:
                received = self._read_request(connection) if self.read_first else b""
                if self.read_first and not received:
                    return
                self.requests.append(received)
                self.behave(connection, received)
                if not self.keep_alive:
                    return

    @staticmethod
    def _read_request(connection):
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                return data
            data += part
        head, body = data.split(b"\r\n\r\n", 1)
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self):
        self.stopping.set()
        self.listener.close()


def get(url, path="/v1/tasks/1"):
    return HttpRequest("GET", url + path, {"Authorization": f"Bearer {KEY}"}, params={"task_ids": "sig-secret"})


def answer(data):
    return lambda connection, _: connection.sendall(data)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def drip(data, every_s=0.02):
    def behave(connection, _):
        for index in range(len(data)):
            connection.sendall(data[index : index + 1])
            time.sleep(every_s)

    return behave
