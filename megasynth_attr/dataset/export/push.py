"""Sending an export to the Hugging Face Hub: what can be said before hours of work is said before."""

from __future__ import annotations

from pathlib import Path

from megasynth_attr.core.errors import ConfigError, EnvironmentProblem, importing
from megasynth_attr.dataset.export.target import MARKER

NOT_SENT = [f"{MARKER}/**", ".cache/**", "**/tmp/**", ".lock"]


def check(repository: str) -> None:
    """Raise ConfigError unless ``repository`` can be a dataset's name on the Hub and there is a token.

    EnvironmentProblem if the package huggingface_hub is missing.
    """
    with importing("push= needs the package huggingface_hub: pip install 'megasynth-attr[export]'"):
        from huggingface_hub import get_token
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"push={repository}: {error}") from None
    if "/" not in repository:
        raise ConfigError(f"push={repository}: write <user or organisation>/<name>")
    if get_token() is None:
        raise ConfigError(
            f"push={repository}: there is no Hugging Face token on this machine; "
            "make one at huggingface.co/settings/tokens, then run `hf auth login` or set HF_TOKEN"
        )


def send(out: Path, repository: str, private: bool) -> None:
    """Upload a finished export, resumably: what is there already is not sent again.

    EnvironmentProblem, saying what the Hub or the network answered, if that fails.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    upload = getattr(api, "upload_large_folder", api.upload_folder)  # from 2.0 on, the latter is made for large ones
    try:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        upload(repo_id=repository, folder_path=out, repo_type="dataset", ignore_patterns=list(NOT_SENT))
    except Exception as error:  # each version raises what its HTTP package does
        why = str(error).strip().split("\n")[0] or type(error).__name__
        raise EnvironmentProblem(
            f"push={repository}: the upload did not finish ({why}); {out} is complete: "
            "check network and token, then run the same command again"
        ) from error
