"""What ranks ask of an elastic launcher, with a server on loopback that answers as Horovod's does."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tfinpaint.distributed import rendezvous
from tfinpaint.distributed.rendezvous import wait_for_all_ranks
from tfinpaint.errors import UserError


class Launcher(ThreadingHTTPServer):
    """Keeps what it is given until it assigns places; `places` are its answers, one after the other."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.kept, self.places, self.asked, self.forgotten = {}, [], [], []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/rank_and_size/"):
            self.server.asked.append(self.path)
            self.server.kept.clear()
            return self.answer(200, self.server.places.pop(0).encode())
        return self.answer(200, self.server.kept[self.path]) if self.path in self.server.kept else self.answer(404)

    def do_PUT(self):
        self.server.kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200)

    def do_DELETE(self):
        self.server.forgotten.append(self.path)
        self.server.kept.pop(self.path, None)
        self.answer(200)

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


answer = Handler.answer


@pytest.fixture
def launcher(monkeypatch):
    with Launcher() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HOROVOD_ELASTIC", "1")
        monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", "127.0.0.1")
        monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_PORT", str(server.server_port))
        monkeypatch.setenv("HOROVOD_HOSTNAME", "node-a")
        monkeypatch.setattr(rendezvous, "POLL_SECONDS", 0.01)
        yield server
        server.shutdown()


def place(monkeypatch, *values):
    for name, value in zip(rendezvous._PLACE, values, strict=True):
        monkeypatch.setenv(name, value)


def test_a_new_process_waits_for_the_others(launcher, monkeypatch):
    place(monkeypatch, "1", "3", "0", "1", "1", "3")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_for_all_ranks)
        launcher.kept["/arrived/0"] = b"1"
        assert not waiting.done()
        launcher.kept["/arrived/2"] = b"1"
        waiting.result(timeout=10)
    assert launcher.kept.keys() == {"/arrived/0", "/arrived/1", "/arrived/2"}
    assert launcher.asked == []


def test_a_rank_takes_the_place_that_it_is_given(launcher, monkeypatch):
    place(monkeypatch, "2", "3", "1", "2", "0", "1")
    launcher.places = ["0,1,0,1,0,1"]
    assert list(rendezvous.ask_for_place().values()) == ["0", "1", "0", "1", "0", "1"]
    assert launcher.asked == ["/rank_and_size/node-a:1"]


def test_ranks_that_do_not_come_are_not_waited_for_for_ever(launcher, monkeypatch, caplog):
    monkeypatch.setattr(rendezvous, "ARRIVAL_SECONDS", 0.1)
    place(monkeypatch, "1", "2", "0", "1", "1", "2")
    launcher.places = ["0,1,0,1,0,1"]  # the launcher has found out meanwhile that the other one has ended
    wait_for_all_ranks()
    assert len(launcher.asked) == 1
    assert [rendezvous.os.environ[name] for name in rendezvous._PLACE] == ["0", "1", "0", "1", "0", "1"]
    assert "Not all of 2 ranks have joined" in caplog.text
    assert launcher.forgotten == ["/arrived/1"]  # or one that comes late would start with this one alone


def test_a_place_is_waited_for_as_long_as_the_launcher_is_there(launcher, monkeypatch):
    monkeypatch.setattr(rendezvous, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(Handler, "answer", lambda self, *args: (time.sleep(2), answer(self, *args)))
    place(monkeypatch, "1", "2", "0", "1", "1", "2")
    launcher.places = ["0,1,0,1,0,1"]
    assert rendezvous.ask_for_place()["HOROVOD_RANK"] == "0"
    with pytest.raises(UserError, match="does not answer"):
        rendezvous._all_are_here()


def test_a_process_that_is_not_needed_learns_it(launcher, monkeypatch):
    place(monkeypatch, "1", "2", "0", "1", "1", "2")
    launcher.places = ["-1,-1,-1,-1,-1,-1"]
    with pytest.raises(rendezvous.DismissedError, match="without this process, formerly rank 1 on node-a"):
        rendezvous.ask_for_place()


def test_a_launcher_that_is_gone_is_told(launcher, monkeypatch):
    place(monkeypatch, "0", "1", "0", "1", "0", "1")
    launcher.shutdown()
    launcher.server_close()
    with pytest.raises(UserError, match=r"elastic launcher at 127.0.0.1:\d+ does not answer"):
        rendezvous.ask_for_place()


def test_only_an_elastic_launcher_makes_a_run_elastic(launcher, monkeypatch):
    assert rendezvous.is_elastic()
    monkeypatch.delenv("HOROVOD_GLOO_RENDEZVOUS_ADDR")
    assert not rendezvous.is_elastic()
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", "127.0.0.1")
    monkeypatch.setenv("HOROVOD_ELASTIC", "0")
    assert not rendezvous.is_elastic()
