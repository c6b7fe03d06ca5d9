"""MongoDB's wire protocol in front of mongomock: what a real application server needs to believe in its database.

It is a thread of the tests, so they can look into `database` and change it. Every command is one step under one lock.
All documents of an answer come in the first batch, so no client ever needs `getMore`.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterable
from typing import Any

import bson
import mongomock
from pymongo.errors import DuplicateKeyError, OperationFailure

Document = dict[str, Any]
HEADER = struct.Struct("<iiii")
OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
CHECKSUM, MORE_TO_COME = 1, 2
NAMESPACE_NOT_FOUND, COMMAND_NOT_FOUND, DUPLICATE_KEY = 26, 59, 11000

HELLO: Document = {
    "helloOk": True,
    "ismaster": True,
    "isWritablePrimary": True,
    "maxBsonObjectSize": 16 << 20,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "logicalSessionTimeoutMinutes": 30,
    "minWireVersion": 0,
    "maxWireVersion": 21,
    "readOnly": False,
}


class Shim:
    """A database server on a free port of the loopback interface; `complaints` holds what it could not do.

    `before` sees every command before it is run, outside of the lock: it may wait for another one, or raise an
    `OperationFailure`, which is what the client gets then.
    """

    def __init__(self) -> None:
        self.client: Any = mongomock.MongoClient()
        self.complaints: list[str] = []
        self.before: Callable[[Document], object] = lambda command: None
        self.lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def run(self, command: Document) -> Document:
        name = next(iter(command))
        act = COMMANDS.get(name.lower())
        if act is None:
            return self._refuse(command, COMMAND_NOT_FOUND, f"no such command: '{name}'")
        try:
            self.before(command)
            with self.lock:
                return {**act(self.client[command.get("$db", "admin")], command), "ok": 1.0}
        except OperationFailure as error:
            return {"ok": 0.0, "errmsg": str(error), "code": error.code or 1}
        except Exception as error:  # mongomock says in many ways that it cannot do something
            return self._refuse(command, 1, f"{type(error).__name__}: {error}")

    def _refuse(self, command: Document, code: int, message: str) -> Document:
        self.complaints.append(f"{message} in {command}")
        return {"ok": 0.0, "errmsg": message, "code": code}


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], shim: Shim) -> None:
        self.shim = shim
        super().__init__(address, _Connection)


class _Connection(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                length, number, _, kind = HEADER.unpack(self._read(HEADER.size))
                payload = self._read(length - HEADER.size)
                if kind == OP_QUERY:
                    self._answer(
                        number, OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1), self.server.shim.run(query(payload))
                    )
                elif kind == OP_MSG:
                    flags, command = message(payload)
                    answer = self.server.shim.run(command)
                    if not flags & MORE_TO_COME:
                        self._answer(number, OP_MSG, struct.pack("<IB", 0, 0), answer)
                else:
                    raise EOFError

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self.request.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def _answer(self, number: int, kind: int, prefix: bytes, document: Document) -> None:
        body = prefix + bson.encode(document)
        self.request.sendall(HEADER.pack(HEADER.size + len(body), 0, number, kind) + body)


def query(payload: bytes) -> Document:
    """The command of an OP_QUERY, in which drivers still wrap their first hello."""
    end = payload.index(0, 4)
    return documents(payload[end + 1 + 8 :])[0]


def message(payload: bytes) -> tuple[int, Document]:
    """The flags and the command of an OP_MSG, with the documents of its sequences put in."""
    (flags,) = struct.unpack_from("<I", payload)
    at, end = 4, len(payload) - (4 if flags & CHECKSUM else 0)
    command: Document = {}
    sequences: Document = {}
    while at < end:
        sequence, at = payload[at], at + 1
        (size,) = struct.unpack_from("<i", payload, at)
        section, at = payload[at : at + size], at + size
        if sequence:
            cut = section.index(0, 4)
            sequences[section[4:cut].decode()] = documents(section[cut + 1 :])
        else:
            command = bson.decode(section)
    return flags, command | sequences


def documents(data: bytes) -> list[Document]:
    return list(bson.decode_iter(data))


# --- The commands ---------------------------------------------------------------------------------------------------


def nothing(database: Any, command: Document) -> Document:
    return {}


def hello(database: Any, command: Document) -> Document:
    return HELLO


def build_info(database: Any, command: Document) -> Document:
    return {"version": "7.0.0", "versionArray": [7, 0, 0, 0], "gitVersion": "", "bits": 64, "debug": False}


def cursor(found: Iterable[Document], namespace: str) -> Document:
    return {"cursor": {"id": 0, "ns": namespace, "firstBatch": list(found)}}


def find(database: Any, command: Document) -> Document:
    found = database[command["find"]].find(
        command.get("filter", {}),
        command.get("projection") or None,
        skip=command.get("skip", 0),
        limit=abs(command.get("limit", 0)),
        sort=list(command["sort"].items()) if command.get("sort") else None,
    )
    return cursor(found, f"{database.name}.{command['find']}")


def aggregate(database: Any, command: Document) -> Document:
    found = database[command["aggregate"]].aggregate(command["pipeline"])
    return cursor(found, f"{database.name}.{command['aggregate']}")


def count(database: Any, command: Document) -> Document:
    return {"n": database[command["count"]].count_documents(command.get("query", {}))}


def distinct(database: Any, command: Document) -> Document:
    return {"values": database[command["distinct"]].distinct(command["key"], command.get("query", {}))}


def insert(database: Any, command: Document) -> Document:
    done, errors = 0, []
    for index, document in enumerate(command["documents"]):
        try:
            database[command["insert"]].insert_one(document)
            done += 1
        except DuplicateKeyError as error:
            errors.append({"index": index, "code": DUPLICATE_KEY, "errmsg": str(error)})
            if command.get("ordered", True):
                break
    return {"n": done} | ({"writeErrors": errors} if errors else {})


def update(database: Any, command: Document) -> Document:
    matched, modified, upserted = 0, 0, []
    collection = database[command["update"]]
    for index, one in enumerate(command["updates"]):
        if not next(iter(one["u"]), "").startswith("$"):
            done = collection.replace_one(one["q"], one["u"], upsert=one.get("upsert", False))
        else:
            change = collection.update_many if one.get("multi") else collection.update_one
            done = change(one["q"], one["u"], upsert=one.get("upsert", False))
        matched, modified = matched + done.matched_count, modified + done.modified_count
        if done.upserted_id is not None:
            matched += 1
            upserted.append({"index": index, "_id": done.upserted_id})
    return {"n": matched, "nModified": modified} | ({"upserted": upserted} if upserted else {})


def delete(database: Any, command: Document) -> Document:
    collection, done = database[command["delete"]], 0
    for one in command["deletes"]:
        remove = collection.delete_one if one.get("limit") else collection.delete_many
        done += remove(one["q"]).deleted_count
    return {"n": done}


def find_and_modify(database: Any, command: Document) -> Document:
    collection = database[command["findAndModify"]]
    more: Document = {"projection": command.get("fields"), "sort": list(command.get("sort", {}).items()) or None}
    if command.get("remove"):
        return {"value": collection.find_one_and_delete(command.get("query", {}), **more)}
    change, new = command["update"], command.get("upsert", False)
    act = collection.find_one_and_update if next(iter(change)).startswith("$") else collection.find_one_and_replace
    return {
        "value": act(command.get("query", {}), change, upsert=new, return_document=command.get("new", False), **more)
    }


def create(database: Any, command: Document) -> Document:
    database.create_collection(command["create"])
    return {}


def coll_mod(database: Any, command: Document) -> Document:
    if command["collMod"] not in database.list_collection_names():
        raise OperationFailure("ns does not exist", NAMESPACE_NOT_FOUND)
    return {}


def drop(database: Any, command: Document) -> Document:
    database.drop_collection(command["drop"])
    return {}


def list_collections(database: Any, command: Document) -> Document:
    names = database.list_collection_names()
    found = ({"name": name, "type": "collection", "options": {}} for name in names)
    return cursor(found, f"{database.name}.$cmd.listCollections")


def create_indexes(database: Any, command: Document) -> Document:
    for index in command["indexes"]:
        options = {key: index[key] for key in ("name", "unique", "sparse", "expireAfterSeconds") if key in index}
        database[command["createIndexes"]].create_index(list(index["key"].items()), **options)
    return {}


def list_indexes(database: Any, command: Document) -> Document:
    name = command["listIndexes"]
    if name not in database.list_collection_names():
        raise OperationFailure("ns does not exist", NAMESPACE_NOT_FOUND)
    return cursor(
        [{**index, "key": dict(index["key"])} for index in database[name].list_indexes()], f"{database.name}.{name}"
    )


def drop_indexes(database: Any, command: Document) -> Document:
    database[command["dropIndexes"]].drop_index(command["index"])
    return {}


COMMANDS: dict[str, Callable[[Any, Document], Document]] = {
    "hello": hello,
    "ismaster": hello,
    "buildinfo": build_info,
    "ping": nothing,
    "endsessions": nothing,
    "killcursors": nothing,
    "find": find,
    "aggregate": aggregate,
    "count": count,
    "distinct": distinct,
    "insert": insert,
    "update": update,
    "delete": delete,
    "findandmodify": find_and_modify,
    "create": create,
    "collmod": coll_mod,
    "drop": drop,
    "listcollections": list_collections,
    "createindexes": create_indexes,
    "listindexes": list_indexes,
    "dropindexes": drop_indexes,
}
