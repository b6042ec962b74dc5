"""WS /stream: answers while a recording is being made."""
