"""Callbacks go where they may, are signed, and end."""

import hashlib
import hmac
import threading
import time
from http.client import HTTPException

import pytest

from nnpm.service.jobs import callback as module
from nnpm.service.jobs.callback import CallbackHosts, Callbacks, post
from nnpm.service.jobs.errors import CallbackRefusedError
from nnpm.service.jobs.job import Job, State
from nnpm.service.jobs.store import JobStore
from tests.support.hooks import receiving
from tests.support.jobs import job

SECRET = "a secret of this test"
LISTED = ("hooks.example.org", "*.inner.example.org", "10.1.2.3", "127.0.0.0/8")


def hosts(*addresses: str) -> CallbackHosts:
    return CallbackHosts(LISTED, lambda _host, _port: addresses)


BAD_URLS = {
    "another host": ("https://evil.test/", "'evil.test', which is not among NNPM_CALLBACK_HOSTS"),
    "a name that ends so": ("https://xhooks.example.org/", "not among"),
    "a name below it": ("https://a.hooks.example.org/", "not among"),
    "the name of a wildcard": ("https://inner.example.org/", "not among"),
    "a host of the user": ("https://hooks.example.org@evil.test/", "user's name"),
    "a user": ("https://u:p@hooks.example.org/", "user's name"),
    "a backslash": ("https://evil.test\\@hooks.example.org/", "without spaces"),
    "a space": ("https://hooks.example.org/ x", "without spaces"),
    "a line": ("https://hooks.example.org/\r\nX: y", "without spaces"),
    "not ASCII": ("https://hooks.example.org/é", "in ASCII"),
    "a fragment": ("https://hooks.example.org/#x", "fragment"),
    "a file": ("file:///etc/passwd", "of http or https"),
    "gopher": ("gopher://hooks.example.org/", "of http or https"),
    "no scheme": ("hooks.example.org/x", "of http or https"),
    "no host": ("https:///x", "of http or https"),
    "empty": ("", "of http or https"),
    "a bad port": ("https://hooks.example.org:99999/", "port is not valid"),
    "port zero": ("https://hooks.example.org:0/", "of http or https"),
    "brackets": ("https://[hooks.example.org/", "not valid"),
    "another address": ("http://10.1.2.4/", "not among"),
    "metadata": ("http://169.254.169.254/latest", "not among"),
    "an address as a number": ("http://2130706433/", "not among"),
    "an address in short": ("http://127.1/", "not among"),
    "long": (f"https://hooks.example.org/{'x' * 3000}", "3026 characters; at most 2048"),
}


@pytest.mark.parametrize("case", BAD_URLS)
def test_only_what_is_listed_may_be_named(case: str) -> None:
    url, wanted = BAD_URLS[case]
    with pytest.raises(CallbackRefusedError, match=wanted.replace("(", "\\(")):
        hosts().require(url)


@pytest.mark.parametrize(
    "url",
    ["https://hooks.example.org/x?y=z", "http://HOOKS.example.org:8080", "https://a.b.inner.example.org/",
     "http://10.1.2.3/", "http://127.0.0.1:9/x", "https://hooks.example.org./"],
)  # fmt: skip
def test_what_is_listed_may_be_named(url: str) -> None:
    hosts().require(url)


def test_without_a_list_there_are_none() -> None:
    with pytest.raises(CallbackRefusedError, match="NNPM_CALLBACK_HOSTS is not set"):
        CallbackHosts(()).require("https://hooks.example.org/")


PRIVATE = [
    "10.1.2.4", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
    "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1",
    "::ffff:10.1.2.4", "64:ff9b::a01:204", "2002:a01:204::1", "192.0.2.1", "198.18.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_may_not_stand_for_a_private_address(address: str) -> None:
    url = "https://hooks.example.org/"
    for found in ((address,), ("93.184.215.14", address)):
        checked = hosts(*found)
        with pytest.raises(CallbackRefusedError, match="private address"):
            checked.addresses(checked.require(url))


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f::1", "10.1.2.3", "::ffff:10.1.2.3", "127.9.9.9"]
)
def test_a_name_may_stand_for_others_and_for_what_is_listed(address: str) -> None:
    checked = hosts(address)
    assert checked.addresses(checked.require("https://hooks.example.org/")) == [address]


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """Not to what the name stands for a moment later; the name is told as Host."""
    asked: list[str] = []

    def lookup(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    with receiving() as received:
        url = f"http://hooks.example.org:{received.port}/a?b=c"
        assert post(url, b"{}", SECRET, CallbackHosts(LISTED, lookup)) == 204
    assert asked == ["hooks.example.org"]
    ((path, headers, body),) = received
    assert (path, body) == ("/a?b=c", b"{}")
    assert headers["Host"] == f"hooks.example.org:{received.port}"
    wanted = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert headers["X-NNPM-Signature"] == f"sha256={wanted}"
    assert headers["Content-Type"] == "application/json"


def test_an_answer_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    with receiving(0) as received:
        url = f"http://127.0.0.1:{received.port}/"
        started = time.monotonic()
        with pytest.raises((OSError, HTTPException)):
            post(url, b"{}", SECRET, hosts("127.0.0.1"))
        assert time.monotonic() - started < 20


def finished(store: JobStore, url: str | None) -> Job:
    """A job that has ended."""
    made = store.create(job(callback_url=url))
    return store.request_cancel(made.id)


def test_five_tries_with_longer_and_longer_waits(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(module.WAITS_S) == sorted(module.WAITS_S)
    monkeypatch.setattr(module, "WAITS_S", (-1.0,) * len(module.WAITS_S))  # nobody waits for it
    with receiving(500, 302, 404, 500, 500) as received:
        made = finished(store, f"http://127.0.0.1:{received.port}/x")
        finished(store, None)
        callbacks = Callbacks(store, hosts("127.0.0.1"), SECRET, lambda one: one.state)
        tried = 0
        while callbacks.post_once():
            tried += 1
        assert (tried, len(received)) == (5, 5)
        assert {(path, body) for path, _, body in received} == {("/x", b"cancelled")}
        assert not callbacks.post_once()
    assert store.get(made.id).callback_tries == 5


def test_what_was_taken_is_not_sent_again_and_what_was_not_waits(store: JobStore) -> None:
    with receiving(500) as received:
        url = f"http://127.0.0.1:{received.port}/x"
        late, good = finished(store, url), finished(store, url)
        callbacks = Callbacks(store, hosts("127.0.0.1"), SECRET, lambda one: one.id)
        assert [callbacks.post_once() for _ in range(3)] == [True, True, False]
        assert [body.decode() for _, _, body in received] == [late.id, good.id]
    due = store.get(late.id).callback_at
    assert due is not None
    assert due > store.get(late.id).updated_at
    assert store.get(good.id).callback_at is None


def test_a_name_that_turns_private_is_not_called(store: JobStore) -> None:
    """DNS rebinding: the name was public when the job was sent."""
    with receiving() as received:
        made = finished(store, f"http://hooks.example.org:{received.port}/x")
        listed = CallbackHosts(("hooks.example.org",), lambda *_: ["127.0.0.1"])
        assert Callbacks(store, listed, SECRET, lambda one: one.id).post_once()
        assert received == []
    assert store.get(made.id).callback_tries == 1


def test_a_running_job_is_not_told(store: JobStore) -> None:
    store.create(job(callback_url="http://127.0.0.1:9/"))
    taken = store.claim("w", 30)
    assert taken is not None
    assert store.claim_callback((60,)) is None
    store.update(taken.id, taken.token, state=State.FAILED, error="It failed.")
    claimed = store.claim_callback((60,))
    assert claimed is not None
    assert (claimed.id, claimed.error) == (taken.id, "It failed.")
    assert store.claim_callback((60,)) is None  # another process has it


def test_one_callback_is_claimed_once(store: JobStore) -> None:
    for _ in range(20):
        finished(store, "http://127.0.0.1:9/")
    found: list[str] = []

    def claim() -> None:
        while (one := store.claim_callback((60,))) is not None:
            found.append(one.id)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) == 20
