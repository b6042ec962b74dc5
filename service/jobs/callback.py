"""Callbacks: the end of a job is posted to the address that its request named.

Whoever may send a job could otherwise make this service call any address in its own network. So a
callback goes only to hosts that NNPM_CALLBACK_HOSTS lists; every address that the name stands for
is checked at each try, and the connection goes to an address that was checked, whatever the name
stands for a moment later; no redirect is followed; the answer's body is not read.
"""

import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ... import __version__
from ..inference.errors import NnpmError, printable
from .errors import CallbackRefusedError, StoreUnavailableError
from .job import Job
from .store import JobStore

SIGNATURE = "X-NNPM-Signature"
"""Header with ``sha256=`` and the HMAC of the body under NNPM_CALLBACK_SECRET, in hexadecimal."""

WAITS_S = (5.0, 30.0, 120.0, 600.0)
"""Seconds from each try to the next; there are five tries."""

TIMEOUT_S = 10.0
"""Longest time of one try, from the connection to the status of the answer."""

_LOOK_S = 2.0
_LONGEST_URL = 2048
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], Iterable[str]]
"""From a name and a port to all addresses of the name."""

log = logging.getLogger("nnpm")


def look_up(host: str, port: int) -> list[str]:
    """Ask the system for all addresses of a name.

    Raises:
        OSError: if it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(place[4][0]).partition("%")[0] for place in found]


class CallbackHosts:
    """The hosts that a callback may go to.

    Args:
        listed: names (``hooks.example.org``), names with a wildcard (``*.example.org``), addresses
            and networks (``10.0.0.0/24``), as in NNPM_CALLBACK_HOSTS.
        lookup: finds the addresses of a name; tests pass their own.

    Examples:
        >>> hosts = CallbackHosts(["*.example.org"], lambda host, port: ["127.0.0.1"])
        >>> hosts.require("https://evil.test/")
        Traceback (most recent call last):
        nnpm.service.jobs.errors.CallbackRefusedError: callback_url names the host 'evil.test', \
which is not among NNPM_CALLBACK_HOSTS; ask whoever runs the service to add it.
    """

    def __init__(self, listed: Iterable[str], lookup: Lookup = look_up) -> None:
        self._lookup = lookup
        self._names: list[str] = []
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for one in listed:
            try:
                self._networks.append(ipaddress.ip_network(one, strict=False))
            except ValueError:
                self._names.append(one)

    def require(self, url: str) -> SplitResult:
        """Check that a callback may go to this URL, as far as the URL says.

        Returns:
            Its parts.

        Raises:
            CallbackRefusedError: if it is no URL of http or https, or its host is not listed.
        """
        if not (self._names or self._networks):
            raise CallbackRefusedError(
                "This service sends no callbacks: NNPM_CALLBACK_HOSTS is not set; ask for the job "
                "with GET /adapt/{id}, or watch GET /adapt/{id}/events."
            )
        if len(url) > _LONGEST_URL:
            raise CallbackRefusedError(
                f"callback_url has {len(url)} characters; at most {_LONGEST_URL} are accepted."
            )
        form = "callback_url must be an address such as https://hooks.example.org/nnpm"
        if not (url.isascii() and url.isprintable()) or set(url) & set(" \\"):
            raise CallbackRefusedError(f"{form}, in ASCII and without spaces.")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise CallbackRefusedError(f"{form}; its host or port is not valid.") from None
        if parts.scheme not in _PORTS or not parts.hostname or port == 0:
            raise CallbackRefusedError(f"{form}, of http or https.")
        if "@" in parts.netloc or parts.fragment:
            raise CallbackRefusedError(f"{form}, without a user's name, a password or a fragment.")
        host = parts.hostname.rstrip(".")
        if not self._lists(host):
            raise CallbackRefusedError(
                f"callback_url names the host {host[:64]!r}, which is not among "
                "NNPM_CALLBACK_HOSTS; ask whoever runs the service to add it."
            )
        return parts

    def addresses(self, parts: SplitResult) -> list[str]:
        """Look the host up, and check every address that it stands for.

        Returns:
            The addresses, at least one.

        Raises:
            CallbackRefusedError: if one of them is private and not listed.
            OSError: if the name cannot be looked up now.
        """
        host = str(parts.hostname).rstrip(".")
        found = list(dict.fromkeys(self._lookup(host, _port(parts))))
        for address in found:
            if not self._may_be_called(ipaddress.ip_address(address)):
                raise CallbackRefusedError(
                    f"The host {host[:64]!r} of callback_url stands for a private address, which "
                    "is not among NNPM_CALLBACK_HOSTS."
                )
        if not found:
            raise OSError(f"the name {host} has no address")
        return found

    def _lists(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return any(
                host == name or (name.startswith("*.") and host.endswith(name[1:]))
                for name in self._names
            )
        return self._has(address)

    def _has(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _may_be_called(self, address: Address) -> bool:
        inner = _embedded(address)
        if self._has(address) or self._has(inner):
            return True
        return all(one.is_global and not one.is_multicast for one in (address, inner))


def _embedded(address: Address) -> Address:
    """The IPv4 address in an IPv6 address that leads to it, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address


def _port(parts: SplitResult) -> int:
    return parts.port or _PORTS[parts.scheme]


def sign(body: bytes, secret: str) -> str:
    """The value of the header :data:`SIGNATURE`."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def post(url: str, body: bytes, secret: str, hosts: CallbackHosts) -> int:
    """Post a signed JSON document, and give the status of the answer.

    Raises:
        CallbackRefusedError: if the URL is not allowed, or stands for an address that is not.
        OSError: if there is no connection, no valid certificate, or no answer in time.
        http.client.HTTPException: if the answer is not HTTP.
    """
    parts = hosts.require(url)
    address, host = hosts.addresses(parts)[0], str(parts.hostname)
    with socket.create_connection((address, _port(parts)), TIMEOUT_S) as plain:
        channel: socket.socket = plain
        if parts.scheme == "https":
            channel = ssl.create_default_context().wrap_socket(
                plain, server_hostname=host.rstrip("."), do_handshake_on_connect=False
            )
        # A timeout of the socket alone begins again with every byte that comes.
        end = threading.Timer(TIMEOUT_S, _shut, [channel])
        end.daemon = True
        end.start()
        try:
            if isinstance(channel, ssl.SSLSocket):
                channel.do_handshake()
            return _send(channel, parts, body, sign(body, secret))
        finally:
            end.cancel()
            channel.close()


def _send(channel: socket.socket, parts: SplitResult, body: bytes, signature: str) -> int:
    connection = http.client.HTTPConnection(str(parts.hostname), _port(parts))
    connection.sock = channel
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "User-Agent": f"nnpm/{__version__}",
        "Connection": "close",
        SIGNATURE: signature,
    }
    connection.request("POST", target, body, headers)
    return connection.getresponse().status


def _shut(channel: socket.socket) -> None:
    with contextlib.suppress(OSError):
        channel.shutdown(socket.SHUT_RDWR)


class Callbacks:
    """Posts the ends of jobs, from one thread; any number of processes may share a store.

    Args:
        store: holds the jobs.
        hosts: that may be called.
        secret: signs the documents.
        describe: the job as GET /adapt/{id} shows it, in JSON.
    """

    def __init__(
        self, store: JobStore, hosts: CallbackHosts, secret: str, describe: Callable[[Job], str]
    ) -> None:
        self._store, self._hosts, self._secret = store, hosts, secret
        self._describe = describe

    def run(self, stop: threading.Event) -> None:
        """Post what is due until ``stop`` is set."""
        while not stop.is_set():
            try:
                if not self.post_once():
                    stop.wait(_LOOK_S)
            except StoreUnavailableError as error:
                log.warning("callbacks have to wait: %s", error)
                stop.wait(_LOOK_S)
            except Exception:
                log.exception("a callback failed with an unexpected error; it is tried again")
                stop.wait(_LOOK_S)

    def post_once(self) -> bool:
        """Try one callback; False if none is due.

        Raises:
            StoreUnavailableError: if the database is away; the try is counted nevertheless.
        """
        job = self._store.claim_callback(WAITS_S)
        if job is None:
            return False
        try:
            body = self._describe(job).encode()
            status = post(str(job.callback_url), body, self._secret, self._hosts)
            fault = None if 200 <= status < 300 else f"the answer has the status {status}"
        except (OSError, http.client.HTTPException, NnpmError) as error:
            fault = str(error) or type(error).__name__
        if fault is None:
            self._store.end_callback(job.id)
        else:
            _log(job, fault)
        return True


def _log(job: Job, fault: str) -> None:
    # Of the address only the host: the rest may hold what opens the door there.
    about: tuple[Any, ...] = (job.id, urlsplit(str(job.callback_url)).hostname, printable(fault))
    if job.callback_at is None:
        log.warning("the callback of job %s to %s failed for the last time: %s", *about)
    else:
        log.info("the callback of job %s to %s failed and is tried again: %s", *about)
