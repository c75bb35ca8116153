"""A bundle to a repository of the Hugging Face Hub, in one commit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.bundle.publish_target import check_bundle, published_files
from factory.errors import PublishError, first_line
from factory.runtime.progress import say
from serving.bundle import Manifest

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# The Hub's own; says which files are kept outside git.
NOT_OURS = (".gitattributes",)


def publish_to_hub(
    bundle: Path, repository: str, *, private: bool = False, update: bool = False
) -> str:
    """Upload a checked bundle, and give back the address of the commit.

    All files arrive in one commit, so that nobody ever sees half of them. A repository that was
    made for it is removed again when the upload fails.

    Args:
        repository: `owner/name`.
        private: who may see a new repository; an existing one must be so already.
        update: the repository may be there; what is not in the bundle leaves it.

    Raises:
        PublishError: no token, no network, no permission, a repository that is there, or the
            bundle did not pass its gate.
        BundleError: the bundle is broken.
    """
    from huggingface_hub import HfApi, get_token

    manifest = check_bundle(bundle)
    token = get_token()
    if not token:
        raise PublishError(
            f"{repository}: no token for the hub; set HF_TOKEN to one with write access, or run: "
            "hf auth login"
        )
    api = HfApi(token=token, library_name="tinybert-factory")
    with _clear_errors(api, repository):
        parent: str | None = None
        gone: list[str] = []
        made = _create(api, repository, private=private, update=update)
        if not made:
            parent, gone = _what_is_there(api, repository, manifest, private=private)
        try:
            return _commit(api, repository, bundle, manifest, parent, gone)
        except BaseException:
            if made:
                _remove(api, repository)
            raise


def _create(api: HfApi, repository: str, *, private: bool, update: bool) -> bool:
    """Whether the repository is new."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_repo(repository, private=private)
    except HfHubHTTPError as error:
        if _status(error) != 409:
            raise
        if not update:
            raise PublishError(
                f"{repository}: is there already; give another name, or --update to put this "
                "bundle in place of what it holds"
            ) from error
        return False
    return True


def _what_is_there(
    api: HfApi, repository: str, manifest: Manifest, *, private: bool
) -> tuple[str | None, list[str]]:
    """The last commit of a repository, and its files that the bundle does not have."""
    info = api.model_info(repository)
    if private and not info.private:
        raise PublishError(
            f"{repository}: is public, and --private was asked for; change it on the hub, or "
            "leave out --private"
        )
    files = [file.rfilename for file in info.siblings or []]
    ours = set(published_files(manifest))
    return info.sha, [name for name in files if name not in ours and name not in NOT_OURS]


def _commit(
    api: HfApi,
    repository: str,
    bundle: Path,
    manifest: Manifest,
    parent: str | None,
    gone: list[str],
) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[Any] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=bundle / name)
        for name in published_files(manifest)
    ]
    operations += [CommitOperationDelete(path_in_repo=name) for name in gone]
    say(f"uploading {len(operations) - len(gone)} files to {repository}")
    made = api.create_commit(
        repository,
        operations,
        commit_message=f"{manifest.name} {manifest.version}",
        parent_commit=parent,
    )
    return str(made.commit_url)


def _remove(api: HfApi, repository: str) -> None:
    """Take back an empty repository; the failure that led here is the one to tell."""
    try:
        api.delete_repo(repository)
    except Exception as error:
        say(f"{repository}: the new, empty repository could not be removed: {first_line(error)}")


@contextlib.contextmanager
def _clear_errors(api: HfApi, repository: str) -> Iterator[None]:
    """What the client raises, as what to do about it."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from requests.exceptions import RequestException

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise PublishError(
            f"{repository}: HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it, or give "
            "a folder"
        ) from error
    except HfHubHTTPError as error:
        raise PublishError(_refusal(repository, error)) from error
    except (RequestException, RuntimeError, OSError) as error:
        cause = error.__cause__ or error
        raise PublishError(
            f"{repository}: {api.endpoint} cannot be reached or broke off "
            f"({first_line(Exception(str(cause)))}); nothing was published, try again, or give a "
            "folder"
        ) from error
    except ValueError as error:  # the client's own checks, of names and of the card
        raise PublishError(f"{repository}: refused, nothing was published: {error}") from error


def _refusal(repository: str, error: Any) -> str:
    """Why the hub said no."""
    hints = {
        401: "the hub does not know this token; set HF_TOKEN to another, or run: hf auth login",
        403: "this token may not write there; make one with write access to the owner",
        412: "somebody else changed it meanwhile; look at it and publish again",
    }
    status = _status(error)
    hint = hints.get(status or 0, "nothing was published, try again")
    return f"{repository}: the hub answered {status}: {first_line(error)}; {hint}"


def _status(error: Any) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)
