"""Upload of an exported model to the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from filmstrip.commands.work.export_folder import export_folder
from filmstrip.errors import UserError
from filmstrip.progress import counted
from filmstrip.runs.contents import CONFIG, is_run


def push(
    source: str,
    repository: str,
    *,
    private: bool = False,
    message: str | None = None,
    layout: str | None = None,
) -> None:
    """Upload a run, exported for ``transformers``, or a folder that was exported, and print its address.

    Raises:
        UserError: the name is not that of a repository, there is no token, the source holds nothing to upload, or the
            Hub refuses.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise UserError(f"{repository!r} is not the name of a repository: write OWNER/NAME") from None
    if "/" not in repository:
        raise UserError(f"{repository!r} names no owner: write OWNER/NAME, with your name or your organisation's")
    if get_token() is None:
        raise UserError("the Hugging Face Hub needs a token with write access: `hf auth login`, or set HF_TOKEN")
    if is_run(source):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / repository.rpartition("/")[2]
            export_folder(source, folder, "transformers", layout)
            _upload(folder, repository, private, message or "Exported by Filmstrip")
        return
    folder = Path(source)
    if layout is not None:
        raise UserError(f"--layout goes with a run, which is exported first, and {source} is none")
    if not any((folder / name).exists() for name in (CONFIG, "adapter_config.json")):
        raise UserError(f"{source} is neither a run nor a folder that `filmstrip export` wrote: it has no {CONFIG}")
    _upload(folder, repository, private, message or "Exported by Filmstrip")


def _upload(folder: Path, repository: str, private: bool, message: str) -> None:
    api = HfApi()
    try:
        with counted(f"uploading to {repository}"):
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except (HfHubHTTPError, OSError) as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"the Hugging Face Hub did not take {repository}: {said}") from error
    print(f"{api.endpoint}/{repository}, which is hf:{repository} in every command")
