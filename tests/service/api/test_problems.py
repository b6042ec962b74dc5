from nnpm.service import cli, keys, settings
from nnpm.service.api.errors import KINDS, kind_of, problem_of
from nnpm.service.inference import errors
from nnpm.service.inference.errors import NnpmError

# Raised before a service runs: told on standard error, never over HTTP.
NOT_OF_REQUESTS = {
    settings.SettingsError,
    cli.UsageError,
    keys.KeysError,
}


def subclasses(cls: type[Exception]) -> set[type[Exception]]:
    return {sub for direct in cls.__subclasses__() for sub in {direct} | subclasses(direct)}


def test_every_error_of_ours_has_a_kind_of_its_own_or_of_its_family() -> None:
    ours = {cls for cls in subclasses(NnpmError) if cls.__module__.startswith("nnpm.service.")}
    assert errors.NotAudioError in ours
    for cls in ours - NOT_OF_REQUESTS:
        assert kind_of(cls("x")).status < 500 or kind_of(cls("x")).status in (501, 503), cls


def test_the_class_tree_is_followed() -> None:
    class NewError(errors.AudioTooLongError):
        pass

    assert kind_of(NewError()) is KINDS[errors.AudioTooLongError]
    assert kind_of(ZeroDivisionError()).status == 500
    assert "secret" not in problem_of(ValueError("secret")).detail


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in KINDS.values()]
    assert len(codes) == len(set(codes))
