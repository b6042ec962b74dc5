"""``nnpm serve`` that gives its first answer again and again: what HTTP alone costs.

Started by benchmarks.serving; decoding and scoring are left out from the second request on.
"""

import sys
from typing import Any

from nnpm.service.cli import main
from nnpm.service.inference.recognizer import Recognizer
from nnpm.service.predict import predict as prediction


def keep_first() -> None:
    """Let decoding and scoring return what they returned first."""
    decode, answer = prediction.decode, Recognizer.answer
    kept: dict[str, Any] = {}

    def kept_decode(*args: Any, **options: Any) -> Any:
        if "recording" not in kept:
            kept["recording"] = decode(*args, **options)
        return kept["recording"]

    def kept_answer(*args: Any) -> Any:
        if "answer" not in kept:
            kept["answer"] = answer(*args)
        return kept["answer"]

    prediction.decode = kept_decode
    Recognizer.answer = kept_answer  # type: ignore[method-assign]


if __name__ == "__main__":
    keep_first()
    sys.exit(main(["serve"]))
