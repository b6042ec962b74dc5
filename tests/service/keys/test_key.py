import hashlib
import hmac
import re
from typing import Any

import pytest

from nnpm.service import keys as module
from nnpm.service.keys import Key, KeysError, find_key, make_key


def ring(*keys: Key) -> dict[str, Key]:
    return {key.id: key for key in keys}


def test_a_key_is_recognisable_random_and_kept_as_its_hash() -> None:
    text, key = make_key("web", ["predict"])
    assert re.fullmatch(r"nnpm_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", text)
    assert text.split("_")[1] == key.id
    assert key.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert text not in key.model_dump_json()
    assert text.split("_", 2)[2] not in key.model_dump_json()
    assert len({make_key("web", [])[0] for _ in range(100)}) == 100


def test_it_is_found_and_nothing_else_is() -> None:
    text, key = make_key("web", ["predict"])
    other_text, other = make_key("phone", ["predict"])
    keys = ring(key, other)
    assert find_key(keys, text) is key
    assert find_key(keys, other_text) is other
    secret = text.split("_", 2)[2]
    for wrong in (
        "",
        "nnpm",
        "nnpm__",
        secret,
        f"nnpm_{key.id}_",
        f"nnpm_{other.id}_{secret}",
        f"nnpm_{'0' * 12}_{secret}",
        text[:-1],
        text + "x",
        text.upper(),
        f" {text}",
        key.sha256,
        "ü" * 40,
        "\udcff",
        text + "x" * 10_000,
    ):
        assert find_key(keys, wrong) is None, wrong


def test_a_revoked_key_opens_nothing() -> None:
    text, key = make_key("web", ["predict"])
    revoked = key.model_copy(update={"revoked_at": key.created_at})
    assert find_key(ring(revoked), text) is None


@pytest.mark.parametrize("kind", ["right", "wrong secret", "unknown id", "revoked", "garbage"])
def test_every_text_costs_one_hash_and_one_constant_time_compare(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    text, key = make_key("web", ["predict"])
    revoked_text, revoked = make_key("old", [])
    revoked = revoked.model_copy(update={"revoked_at": revoked.created_at})
    calls: list[str] = []

    def compare(a: str, b: str) -> bool:
        calls.append("compare")
        return hmac_compare(a, b)

    def sha256(data: bytes) -> Any:
        calls.append("hash")
        return real_sha256(data)

    hmac_compare, real_sha256 = hmac.compare_digest, hashlib.sha256
    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    monkeypatch.setattr(module.hashlib, "sha256", sha256)
    sent = {
        "right": text,
        "wrong secret": text[:-3] + "xyz",
        "unknown id": f"nnpm_{'a' * 12}_{'b' * 43}",
        "revoked": revoked_text,
        "garbage": "x",
    }[kind]
    assert (find_key(ring(key, revoked), sent) is key) == (kind == "right")
    assert calls == ["hash", "compare"]


@pytest.mark.parametrize(
    "name", ["", "anonymous", "a b", "ü", "x" * 65, "-a", "a\n", "0123456789ab", "../x", "a/b"]
)
def test_what_cannot_be_a_name(name: str) -> None:
    with pytest.raises(KeysError, match="name"):
        make_key(name, [])
