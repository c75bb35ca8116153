"""Publish a finished bundle to a folder or to a repository of the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.errors import PublishError, first_line
from factory.runtime.progress import say
from serving.bundle import MANIFEST_NAME, Manifest, verify_files
from serving.predictor import Predictor

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPOSITORY = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def repository_name(target: str) -> str | None:
    """The Hub repository that a target names, or None for a folder.

    `owner/name` is a repository; a path that starts with `.`, `/` or `~`, or has no slash or more
    than one, is a folder.

    Raises:
        PublishError: `owner/name` where a folder `owner` exists, which is ambiguous.
    """
    if not REPOSITORY.match(target):
        return None
    if Path(target).parent.is_dir():
        raise PublishError(
            f"{target} is ambiguous, because the folder {Path(target).parent} exists; write "
            f"./{target} for a folder, or run from another directory for a Hub repository"
        )
    return target


def publish_to_folder(bundle: Path, folder: Path, *, update: bool = False) -> Path:
    """Copy a checked bundle; the copy is verified before it is renamed to `folder`.

    Args:
        update: replace an existing folder.

    Raises:
        PublishError: the folder exists and is not empty, or the bundle did not pass its gate.
        BundleError: the bundle, or its copy, is broken.
    """
    manifest = _check_bundle(bundle)
    folder = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 - a link stays a link
    exists = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if exists and not (update and folder.is_dir()):
        raise PublishError(
            f"{folder} already exists; give another folder, or --update to replace it"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name in _published_files(manifest):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, partial / name)
        verify_files(partial, manifest)
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if exists:
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def publish_to_hub(
    bundle: Path, repository: str, *, private: bool = False, update: bool = False
) -> str:
    """Upload a checked bundle in one commit; returns the URL of the commit.

    A repository that was created for the upload is deleted again when the upload fails.

    Args:
        repository: `owner/name`.
        private: create a private repository; an existing one must be private already.
        update: replace the files of an existing repository.

    Raises:
        PublishError: no token, no network, no permission, an existing repository without `update`,
            or the bundle did not pass its gate.
        BundleError: the bundle is broken.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    manifest = _check_bundle(bundle)
    token = get_token()
    if not token:
        raise PublishError(
            f"{repository}: no token for the Hub; set HF_TOKEN to a token with write access, or "
            "run: hf auth login"
        )
    api = HfApi(token=token, library_name="tinybert-factory")
    files = _published_files(manifest)
    with _explained_errors(api, repository):
        created = _create(api, repository, private=private, update=update)
        parent: str | None = None
        deleted: list[str] = []
        if not created:
            parent, deleted = _existing_files(api, repository, files, private=private)
        operations: list[Any] = [
            *(
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=bundle / name)
                for name in files
            ),
            *(CommitOperationDelete(path_in_repo=name) for name in deleted),
        ]
        say(f"uploading {len(files)} files to {repository}")
        try:
            commit = api.create_commit(
                repository,
                operations,
                commit_message=f"{manifest.name} {manifest.version}",
                parent_commit=parent,
            )
        except BaseException:
            if created:
                try:
                    api.delete_repo(repository)
                except Exception as error:  # the error of the upload is the one to report
                    reason = first_line(error)
                    say(f"{repository}: the new, empty repository was not deleted: {reason}")
            raise
    return str(commit.commit_url)


def _check_bundle(bundle: Path) -> Manifest:
    """Open a bundle as the server does, and check that it passed its gate.

    Raises:
        BundleError: a file is missing or changed, or the model does not run.
        PublishError: no gate results, or a failed rule.
    """
    manifest = Predictor.open(bundle).manifest
    failed = [str(rule["text"]) for rule in manifest.gate if not rule["passed"]]
    if failed:
        raise PublishError(
            f"{bundle}: the gate failed ({'; '.join(failed)}); publish a bundle that passed"
        )
    if not manifest.gate:
        raise PublishError(
            f"{bundle}: no gate results; publish the directory that `factory run` printed"
        )
    return manifest


def _published_files(manifest: Manifest) -> list[str]:
    """The files that the manifest lists, and the manifest."""
    return [*manifest.files, MANIFEST_NAME]


def _create(api: HfApi, repository: str, *, private: bool, update: bool) -> bool:
    """Create the repository; returns False when it exists."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_repo(repository, private=private)
    except HfHubHTTPError as error:
        if _status(error) != 409:
            raise
        if not update:
            raise PublishError(
                f"{repository} already exists; give another name, or --update to replace its files"
            ) from error
        return False
    return True


def _existing_files(
    api: HfApi, repository: str, published: list[str], *, private: bool
) -> tuple[str | None, list[str]]:
    """The last commit of a repository, and its files that the bundle does not have."""
    info = api.model_info(repository)
    if private and not info.private:
        raise PublishError(
            f"{repository} is public, but --private was given; make it private on the Hub, or "
            "omit --private"
        )
    files = [file.rfilename for file in info.siblings or []]
    # the Hub itself creates .gitattributes, which lists the files that are stored outside git
    kept = {*published, ".gitattributes"}
    return info.sha, [name for name in files if name not in kept]


@contextlib.contextmanager
def _explained_errors(api: HfApi, repository: str) -> Iterator[None]:
    """Turn the client's errors into PublishErrors with advice."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from requests.exceptions import RequestException

    hints = {
        401: "the token is invalid; set HF_TOKEN to another token, or run: hf auth login",
        403: "the token has no write access; create one with write access to the owner",
        412: "the repository was changed during the upload; check it and publish again",
    }
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise PublishError(
            f"{repository}: HF_HUB_OFFLINE is set, so uploads are disabled; unset it, or give a "
            "folder"
        ) from error
    except HfHubHTTPError as error:
        status = _status(error)
        hint = hints.get(status or 0, "nothing was published, try again")
        raise PublishError(
            f"{repository}: the Hub answered {status}: {first_line(error)}; {hint}"
        ) from error
    except (RequestException, RuntimeError, OSError) as error:
        cause = Exception(str(error.__cause__ or error))
        raise PublishError(
            f"{repository}: {api.endpoint} cannot be reached, or the connection was lost "
            f"({first_line(cause)}); nothing was published, try again, or give a folder"
        ) from error
    except ValueError as error:  # the client's own checks of names and of the card
        raise PublishError(f"{repository}: nothing was published: {error}") from error


def _status(error: Any) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)
