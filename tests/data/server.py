"""A web server on this machine that misbehaves as it is told."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Answer = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.answers: list[Answer] = [whole]  # one a request; the last one again and again
        self.seen: list[dict[str, str]] = []  # the headers of every request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/breastmnist.npz?download=1"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that hang up are part of the tests


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def head(self, code: int, **headers: object) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    server = Server(content)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def whole(handler: Handler) -> None:
    """Send everything, whatever part is asked for."""
    handler.head(200, Content_Length=len(handler.server.content))
    handler.wfile.write(handler.server.content)


def ranged(*, drop_after: int | None = None, etag: str = '"one"', trusts: bool = True) -> Answer:
    """Honour Range, and If-Range too if it ``trusts``; hang up after some bytes."""

    def answer(handler: Handler) -> None:
        content, asked = handler.server.content, handler.headers.get("Range")
        common = {"ETag": etag, "Accept_Ranges": "bytes"}
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        if trusts and handler.headers.get("If-Range", etag) != etag:
            start = 0
        if start >= len(content):
            handler.head(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
            return
        body = content[start:]
        if start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.head(206, Content_Length=len(body), Content_Range=span, **common)
        else:
            handler.head(200, Content_Length=len(body), **common)
        handler.wfile.write(body[:drop_after])

    return answer


def drops(after: int) -> Answer:
    """Announce everything, send some of it, hang up."""

    def answer(handler: Handler) -> None:
        handler.head(200, Content_Length=len(handler.server.content))
        handler.wfile.write(handler.server.content[:after])

    return answer


def says(code: int, **headers: object) -> Answer:
    return lambda handler: handler.head(code, Content_Length=0, **headers)


def sends(body: bytes) -> Answer:
    """Send other bytes, unannounced."""

    def answer(handler: Handler) -> None:
        handler.head(200)
        handler.wfile.write(body)

    return answer
