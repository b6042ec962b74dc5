from nnpm.service import cli, keys, settings
from nnpm.service.api.errors import FOREIGN, Kind, all_kinds, kind_of, problem_of
from nnpm.service.inference import errors
from nnpm.service.inference.errors import NnpmError
from nnpm.service.jobs import errors as job_errors

# Raised before a service runs, or between the workers of a job: never sent over HTTP.
NOT_OF_REQUESTS = {
    settings.SettingsError,
    cli.UsageError,
    keys.KeysError,
    job_errors.StoreConfigurationError,
    job_errors.LostLeaseError,
    job_errors.TransitionError,
    job_errors.CancelledError,
}


def subclasses(cls: type[Exception]) -> set[type[Exception]]:
    return {sub for direct in cls.__subclasses__() for sub in {direct} | subclasses(direct)}


def test_every_error_of_ours_has_a_kind_of_its_own_or_of_its_family() -> None:
    ours = {cls for cls in subclasses(NnpmError) if cls.__module__.startswith("nnpm.service.")}
    assert errors.NotAudioError in ours
    for cls in ours - NOT_OF_REQUESTS:
        assert kind_of(cls("x")).status < 500 or kind_of(cls("x")).status in (501, 503), cls
    for cls in NOT_OF_REQUESTS:
        assert "code" not in vars(cls), cls


def test_the_class_tree_is_followed() -> None:
    class NewError(errors.AudioTooLongError):
        pass

    assert kind_of(NewError()) == Kind.of(errors.AudioTooLongError)
    assert kind_of(ZeroDivisionError()) is FOREIGN[Exception]
    assert kind_of(ZeroDivisionError()).status == 500
    assert "secret" not in problem_of(ValueError("secret")).detail


def test_a_message_that_names_our_files_is_not_sent() -> None:
    assert problem_of(errors.BundleError("/secret/path")).detail == errors.BundleError.detail
    assert problem_of(errors.NotAudioError("It is text.")).detail == "It is text."


def test_codes_are_unique() -> None:
    ours = [cls for cls in subclasses(NnpmError) if "code" in vars(cls)]
    codes = [cls.code for cls in ours if cls.__module__.startswith("nnpm.")]
    assert len(codes) == len(set(codes))
    assert sorted({*codes, "internal", "disconnected"}) == [kind.code for kind in all_kinds()]
