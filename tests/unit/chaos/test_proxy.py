"""Each fault of the proxy against an echo server: what the client sees, and what is counted."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.chaos.proxy import FaultProxy

pytestmark = pytest.mark.timeout(30)


class Echo:
    """Sends back what it gets, by threads; remembers all that came."""

    def __init__(self) -> None:
        self.came = b""
        self.ends = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    self.came += data
                    connection.sendall(data)
            except OSError:
                pass
            self.ends += 1

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def echo() -> Iterator[Echo]:
    one = Echo()
    yield one
    one.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.port) as one:
        yield one


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with connected(proxy) as one:
        yield one


def connected(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def whole(client: socket.socket, size: int) -> bytes:
    """Read so many bytes, or up to the end."""
    found = b""
    while len(found) < size and (data := client.recv(size - len(found))):
        found += data
    return found


def answers(client: socket.socket, text: bytes = b"hello") -> bool:
    client.sendall(text)
    return whole(client, len(text)) == text


def silent(client: socket.socket, within_s: float = 0.15) -> bool:
    """Whether nothing comes for so long: not even an end."""
    client.settimeout(within_s)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(10)
    return False


def until(fact: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not fact():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_it_carries_bytes_and_ends(proxy: FaultProxy, echo: Echo, client: socket.socket) -> None:
    large = bytes(range(256)) * 4_000
    sender = threading.Thread(target=client.sendall, args=(large,))
    sender.start()
    assert whole(client, len(large)) == large
    sender.join()
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    until(lambda: echo.ends == 1 and proxy.connections == 0)
    assert proxy.counts == {"connections": 1}


@pytest.mark.parametrize("way", ["up_s", "down_s"])
def test_delay(proxy: FaultProxy, client: socket.socket, way: str) -> None:
    proxy.delay(**{way: 0.2})
    before = time.monotonic()
    assert answers(client)
    assert time.monotonic() - before >= 0.2
    assert proxy.counts["delayed"] == 1


def test_a_delay_ends_when_it_is_healed(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.delay(up_s=3_600)
    client.sendall(b"hello")
    until(lambda: proxy.counts["delayed"] == 1)
    proxy.heal()
    assert whole(client, 5) == b"hello"


@pytest.mark.parametrize("way", ["up", "down"])
def test_throttle(proxy: FaultProxy, client: socket.socket, way: str) -> None:
    proxy.throttle(**{way: 20_000})
    before = time.monotonic()
    assert answers(client, b"x" * 5_000)
    assert time.monotonic() - before >= 0.2
    assert proxy.counts["throttled"] >= 4


def test_cut_after_bytes_of_the_answer(
    proxy: FaultProxy, echo: Echo, client: socket.socket
) -> None:
    assert answers(client)
    proxy.cut_after(down=3)
    client.sendall(b"hello")
    with pytest.raises(ConnectionResetError):
        whole(client, 5)
    assert echo.came == b"hellohello"
    assert proxy.counts["cut"] == 1
    proxy.heal()
    with connected(proxy) as other:
        assert answers(other)


def test_cut_after_bytes_of_the_request(
    proxy: FaultProxy, echo: Echo, client: socket.socket
) -> None:
    proxy.cut_after(up=3)
    client.sendall(b"hello")
    with pytest.raises(ConnectionResetError):
        whole(client, 5)
    until(lambda: echo.ends == 1)
    assert b"hello".startswith(echo.came)
    assert len(echo.came) <= 3


def test_swallow(proxy: FaultProxy, echo: Echo, client: socket.socket) -> None:
    assert answers(client)
    proxy.swallow()
    client.sendall(b"lost")
    until(lambda: proxy.counts["swallowed"] == 1)
    assert silent(client)
    assert (echo.came, echo.ends) == (b"hello", 0)
    with connected(proxy) as other:  # it is accepted, and hears nothing either
        other.sendall(b"lost")
        assert silent(other)
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with connected(proxy) as other:
        assert answers(other)


def test_swallowing_answers_alone(proxy: FaultProxy, echo: Echo, client: socket.socket) -> None:
    proxy.swallow(up=False)
    client.sendall(b"done, and nobody hears of it")
    until(lambda: proxy.counts["swallowed"] == 1)
    assert silent(client)
    assert echo.came == b"done, and nobody hears of it"


def test_an_end_is_swallowed_too(proxy: FaultProxy, echo: Echo, client: socket.socket) -> None:
    assert answers(client)
    proxy.swallow()
    client.close()
    until(lambda: proxy.counts["swallowed"] == 1)
    assert echo.ends == 0
    proxy.heal()
    until(lambda: echo.ends == 1)


def test_hold_and_release(proxy: FaultProxy, echo: Echo, client: socket.socket) -> None:
    proxy.hold(down=False)
    client.sendall(b"first ")
    client.sendall(b"second")
    until(lambda: proxy.counts["held"] >= 1)
    assert silent(client)
    assert echo.came == b""
    proxy.release()
    assert whole(client, 12) == b"first second"


def test_what_is_sent_anew_overtakes_what_is_held(proxy: FaultProxy, echo: Echo) -> None:
    with connected(proxy) as older, connected(proxy) as other:
        until(lambda: proxy.connections == 2)
        proxy.hold(down=False)
        older.sendall(b"held")
        other.sendall(b"held")
        until(lambda: proxy.counts["held"] == 2)
        proxy.pass_new()
        with connected(proxy) as newer:
            assert answers(newer, b"first")
        assert silent(older)
        assert echo.came == b"first"
        proxy.release()
        assert whole(older, 4) == whole(other, 4) == b"held"
        proxy.hold()  # and now all connections are older ones
        with connected(proxy) as newest:
            newest.sendall(b"held")
            assert silent(newest)


def test_reset(proxy: FaultProxy, echo: Echo, client: socket.socket) -> None:
    assert answers(client)
    proxy.hold()
    assert proxy.reset() == 1
    until(lambda: proxy.connections == 0)
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    until(lambda: echo.ends == 1)
    assert proxy.counts["reset"] == 1
    with connected(proxy) as other:
        assert answers(other)


def test_reset_new(proxy: FaultProxy, client: socket.socket) -> None:
    assert answers(client)
    proxy.reset_new()
    assert answers(client)
    with pytest.raises(ConnectionResetError), connected(proxy) as other:
        other.recv(1)
    assert proxy.counts["reset_new"] == 1


def test_refuse(proxy: FaultProxy, client: socket.socket) -> None:
    assert answers(client)
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
    assert answers(client)
    assert proxy.counts["refusing"] == 1
    proxy.heal()
    with connected(proxy) as other:
        assert answers(other)


def test_an_upstream_that_is_away_resets_its_client(proxy: FaultProxy, echo: Echo) -> None:
    with FaultProxy() as nowhere:
        with pytest.raises(ConnectionResetError), connected(nowhere) as client:
            client.recv(1)
        assert nowhere.counts["unreachable"] == 1
        nowhere.aim(echo.port)
        with connected(nowhere) as client:
            assert answers(client)


def test_closing_leaves_nothing(echo: Echo) -> None:
    threads = threading.active_count()
    proxy = FaultProxy(echo.port)
    proxy.hold()
    with connected(proxy) as client:
        client.sendall(b"kept")
        until(lambda: proxy.counts["held"] == 1)
        proxy.close()
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
    until(lambda: echo.ends == 1 and threading.active_count() <= threads + 1)
