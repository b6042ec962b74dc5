"""Recordings from a queue to /predict: a consumer of a Redis stream, to copy and change.

An entry of the stream has the field `url`, where a recording is, or `event`, a notification of S3
(MinIO and Ceph send it to Redis themselves; AWS by way of SNS, SQS or a function of yours). Answers
go to the stream NAME:answers, as JSON, with the entry's id. An entry is acknowledged only after its
answer was written; one that a dead consumer has taken is taken over after CLAIM_MS. So each entry
is answered at least once, and a reader that keeps one answer per id sees exactly one.

    pip install 'nnpm[client,remote]' redis
    python redis_stream.py redis://localhost/0 recordings http://localhost:8000

Any number of consumers may run; Redis gives each entry to one of them.
"""

import argparse
import json
import os
import signal
import socket
import sys
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import fsspec
import redis

import nnpm

GROUP = "nnpm"
CLAIM_MS = 60_000
"""Longer than a recording takes."""
BLOCK_MS = 1_000
RETRY_S = 1.0
MAX_TRIES = 5


def main() -> int:
    """Consume until a signal to end; the entry under way is finished first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("redis", help="redis://host:port/number")
    parser.add_argument("stream", help="name of the stream")
    parser.add_argument("service", help="address of nnpm")
    parser.add_argument("--claim-ms", type=int, default=CLAIM_MS)
    args = parser.parse_args()
    ended: list[int] = []
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda number, _: ended.append(number))
    store = redis.Redis.from_url(args.redis, decode_responses=True)
    try:
        store.xgroup_create(args.stream, GROUP, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):  # another consumer has made it
            raise
    name = f"{socket.gethostname()}-{os.getpid()}"
    with nnpm.Client(args.service, os.environ.get("NNPM_API_KEY")) as client:
        while not ended:
            for entry, fields in _entries(store, args.stream, name, args.claim_ms):
                _answer(store, client, args.stream, entry, fields)
                if ended:
                    break
    return 0


def _entries(
    store: redis.Redis, stream: str, name: str, claim_ms: int
) -> Iterator[tuple[str, dict[str, str]]]:
    """Give what dead consumers have left, and then what is new."""
    _, left, _ = store.xautoclaim(stream, GROUP, name, claim_ms, count=1)
    yield from left
    for _, entries in store.xreadgroup(GROUP, name, {stream: ">"}, count=1, block=BLOCK_MS):
        yield from entries


def _answer(
    store: redis.Redis, client: nnpm.Client, stream: str, entry: str, fields: dict[str, str]
) -> None:
    """Write the answers of one entry, then acknowledge it."""
    documents = [_document(client, url) for url in _urls(fields)]
    with store.pipeline() as pipe:  # both or neither
        for document in documents:
            pipe.xadd(f"{stream}:answers", {"id": entry, "answer": json.dumps(document)})
        pipe.xack(stream, GROUP, entry)
        pipe.execute()


def _urls(fields: dict[str, str]) -> list[str]:
    if "url" in fields:
        return [fields["url"]]
    try:
        found = json.loads(fields["event"])
        records = found.get("Records", []) if isinstance(found, dict) else found[0][1]
        places = [(one["s3"]["bucket"]["name"], one["s3"]["object"]["key"]) for one in records]
    except (KeyError, IndexError, TypeError, ValueError):
        return [""]  # answered with an error, so that it is seen, and not tried for ever
    return [f"s3://{bucket}/{urllib.parse.unquote_plus(key)}" for bucket, key in places]


def _document(client: nnpm.Client, url: str) -> dict[str, Any]:
    """Score one recording; what is wrong with it is an answer, too."""
    try:
        with fsspec.open(url, "rb") as file:
            data = file.read()
    except Exception as error:  # of whatever driver reads the URL
        return {"file": url, "error": {"code": "unreadable", "detail": type(error).__name__}}
    for last in range(1, MAX_TRIES + 1):
        try:
            return {"file": url, "answer": json.loads(client.predict(data).to_json())}
        except nnpm.Error as error:
            # Busy, restarting, away: it may pass. Anything else would fail again.
            if last == MAX_TRIES or error.status not in (0, 429, 502, 503, 504):
                return {"file": url, "error": {"code": error.code, "detail": str(error)}}
            time.sleep(RETRY_S * last)
    raise AssertionError("unreachable")


if __name__ == "__main__":
    sys.exit(main())
