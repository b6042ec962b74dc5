"""The settings of the service: variables NNPM_... of the environment or of a file .env.

Each is one documented field.
"""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from .inference.audio.waveform import Limits
from .inference.errors import NnpmError, validation_detail
from .logs import LogFormat, LogLevel, default_format
from .system import available_cores

SECRETS = Path("/run/secrets")
"""Where containers find secrets: a file nnpm_database_url is NNPM_DATABASE_URL, and so on."""


ENV_FILE = Path(".env")
"""In the working directory: lines NNPM_NAME=value, for settings that the environment lacks."""

RegistryUrl = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://")]

_HOST = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*]+")


class SettingsError(NnpmError):
    """A setting that is invalid."""


class Settings(BaseSettings):
    """The settings of one service; ``load`` reads them from the environment."""

    model_config = SettingsConfigDict(
        env_prefix="NNPM_",
        env_ignore_empty=True,
        use_attribute_docstrings=True,
        frozen=True,
        extra="forbid",
    )

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port to listen on; 0 takes a free one."""

    models: Path | RegistryUrl = Path("models")
    """Folder of bundles, <models>/<name>/<version>/bundle.json, or its URL for fsspec."""

    models_cache: Path = Path("models-cache")
    """Folder that a registry at a URL is mirrored into."""

    bundled: Path | None = None
    """Folder of bundles that are copied into the models folder at start; [none]."""

    loaded_models: PositiveInt = 4
    """Bundles kept in memory besides those that answer, or answered before."""

    shadow_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the requests that a shadow scores, too, after they were answered."""

    max_upload_bytes: PositiveInt = 512 * 1024**2
    """Largest request body, in bytes; 50 minutes of CD stereo fit as WAV, hours as FLAC or MP3."""

    max_duration_s: PositiveFloat = 7200.0
    """Longest recording, in seconds; with split channels each channel counts."""

    max_channels: PositiveInt = 8
    """Most channels in a recording."""

    device: Literal["cpu", "cuda"] = "cpu"
    """What runs the models: cpu, or cuda for a GPU of NVIDIA, which needs the extra device."""

    workers: PositiveInt = Field(
        default_factory=lambda data: max(available_cores(), 16 * (data["device"] == "cuda"))
    )
    """Threads that decode and score; the default is the cores of the cgroup, on a GPU at least 16,
    as those that wait for it need no core."""

    queue_limit: int = Field(default=128, ge=0)
    """Recordings that may wait for a worker; one more is answered 503."""

    max_batch_files: PositiveInt = 100
    """Most files of one POST /predict/batch."""

    max_streams: PositiveInt = 32
    """Most connections to /stream at a time."""

    max_message_bytes: int = Field(default=256 * 1024, ge=1024)
    """Largest message on /stream, in bytes."""

    stream_idle_s: PositiveFloat = 30.0
    """Seconds without a message after which a stream is closed."""

    stream_stall_s: PositiveFloat = 10.0
    """Seconds after which a stream is dropped if its client does not read the answers."""

    jobs: Path = Field(default_factory=lambda data: _home(data) / "jobs")
    """Folder of adaptation jobs: uploads while they are needed, and reports; [beside the models
    folder]."""

    database_url: str = Field(default_factory=lambda data: f"sqlite:///{_home(data) / 'nnpm.db'}")
    """Where jobs are kept: sqlite:///FILE or postgresql://user@host/name; [beside the models
    folder]."""

    adapt: bool = True
    """Take adaptation jobs; 0 for a service that only predicts."""

    adapt_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders, separated by colons, under which POST /adapt may name a folder; [none]."""

    adapt_workers: int = Field(default=1, ge=0, le=64)
    """Adaptations at a time; 0 leaves them to ``nnpm worker`` processes."""

    adapt_threads: PositiveInt = 1
    """Threads of one adaptation."""

    adapt_nice: int = Field(default=10, ge=0, le=19)
    """Niceness of an adaptation: 0 competes with requests, 19 yields most."""

    adapt_tries: PositiveInt = 3
    """Tries of a job whose process dies."""

    adapt_queue_limit: PositiveInt = 100
    """Adaptations that may wait; one more is answered 503."""

    adapt_min_clips: PositiveInt = 20
    """Fewest usable clips of a job."""

    adapt_max_files: PositiveInt = 500
    """Most files of one upload; an archive holds more."""

    adapt_max_members: PositiveInt = 20_000
    """Most members of an archive."""

    adapt_max_unpacked_bytes: PositiveInt = 8 * 1024**3
    """Most bytes that an archive is unpacked to."""

    adapt_max_ratio: PositiveInt = 200
    """Most unpacked bytes per byte of an archive."""

    keep_audio_s: PositiveFloat = 86400.0
    """Seconds that recordings of a job sent with ``keep_audio`` can be listened to."""

    job_lease_s: PositiveFloat = 30.0
    """Seconds without a sign of life after which another worker takes over a worker's job."""

    callback_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts, separated by commas, that a callback_url may name: hooks.example.org,
    *.example.org; a private address only if it is listed itself, such as 10.0.0.7 or
    10.0.0.0/24; [none: a callback_url is refused]."""

    callback_secret: SecretStr | None = None
    """Secret that signs callbacks, of at least 16 characters; [none]."""

    log_format: LogFormat = Field(default_factory=default_format)
    """json or text, a line for each record; [text on a terminal, json otherwise]."""

    log_level: LogLevel = "info"
    """debug, info, warning or error; probes and scrapes are logged at debug."""

    insecure: bool = False
    """Allow listening beyond this machine although requests need no key."""

    api_keys_file: Path | None = None
    """File of keys, made by ``nnpm keys``; with it every request needs one."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names, separated by commas, under which the service may be called, such as
    emotion.example.org or *.example.org, or * for any; addresses and localhost always may;
    [none without keys, any with them]."""

    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins, separated by commas, whose pages may call the service from a browser, such as
    https://app.example.org; [its own alone]."""

    root_path: str | None = None
    """Path below which a proxy serves the service, such as /emotion, whether or not the proxy
    takes it off; [none]."""

    rate_limit: str | None = None
    """Most requests of one key, or of one address where there are no keys, such as 100/minute or
    10/second;1000/hour; [no limit]."""

    max_connections: PositiveInt = 1024
    """Most connections at a time; beyond that, only /health is answered."""

    head_timeout_s: PositiveFloat = 10.0
    """Seconds that a client may take to send the head of a request."""

    body_timeout_s: PositiveFloat = 30.0
    """Seconds without a byte of the body after which an upload is given up."""

    body_min_bytes_per_s: int = Field(default=1000, ge=0)
    """Slowest upload allowed, after body_timeout_s of waiting in all."""

    @field_validator("adapt_roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(os.pathsep))) if isinstance(value, str) else value

    @field_validator("allowed_hosts", "allowed_origins", "callback_hosts", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(filter(None, (part.strip().rstrip("/").lower() for part in value.split(","))))

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(_HOST.fullmatch, value)):
            raise ValueError(
                f"NNPM_ALLOWED_HOSTS is {','.join(value)}; it must list names such as "
                "emotion.example.org or *.example.org."
            )
        return value

    @field_validator("callback_hosts")
    @classmethod
    def _are_hosts_or_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if not _is_network(one) and (one == "*" or not _HOST.fullmatch(one)):
                raise ValueError(
                    f"NNPM_CALLBACK_HOSTS holds {one}; it must list names such as "
                    "hooks.example.org or *.example.org, and addresses such as 10.0.0.7 or "
                    "10.0.0.0/24."
                )
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(_ORIGIN.fullmatch, value)):
            raise ValueError(
                f"NNPM_ALLOWED_ORIGINS is {','.join(value)}; it must list origins such as "
                "https://app.example.org."
            )
        return value

    @field_validator("root_path")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        path = (value or "").rstrip("/")
        if path and not _ROOT_PATH.fullmatch(path):
            raise ValueError(
                f"NNPM_ROOT_PATH is {value!r}; it must be a path such as /emotion or /api/emotion."
            )
        return path or None

    @field_validator("rate_limit")
    @classmethod
    def _is_a_rate(cls, value: str | None) -> str | None:
        if value is not None:
            from limits import parse_many  # slow to import, and seldom used

            try:
                parse_many(value)
            except ValueError:
                raise ValueError(
                    f"NNPM_RATE_LIMIT is {value!r}; it must be a rate such as 100/minute."
                ) from None
        return value

    @model_validator(mode="after")
    def _signs_callbacks(self) -> Self:
        length = len(self.callback_secret or "")
        if length < 16 and (length or self.callback_hosts):
            raise ValueError(
                f"NNPM_CALLBACK_SECRET has {length} characters; callbacks are signed with a secret "
                "of at least 16."
            )
        return self

    @model_validator(mode="after")
    def _stays_on_this_machine(self) -> Self:
        if self.is_open and not self.insecure:
            raise ValueError(
                f"NNPM_HOST is {self.host}, which other machines can reach, and requests need no "
                "key; listen on 127.0.0.1, make keys (NNPM_API_KEYS_FILE), or set NNPM_INSECURE=1 "
                "behind a proxy that checks who calls."
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (pydantic's signature)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[Any, ...]:
        """Order the sources; a file .env may also hold what other programs read."""

        def dotenv() -> dict[str, Any]:
            return {k: v for k, v in dotenv_settings().items() if k in cls.model_fields}

        return init_settings, env_settings, dotenv, file_secret_settings

    @property
    def is_open(self) -> bool:
        """Whether other machines may reach the service, and need no key."""
        return not (self.api_keys_file or _is_loopback(self.host))

    @property
    def names(self) -> tuple[str, ...]:
        """Names under which the service may be called; any name if requests need a key."""
        if self.api_keys_file and not self.allowed_hosts:
            return ("*",)
        return (*self.allowed_hosts, self.host.lower())

    @property
    def limits(self) -> Limits:
        """The limits for decoding."""
        return Limits(max_duration_s=self.max_duration_s, max_channels=self.max_channels)


def _home(data: dict[str, Any]) -> Path:
    """The parent of the models folder; the working directory if the models are at a URL."""
    models = data.get("models")
    return models.parent if isinstance(models, Path) else Path()


def load(**overrides: Any) -> Settings:
    """Read the settings from the environment, else from .env, else from files of secrets.

    Args:
        **overrides: fields that win over the environment; None does not.

    Raises:
        SettingsError: one line that names each bad setting.
    """
    _require_utf8()
    try:
        given = {key: value for key, value in overrides.items() if value is not None}
        given["_secrets_dir"] = SECRETS if SECRETS.is_dir() else None
        given["_env_file"] = ENV_FILE if ENV_FILE.is_file() else None
        return Settings(**given)
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(error) from error
    except ValidationError as error:
        # A default that is made of a bad setting is not a second fault.
        found = [one for one in error.errors() if one["type"] != "default_factory_not_called"]
        detail = validation_detail(found, name=lambda field: f"NNPM_{field.upper()}")
        raise SettingsError(detail) from None


def unreadable(error: OSError | UnicodeDecodeError) -> SettingsError:
    """Say why the file of settings cannot be read."""
    why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
    return SettingsError(f"The settings in {ENV_FILE} cannot be read: {why}.")


def _require_utf8() -> None:
    for name, value in os.environ.items():
        if name.upper() in variables() - {"NNPM_ADAPT_ROOTS"} and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise SettingsError(f"{name} is {value}; it must be text in UTF-8.") from None


def variables() -> set[str]:
    """Names NNPM_... of all settings."""
    return {f"NNPM_{field.upper()}" for field in Settings.model_fields}


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
