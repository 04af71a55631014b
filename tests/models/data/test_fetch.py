"""Downloads from a server on this machine: kept when they are official, refused when not, held to their checksum later."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import pytest

pytest.importorskip("pooch")
from kaem_ppl.models import DataFileError, data_dir, fetch_dataset
from kaem_ppl.models.data.fetch import DataFile, Download, fetch, find_files

CONTENTS = {"one.bin": b"first file" * 1000, "two.bin": b"second file" * 1000}


def md5(content):
    return hashlib.md5(content).hexdigest()


class Server(http.server.SimpleHTTPRequestHandler):
    requests: list

    def do_GET(self):
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder, its address, and the requests that came."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    handler = type("Handler", (Server,), {"requests": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/", handler.requests
        server.shutdown()


def zip_of(contents):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in contents.items():
            file.writestr(f"inside/{name}", content)
    return archive.getvalue()


def tar_of(contents):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as file:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"inside/{name}")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return archive.getvalue()


FILES = tuple(DataFile(name, md5(content)) for name, content in CONTENTS.items())
MEMBERS = tuple(f"inside/{name}" for name in CONTENTS)


@pytest.mark.parametrize("kind", ["file", "zip", "tar", "zip without checksum"])
def test_what_is_official_is_kept_and_not_fetched_again(served, tmp_path, caplog, kind):
    folder, address, requests = served
    if kind == "file":
        for name, content in CONTENTS.items():
            (folder / name).write_bytes(content)
        downloads = [Download(address + file.name, (file,)) for file in FILES]
    else:
        archive = tar_of(CONTENTS) if kind == "tar" else zip_of(CONTENTS)
        (folder / "archive").write_bytes(archive)
        checksum = None if kind.endswith("without checksum") else md5(archive)
        downloads = [Download(address + "archive", FILES, checksum, MEMBERS)]
    target = tmp_path / "data"
    fetch(target, downloads, progress_bar=False)
    assert {path.name for path in target.iterdir()} == {*CONTENTS, "downloaded.md5"}
    assert {name: (target / name).read_bytes() for name in CONTENTS} == CONTENTS
    lines = {f"{file.md5}  {file.name}" for file in FILES}
    assert set((target / "downloaded.md5").read_text().splitlines()) == lines
    num_requests = len(requests)
    fetch(target, downloads, progress_bar=False)
    assert len(requests) == num_requests
    caplog.clear()
    assert find_files(target, FILES) == [target / file.name for file in FILES]
    assert not caplog.messages


def test_what_is_not_official_is_refused_and_leaves_nothing(served, tmp_path):
    folder, address, _ = served
    (folder / "one.bin").write_bytes(b"something else")
    archive = zip_of({"one.bin": CONTENTS["one.bin"], "two.bin": b"something else"})
    (folder / "archive").write_bytes(archive)
    (folder / "page").write_bytes(b"<html>")
    target = tmp_path / "data"
    with pytest.raises(DataFileError, match=r"one.bin gave a file that is not the official one, which has MD5"):
        fetch(target, [Download(address + "one.bin", FILES[:1])], progress_bar=False)
    with pytest.raises(DataFileError, match=r"archive gave a file that is not the official one"):
        fetch(target, [Download(address + "archive", FILES, md5(b"another"), MEMBERS)], progress_bar=False)
    with pytest.raises(DataFileError, match=r"two.bin came with MD5"):
        fetch(target, [Download(address + "archive", FILES[1:], md5(archive), MEMBERS[1:])], progress_bar=False)
    with pytest.raises(DataFileError, match=r"page gave an archive that can't be unpacked"):
        fetch(target, [Download(address + "page", FILES, None, MEMBERS)], progress_bar=False)
    with pytest.raises(DataFileError, match=r"can't be unpacked"):
        fetch(
            target, [Download(address + "archive", FILES, None, ("inside/three.bin", MEMBERS[1]))], progress_bar=False
        )
    with pytest.raises(ConnectionError, match=r"nowhere can't be fetched: 404 .* Put one.bin into"):
        fetch(target, [Download(address + "nowhere", FILES[:1])], progress_bar=False)
    assert not list(target.iterdir())


def test_files_that_are_there_are_left_alone(served, tmp_path, caplog):
    folder, address, requests = served
    archive = zip_of(CONTENTS)
    (folder / "archive").write_bytes(archive)
    target = tmp_path / "data"
    target.mkdir()
    (target / "one.bin").write_bytes(b"my own")
    fetch(target, [Download(address + "archive", FILES, md5(archive), MEMBERS)], progress_bar=False)
    assert requests == ["/archive"]
    assert (target / "one.bin").read_bytes() == b"my own"
    assert (target / "two.bin").read_bytes() == CONTENTS["two.bin"]
    find_files(target, FILES)
    assert len(caplog.messages) == 1
    assert "official file one.bin; the format" in caplog.text


def test_a_download_that_changes_later_is_refused(served, tmp_path):
    folder, address, _ = served
    (folder / "one.bin").write_bytes(CONTENTS["one.bin"])
    target = tmp_path / "data"
    fetch(target, [Download(address + "one.bin", FILES[:1])], progress_bar=False)
    damaged = bytearray(CONTENTS["one.bin"])
    damaged[100] ^= 1
    (target / "one.bin").write_bytes(damaged)
    with pytest.raises(DataFileError, match=r"one.bin was downloaded with MD5 .* it is damaged"):
        find_files(target, FILES[:1])
    (target / "downloaded.md5").write_text("nonsense\n")
    with pytest.raises(DataFileError, match=r"downloaded.md5 has a line"):
        find_files(target, FILES[:1])


def test_the_folder_is_the_variable_or_the_platforms_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KAEM_DATA_DIR", str(tmp_path))
    assert data_dir() == tmp_path
    monkeypatch.delenv("KAEM_DATA_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "kaem-ppl" in data_dir().parts


def test_data_that_need_no_file_fetch_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("KAEM_DATA_DIR", str(tmp_path))
    assert fetch_dataset("DARCY_FLOW") == tmp_path / "darcy_flow"
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="`source` is 'nothing'"):
        fetch_dataset("nothing")
