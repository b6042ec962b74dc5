"""``nnpm serve`` that repeats its first answer: what HTTP alone costs.

Started by benchmarks.serving; decoding and scoring are skipped from the second request on.
"""

import sys
from typing import Any

from nnpm.service.cli import main
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.predict import predict as prediction


def cache_first_answer() -> None:
    """Let decoding and scoring return their first result for every request."""
    decode, answer = prediction.decode, Recognizer.answer
    cache: dict[str, Any] = {}

    def cached_decode(*args: Any, **options: Any) -> Any:
        if "recording" not in cache:
            cache["recording"] = decode(*args, **options)
        return cache["recording"]

    def cached_answer(*args: Any) -> Any:
        if "answer" not in cache:
            cache["answer"] = answer(*args)
        return cache["answer"]

    prediction.decode = cached_decode
    Recognizer.answer = cached_answer  # type: ignore[method-assign]


if __name__ == "__main__":
    cache_first_answer()
    sys.exit(main(["serve"]))
