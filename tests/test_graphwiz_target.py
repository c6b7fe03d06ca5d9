"""The command against a GraphWiz server as the real one behaves: what it forgets, cuts or mangles is no success."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_chunks
from cli_kit import Cli
from graphwiz_kit import GraphWizServer, Handler, running_graphwiz
from harness import quick_retries
from http_kit import Bytes
from hypothesis import given
from hypothesis import strategies as st
from server_kit import ServerProcess, running_server

from ppcli.errors import Usage
from ppcli.targets import graphwiz, graphwiz_known
from ppcli.targets.graphwiz_api import Kind
from ppcli.targets.graphwiz_form import FormBody
from ppcli.targets.graphwiz_known import kind_of

CHUNK = 4096
SIZE = 3 * CHUNK + 5


@pytest.fixture
def server() -> Iterator[GraphWizServer]:
    with running_graphwiz() as running:
        running.chunk_bounds = (1, 20 << 20)
        yield running


@pytest.fixture
def box(root: Path, server: GraphWizServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    small_chunks.allow(monkeypatch.setattr)
    with quick_retries():
        yield Cli(root, server.url)


def content(cli: Cli, name: str = "a.glb", size: int = SIZE) -> bytes:
    data = random.Random(cli.to + name).randbytes(size)
    (cli.root / name).write_bytes(data)
    return data


def put(cli: Cli, *words: str, code: int = 0) -> dict[str, object]:
    ran = cli.json("put", "--chunk-size", str(CHUNK), *words)
    assert ran.code == code, ran.result
    return ran.result


class Once:
    """Cuts the reply to the `nth` request that fits, once; `also` happens to the server then."""

    def __init__(self, what: str, nth: int = 1, also: object = None) -> None:
        self.what, self.left, self.also = what, nth, also

    def __call__(self, handler: Handler) -> bool:
        if not f"{handler.command} {handler.path.partition('?')[0]}".endswith(self.what):
            return False
        self.left -= 1
        if self.left == 0 and callable(self.also):
            self.also()
        return self.left == 0


def test_put_list_get_and_remove(box: Cli, server: GraphWizServer) -> None:
    data = content(box)
    told = box("put", "a.glb", "--chunk-size", str(CHUNK))
    assert told.stdout.decode() == f"{server.url}#a.glb\n"
    assert [size for _, size in server.received] == [CHUNK] * 3 + [5]
    assert server.heard.count("POST /storage/upload") == 0
    (listed,) = box.json("ls").of("object")
    assert (listed["name"], listed["size"]) == ("a.glb", SIZE)
    box.holds("a.glb", data)
    assert box("get", told.stdout.decode().strip(), "copy").code == 0
    assert (box.root / "copy").read_bytes() == data
    assert box("rm", "a.glb").code == 0
    assert box.json("ls").of("object") == [] == server.assets
    assert box("rm", "a.glb").code == 9 == box("get", "a.glb", "x").code


def test_what_was_sent_is_not_sent_again_as_long_as_it_is_there(box: Cli, server: GraphWizServer) -> None:
    content(box)
    put(box, "a.glb")
    assert put(box, "a.glb")["files_unchanged"] == 1
    assert put(box, "a.glb", "--checksum")["files_unchanged"] == 1
    assert len(server.assets) == 1
    box.env["PPCLI_DATA_DIR"] = str(box.root / "elsewhere")
    assert put(box, "a.glb")["bytes_sent"] == SIZE, "nobody here knows what the server has"
    server.assets.clear()
    assert put(box, "a.glb")["bytes_sent"] == SIZE


def test_the_newest_of_a_name_counts_and_all_are_removed(box: Cli, server: GraphWizServer) -> None:
    content(box)
    put(box, "a.glb")
    (box.root / "a.glb").write_bytes(b"new")
    put(box, "a.glb")
    assert len(server.assets) == 2
    box.holds("a.glb", b"new")
    assert box("rm", "a.glb").code == 0 and server.assets == []


def test_many_assets_come_in_pages(box: Cli, server: GraphWizServer) -> None:
    for number in range(120):
        server.add(f"{number:03}.glb", "model", "model/gltf-binary", b"x")
    assert [listed["name"] for listed in box.json("ls").of("object")] == [f"{n:03}.glb" for n in range(120)]


def test_a_get_that_goes_on_in_the_middle_needs_no_ranges(box: Cli, server: GraphWizServer) -> None:
    data = content(box, size=3 << 20)
    put(box, "a.glb", "--chunk-size", "1MiB")
    reader = box.start("get", "a.glb", "-")
    assert reader.stdout is not None and reader.stdout.read(10) == data[:10]
    reader.kill()
    reader.communicate()
    box.holds("a.glb", data)


@pytest.mark.parametrize(
    ("what", "nth"),
    [
        ("GET /storage/assets", 1),
        ("POST /storage/chunked-upload", 1),
        ("/chunk", 1),
        ("/chunk", 2),
        ("/chunk", 4),
        ("GET /storage/chunked-upload/session-1", 1),
        ("/complete", 1),
    ],
)
def test_a_lost_reply_is_resolved(box: Cli, server: GraphWizServer, what: str, nth: int) -> None:
    data, server.cut = content(box), Once(what, nth)
    told = put(box, "a.glb")
    assert server.content("a.glb") == data
    assert len(server.assets) == 1
    assert sum(size for _, size in server.received) <= SIZE + CHUNK, "only what was in flight goes again"
    assert told["bytes_sent"] == SIZE + (CHUNK if what == "/chunk" and nth < 4 else 0)


def test_a_lost_reply_to_a_whole_file_is_resolved(box: Cli, server: GraphWizServer) -> None:
    data, server.cut = content(box, size=CHUNK), Once("/upload")
    put(box, "a.glb")
    assert [asset.data for asset in server.assets] == [data]
    assert server.heard.count("POST /storage/upload") == 1


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_chunk_that_was_cut_and_counted_is_not_believed(box: Cli, server: GraphWizServer, number: int) -> None:
    """The server keeps and marks what a broken connection brought. The last chunk closes the session: then the file
    goes again, and the half one does not stay."""
    data = content(box)

    def halve() -> None:
        (session,) = server.sessions.values()
        session.chunks[number] = session.chunks[number][: len(session.chunks[number]) // 2]

    server.cut = Once("/chunk", number, halve)
    put(box, "a.glb")
    assert [asset.data for asset in server.assets] == [data]
    sent = SIZE + (CHUNK if number < 4 else SIZE)
    assert sum(size for _, size in server.received) == sent


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_that_ended_with_the_last_reply_goes_on(box: Cli, server: GraphWizServer, whole: bool) -> None:
    """Whoever goes on knows only that the last chunk was on its way, and that the session is closed."""
    data = content(box)

    def halve() -> None:
        (session,) = server.sessions.values()
        session.chunks[4] = session.chunks[4] if whole else session.chunks[4][:2]

    server.cut = Once("/chunk", 4, halve)
    assert put(box, "a.glb", "--retries", "1", code=75)
    ran = box.json("resume")
    assert (ran.code, ran.result["bytes_sent"]) == (0, 0 if whole else SIZE)
    assert [asset.data for asset in server.assets] == [data] and not server.sessions


def test_a_source_that_changes_within_one_request_leaves_nothing(box: Cli, server: GraphWizServer) -> None:
    content(box, size=CHUNK)
    real = FormBody.__iter__

    def changing(self: FormBody) -> Iterator[memoryview]:
        (box.root / "a.glb").write_bytes(bytes(CHUNK))
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FormBody, "__iter__", changing)
        ran = box.json("put", "a.glb")
    assert (ran.code, ran.result["error"]["reason"], server.assets) == (4, "changed", [])


def test_marks_that_get_lost_are_noticed_before_the_last_chunk(box: Cli, server: GraphWizServer) -> None:
    data = content(box)

    def forget() -> None:
        (session,) = server.sessions.values()
        session.marks.remove(1)

    server.cut = Once("/chunk", 3, forget)
    ran = box.json("put", "--chunk-size", str(CHUNK), "a.glb")
    assert (ran.code, ran.of("warning")[0]["code"]) == (0, "session_behind")
    assert server.content("a.glb") == data
    assert sorted(number for number, _ in server.received) == [1, 1, 2, 3, 3, 4]


def test_chunks_of_one_file_never_go_side_by_side(box: Cli, server: GraphWizServer) -> None:
    data = content(box, size=30 * CHUNK)
    put(box, "a.glb", "--jobs", "20")
    assert server.content("a.glb") == data
    assert [number for number, _ in server.received] == list(range(1, 31))


def test_the_size_of_chunks_is_what_the_server_says(box: Cli, server: GraphWizServer) -> None:
    data, server.chunk_bounds = content(box, size=3 * CHUNK), (6000, 6000)
    put(box, "a.glb")
    assert server.content("a.glb") == data
    put_many = [content(box, f"m{n}.glb", 3 * CHUNK + n) for n in range(5)]
    put(box, *[f"m{n}.glb" for n in range(5)])
    assert [server.content(f"m{n}.glb") for n in range(5)] == put_many
    assert max(size for _, size in server.received) <= 6000 and not server.sessions


def test_a_server_that_answers_nonsense_about_chunks_is_refused(box: Cli, server: GraphWizServer) -> None:
    content(box)
    real = server.begin

    def begin(asked: dict[str, object]) -> tuple[str, object]:
        key, session = real(asked)
        session.total = 99
        return key, session

    server.begin = begin  # type: ignore[method-assign, assignment]
    assert put(box, "a.glb", code=5)["error"]["reason"] == "protocol"  # type: ignore[index]


def test_a_session_that_has_expired_starts_over(box: Cli, server: GraphWizServer) -> None:
    data = content(box)
    server.cut = Once("/chunk", 2, server.sessions.clear)
    ran = box.json("put", "--chunk-size", str(CHUNK), "a.glb")
    assert (ran.code, [warning["code"] for warning in ran.of("warning")]) == (0, ["session_lost"])
    assert server.content("a.glb") == data


def test_a_paused_session_of_a_server_that_takes_no_more_chunks_starts_over(box: Cli, server: GraphWizServer) -> None:
    data = content(box)

    def pause() -> None:
        (session,) = server.sessions.values()
        session.status = "paused"

    server.cut = Once("/chunk", 2, pause)
    put(box, "a.glb")
    assert server.content("a.glb") == data


def test_the_limit_of_requests_is_named_and_resume_goes_on(box: Cli, server: GraphWizServer) -> None:
    data, server.requests_left = content(box), 4
    told = box.refuses(75, "temporary", "rate_limit", "put", "a.glb", "--chunk-size", str(CHUNK))
    assert "100 uploads per 3600s" in told and "100 an hour" in told
    before, server.requests_left = len(server.received), 1000
    assert box.json("resume").code == 0
    assert server.content("a.glb") == data and len(server.received) - before < 4


@pytest.mark.parametrize("given", [None, "wrong"])
def test_a_token_is_asked_for_in_text_or_json(box: Cli, server: GraphWizServer, given: str | None) -> None:
    data, server.token = content(box), "right"
    env = {"PPCLI_TOKEN": given} if given else {}
    reason = "refused" if given else "missing"
    box.refuses(3, "credentials", reason, "put", "a.glb", env=env)
    box.env["PPCLI_TOKEN"] = "right"
    assert box("put", "a.glb").code == 0
    assert server.content("a.glb") == data


@pytest.mark.parametrize("size", [CHUNK, SIZE])
def test_too_large_is_refused_for_good(box: Cli, server: GraphWizServer, size: int) -> None:
    content(box, size=size)
    server.max_size = 1000
    assert put(box, "a.glb", code=5)["error"]["reason"] == "too_large"  # type: ignore[index]


def test_an_empty_file_goes_in_one_request_or_not_at_all(box: Cli, server: GraphWizServer) -> None:
    content(box, size=0)
    put(box, "a.glb")
    assert server.content("a.glb") == b""
    server.single = False
    (box.root / "b.glb").touch()
    assert put(box, "b.glb", code=5)["error"]["reason"] == "unsupported"  # type: ignore[index]
    assert server.unfinished() == 0


def test_without_single_requests_small_files_go_in_chunks(box: Cli, server: GraphWizServer) -> None:
    data, server.single = content(box, size=100), False
    put(box, "a.glb")
    assert server.content("a.glb") == data


def test_without_sessions_larger_files_are_refused(
    box: Cli, server: GraphWizServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    content(box, "large.glb", 1001)
    small, server.chunked = content(box), False
    monkeypatch.setattr(graphwiz_known, "SINGLE_MAX", SIZE)
    assert box("put", "a.glb").code == 0 and server.content("a.glb") == small
    monkeypatch.setattr(graphwiz_known, "SINGLE_MAX", 1000)
    ran = box.json("put", "large.glb")
    assert (ran.code, ran.result["error"]["reason"]) == (5, "unsupported")


def test_immutable_never_replaces(box: Cli, server: GraphWizServer) -> None:
    content(box)
    put(box, "a.glb", "--immutable")
    assert put(box, "a.glb", "--immutable")["files_unchanged"] == 1
    box.env["PPCLI_DATA_DIR"] = str(box.root / "elsewhere")
    assert put(box, "a.glb", "--immutable")["files_unchanged"] == 1, "the same content is read where nobody tells"
    for size in (10, SIZE):
        content(box, "other", size)
        assert put(box, "other", "--name", "a.glb", "--immutable", code=5)["error"]["reason"] == "exists"  # type: ignore[index]
    assert len(server.assets) == 1


def killed_before_complete(box: Cli, server: GraphWizServer) -> str:
    """A job all of whose chunks are there: the server says nothing more from then on."""
    server.cut = lambda handler: handler.path.endswith("/complete") and bool(server.sessions)
    content(box)
    real = Handler._complete
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "_complete", lambda self, key, session: self._answer(503, "busy"))
        assert put(box, "a.glb", code=75)
    assert Handler._complete is real
    server.cut = lambda handler: False
    (job,) = box.json("status").of("job")
    return str(job["job"])


def test_cancel_frees_a_session_that_has_all_its_chunks(box: Cli, server: GraphWizServer) -> None:
    job = killed_before_complete(box, server)
    assert server.unfinished() == 1
    assert box("cancel", job, "--yes").code == 0
    assert server.unfinished() == 0 and server.assets == []


def test_a_changed_source_does_not_mix_with_what_is_there(box: Cli, server: GraphWizServer) -> None:
    killed_before_complete(box, server)
    data = random.Random(7).randbytes(SIZE)
    (box.root / "a.glb").write_bytes(data)
    put(box, "a.glb")
    assert [asset.data for asset in server.assets] == [data] and not server.sessions


def test_a_session_that_was_completed_unseen_is_found(box: Cli, server: GraphWizServer) -> None:
    """The reply to complete was lost, and then the process was killed."""
    killed_before_complete(box, server)
    (session,) = server.sessions.values()
    server.sessions.clear()
    server.add("a.glb", "model", "x/y", b"".join(session.chunks[n] for n in sorted(session.chunks)))
    before = len(server.received)
    assert box.json("resume").code == 0
    assert (len(server.received), len(server.assets)) == (before, 1)


def test_a_session_that_is_gone_while_other_content_has_the_name_is_no_success(
    box: Cli, server: GraphWizServer
) -> None:
    killed_before_complete(box, server)
    server.sessions.clear()
    server.add("a.glb", "model", "x/y", bytes(SIZE))
    assert box.json("resume").code == 0
    box.holds("a.glb", (box.root / "a.glb").read_bytes())


def test_unfinished_uploads_cannot_be_listed(box: Cli) -> None:
    assert box.json("ls", "--incomplete").result["error"]["reason"] == "unsupported"


# --- URLs, types, forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("a.glb", {}, Kind("model", "model/gltf-binary")),
        ("dir/A.PNG", {}, Kind("texture", "image/png")),
        ("a.mp3", {}, Kind("audio", "audio/mpeg")),
        ("a.webm", {}, Kind("video", "video/webm")),
        ("a.txt", {}, Kind("model", "text/plain")),
        ("none", {"asset_type": "video"}, Kind("video", "application/octet-stream")),
        ("a.glb", {"mime_type": "x/y"}, Kind("model", "x/y")),
    ],
)
def test_types_come_from_the_url_and_the_name(name: str, options: dict[str, str], kind: Kind) -> None:
    assert kind_of(name, options) == kind


def test_the_type_of_the_url_is_told(box: Cli, server: GraphWizServer) -> None:
    content(box, "a.bin", 10)
    assert box("put", "a.bin", "--to", f"{server.url}?asset_type=video").code == 0
    assert [asset.kind for asset in server.assets] == ["video"]


@pytest.mark.parametrize("url", ["graphwiz+http://", "graphwiz+http://h?other=1", "graphwiz+http://h?asset_type="])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(Usage):
        graphwiz._parse(url)


class Chunk(Bytes):
    def quiet(self) -> Iterator[memoryview]:
        return iter(self)


@given(st.binary(max_size=100), st.text(max_size=20), st.booleans())
def test_a_form_has_the_size_it_says_each_time(data: bytes, name: str, digest: bool) -> None:
    body = FormBody("file", Chunk(data), file_name=name, fields={"a": "b"}, digest=digest)
    first, second = b"".join(body), b"".join(body)
    assert first == second and len(first) == body.size and data in first


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


ODD_NAMES = ["c:\\x", "\\\\server\\x", 'a; filename="b"', 'a\\"b']


@pytest.mark.parametrize(
    "name", ["a b.bin", 'q"u.bin', "grö/ß.bin", "per%22cent", "semi;colon", "back\\slash", "日本", *ODD_NAMES]
)
def test_names_arrive_as_they_are(root: Path, serve: ServerProcess, name: str) -> None:
    box = Cli(root, f"graphwiz+http://127.0.0.1:{serve.port}")
    box.env["PPCLI_CONFIG_DIR"] = str(serve.config)
    (root / "source").write_bytes(name.encode())
    assert box("put", "source", "--name", name).code == 0
    box.holds(name, name.encode())


def test_limits_never_allow_what_sessions_do_not_take() -> None:
    known = graphwiz_known.Known("graphwiz+http://h")
    for size in (0, 1, 20 << 20, 30 << 20, 50 << 20, 51 << 20, 1 << 40):
        limits = known.limits(size)
        assert limits.chunk_min == 5 << 20
        assert limits.chunk_max == (max(20 << 20, size) if size <= 50 << 20 else 20 << 20)
