"""A transport whose replies are a list: statuses and headers, or what is raised; no network."""

from __future__ import annotations

from collections.abc import Mapping

from ppcli.target import Body
from ppcli.transport import Reply, Request, Transport
from ppcli.transport.refusals import refusal

BASE = "http://127.0.0.1:1"
ONLY_CREATION = {"Tus-Version": "1.0.0", "Tus-Extension": "creation"}
Answer = tuple[int, Mapping[str, str]] | Exception


class Script(Transport):
    """Answers from a list; keeps what was asked, with the bytes of bodies. OPTIONS has an answer of its own."""

    def __init__(self, *answers: Answer, offer: Mapping[str, str] = ONLY_CREATION) -> None:
        super().__init__(BASE)
        self.answers = list(answers)
        self.offer: Answer = (204, offer)
        self.asked: list[tuple[str, str, Mapping[str, str], bytes]] = []

    def send(self, request: Request, body: Body | None = None) -> Reply:
        sent = b"".join(bytes(piece) for piece in body) if body is not None else request.content
        answer = self.offer
        if request.method != "OPTIONS":
            self.asked.append((request.method, request.path, request.headers, sent))
            answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, headers = answer
        reply = Reply(status, {name.lower(): value for name, value in headers.items()}, b"")
        if 200 <= status < 300 or status in request.expect:
            return reply
        raise refusal(self.origin, reply)
