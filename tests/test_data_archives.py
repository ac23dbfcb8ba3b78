"""Archives that must not be trusted, and downloads that break off. The server is this process's own."""

import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmark.data import DATASETS, archives, cub
from benchmark.errors import UserError
from tests.conftest import MAIN


def make_tar(path, members, mode="w"):
    """A tar of name -> bytes, or name -> TarInfo to be added as it is."""
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_unpacks_once(tmp_path):
    tar = make_tar(tmp_path / "a.tar.gz", {"kit/data/x.txt": b"x"}, "w:gz")
    archives.unpack(tar, tmp_path / "kit", top="kit")
    assert (tmp_path / "kit/data/x.txt").read_bytes() == b"x"
    tar.unlink()
    archives.unpack(tar, tmp_path / "kit", top="kit")  # it is there, so the archive is not looked at


def test_nested(tmp_path):
    inner = make_tar(tmp_path / "n1.tar", {"a.JPEG": b"1"}).read_bytes()
    tar = make_tar(tmp_path / "all.tar", {"n1.tar": inner, "n2.tar": inner})
    archives.unpack(tar, tmp_path / "train", nested=True)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.JPEG")) == [
        "train/n1/a.JPEG",
        "train/n2/a.JPEG",
    ]


HOSTILE = {
    "climbs": ({"../evil.txt": b"x"}, "climbs out"),
    "climbs from below": ({"a/b/../../../evil.txt": b"x"}, "climbs out"),
    "absolute": ({"/evil.txt": b"x"}, "climbs out"),
    "symbolic link": ({"l": special("l", tarfile.SYMTYPE, "..")}, "link or a device"),
    "hard link": ({"l": special("l", tarfile.LNKTYPE, "../secret")}, "link or a device"),
    "device": ({"d": special("d", tarfile.CHRTYPE)}, "link or a device"),
    "pipe": ({"p": special("p", tarfile.FIFOTYPE)}, "link or a device"),
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tar_is_refused(name, nested, tmp_path):
    members, message = HOSTILE[name]
    (tmp_path / "secret").write_text("s")
    inside = tmp_path / "root"
    inside.mkdir()
    tar = make_tar(inside / "a.tar", {"good.txt": b"x"} | members)
    if nested:
        tar = make_tar(inside / "outer.tar", {"n1.tar": tar.read_bytes()})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        archives.unpack(tar, inside / "data", nested=nested)
    assert [p for p in sorted(tmp_path.rglob("*")) if p not in before and p.name != ".data.lock"] == []


def test_nested_names_do_not_climb(tmp_path):
    for name in ("../n1.tar", "/n1.tar", "a/n1.tar", "n1.txt"):
        tar = make_tar(tmp_path / "a.tar", {name: b""})
        with pytest.raises(UserError):
            archives.unpack(tar, tmp_path / "data", nested=True)


@pytest.mark.parametrize("damage", ["truncated", "truncated gz", "no tar", "no top", "missing"])
def test_damaged_tar_is_named(damage, tmp_path):
    content = bytes(range(256)) * 40
    gz = damage == "truncated gz"
    tar = make_tar(tmp_path / "a.tar", {"kit/x": content, "kit/y": content}, "w:gz" if gz else "w")
    if damage == "missing":
        tar.unlink()
    elif damage == "no tar":
        tar.write_bytes(b"<html>not found</html>")
    elif damage != "no top":
        tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 3 if gz else 15000])
    with pytest.raises(UserError, match=r"a.tar: ") as error:
        archives.unpack(tar, tmp_path / "kit", top="other" if damage == "no top" else "kit")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "kit").exists()


CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT, or what is asked for of it; /short breaks off in the middle, /plain knows no ranges."""

    asked: list = []  # noqa: RUF012

    def do_GET(self):
        begin = self.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        Handler.asked.append(begin)
        start = int(begin) if begin and self.path != "/plain" else 0
        if self.path == "/gone":
            self.send_error(404)
            return
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:1000] if self.path == "/short" else body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    Handler.asked = []


def test_download(server, tmp_path):
    archives.download(f"{server}/a", tmp_path / "a", MD5)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_download_goes_on_where_it_broke_off(server, tmp_path):
    with pytest.raises(UserError, match="cannot be fetched"):
        archives.download(f"{server}/short", tmp_path / "a", MD5)
    assert not (tmp_path / "a").exists()
    archives.download(f"{server}/a", tmp_path / "a", MD5)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert Handler.asked == ["", "1000"]


@pytest.mark.parametrize("begun", [CONTENT[:5], CONTENT])
def test_download_where_the_server_knows_no_ranges_or_all_is_there(begun, server, tmp_path):
    (tmp_path / "a.part").write_bytes(begun)
    archives.download(f"{server}/{'a' if begun == CONTENT else 'plain'}", tmp_path / "a", MD5)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_wrong_checksum_keeps_nothing(server, tmp_path):
    with pytest.raises(UserError, match="the official one is 0000"):
        archives.download(f"{server}/a", tmp_path / "a", "0000")
    assert not list(tmp_path.iterdir())


def test_no_network_and_no_such_file_are_named(server, tmp_path):
    for url in (f"{server}/gone", "http://127.0.0.1:9/a"):
        with pytest.raises(UserError, match=r"cannot be fetched .* put it at .*/a and call again"):
            archives.download(url, tmp_path / "a", MD5)


def _pax(**headers: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo("x")
    member.pax_headers = headers
    return member


DAMAGED = {
    "time not a number": {"x": _pax(mtime="nan")},
    "time without end": {"x": _pax(mtime="inf")},
    "time beyond any clock": {"x": _pax(mtime="1e300")},
    "sparse map of junk": {"x": _pax(**{"GNU.sparse.map": "0,x,,", "GNU.sparse.size": "9"})},
    "sparse map of one": {"x": _pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})},
    "1,500 folders": {"a/" * 1500 + "x": b""},
    "name of 2 MiB": {"a" * 2**21: b""},
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", DAMAGED)
def test_junk_in_headers_is_one_line(name, nested, tmp_path):
    tar = make_tar(tmp_path / "a.tar", DAMAGED[name])
    if nested:
        tar = make_tar(tmp_path / "outer.tar", {"n1.tar": tar.read_bytes()})
    with pytest.raises(UserError) as refused:
        archives.unpack(tar, tmp_path / "data", nested=nested)
    assert len(str(refused.value)) < 600
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".tar") == [".data.lock"]


def test_a_header_of_4_gib_is_not_read(tmp_path):
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 2**32
    good = tarfile.TarInfo("good").tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes(good + member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(UserError, match="a header of 4,294,967,296 bytes"):
        archives.unpack(tmp_path / "a.tar", tmp_path / "data")


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_a_flipped_bit_anywhere_is_one_line_or_unpacks(mode, tmp_path):
    whole = make_tar(tmp_path / "a", {"x": bytes(range(256)) * 8}, f"w:{mode}").read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        (tmp_path / "a").write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        try:
            archives.unpack(tmp_path / "a", tmp_path / f"data{at}")
        except UserError:
            assert not (tmp_path / f"data{at}").exists()


def test_a_bomb_inside_a_member_is_refused_unread(tmp_path):
    inner = make_tar(tmp_path / "b.tar.gz", {"zeros": bytes(2**20)}, "w:gz").read_bytes()
    tar = make_tar(tmp_path / "outer.tar", {"n1.tar": inner})
    with pytest.raises(UserError, match="cannot be unpacked"):
        archives.unpack(tar, tmp_path / "data", nested=True)


@pytest.mark.parametrize(("cap", "most"), [("MAX_MEMBERS", 3), ("MAX_BYTES", 30)])
def test_what_no_official_archive_holds_is_refused_and_removed(cap, most, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(archives, cap, most)
    monkeypatch.setattr(archives, "TOLD_SECONDS", -1.0)
    tar = make_tar(tmp_path / "a.tar", {f"{k}.txt": b"ten bytes." for k in range(4)})
    with pytest.raises(UserError, match="which no official archive of its size holds"):
        archives.unpack(tar, tmp_path / "data")
    assert not (tmp_path / ".data.unfinished").exists()
    assert "unpacking a.tar: 3 members" in capsys.readouterr().err


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch):
    """By how much larger it is than the archive."""
    monkeypatch.setattr(archives, "SMALL_BYTES", 2**20)
    tar = make_tar(tmp_path / "a.tar.gz", {f"{k}": bytes(2**20) for k in range(4)}, "w:gz")
    with pytest.raises(UserError, match=r"1 MiB unpacked, which no official archive of its size holds"):
        archives.unpack(tar, tmp_path / "data")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".data.lock", "a.tar.gz"]


def test_the_caps_are_above_what_the_data_sets_hold():
    most = max(count for dataset in DATASETS.values() for count in dataset.num_images.values())
    assert most + 1000 < archives.MAX_MEMBERS
    deepest = (MAIN / "train.txt", Path(cub.FOLDER, "images", "class", "x.jpg"))
    assert max(len(path.parts) for path in deepest) == 5 < archives.MAX_DEPTH
