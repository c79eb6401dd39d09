"""Uploads a folder of `export --format hf` to the Hugging Face Hub. Knows nothing of what is in the folder.

The token, the Hub's address (HF_ENDPOINT) and the cache come from the environment of huggingface_hub itself.
"""

from __future__ import annotations

import glob
from collections.abc import Collection
from pathlib import Path
from typing import Any

from storage.formats.hub import DATA, VIDEOS


class UploadFailed(Exception):
    """The Hub did not take the dataset."""


def check(repo: str) -> None:
    """Raises ValueError for a name that the Hub cannot have, before anything is written."""
    hub = _library()
    if "/" not in repo:
        raise ValueError(f"{repo!r}: a dataset of the Hub is named OWNER/NAME")
    hub.utils.validate_repo_id(repo)


def upload(folder: Path, repo: str, message: str, *, private: bool, media: bool, videos: Collection[str]) -> str:
    """Makes the dataset if it does not exist, and uploads the folder. Returns its address.

    An upload that was stopped goes on: the Hub takes no file twice. Tables that are not in the folder, and videos that
    are not in the release, are deleted there; its history keeps them.
    private: of a new dataset.  media: whether the videos are uploaded.  videos: the paths of those of the release.
    Raises UploadFailed with one line.
    """
    hub = _library()
    hidden = [".*", "*/.*"]  # the notes of the export, and what a killed one left
    try:
        url = hub.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        there = hub.list_repo_files(repo, repo_type="dataset")
        gone = sorted({path for path in there if path.startswith(f"{VIDEOS}/")} - set(videos))
        hub.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=folder,
            commit_message=message,
            ignore_patterns=hidden if media else [*hidden, f"{VIDEOS}/*"],
            delete_patterns=[f"{DATA}/*", *map(glob.escape, gone)],
        )
    except Exception as error:  # of the library, its HTTP client or hf_xet: they share no other base class
        raise UploadFailed(f"{repo}: {' '.join(str(error).split()) or type(error).__name__}") from error
    return str(url)


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.utils
    except ImportError as error:
        raise ValueError("push needs huggingface_hub: pip install 'masklet-engine[hub]'") from error
    return huggingface_hub
