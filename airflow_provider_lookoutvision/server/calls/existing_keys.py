"""An access key that exists elsewhere, read from a profile of a credentials file or from standard input.

With it one credential chain serves AWS's services, or an S3 that checks keys, and this one. The secret never
stands on a command line. A session token belongs to a key that ends within hours, so such keys are refused.
"""

from __future__ import annotations

import configparser
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_provider_lookoutvision.server.settings import SettingsError

_NAMES = {
    "aws_access_key_id": "AccessKeyId",
    "aws_secret_access_key": "SecretAccessKey",
    "aws_session_token": "SessionToken",
    "aws_security_token": "SessionToken",
}
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(\w+)\s*=\s*[\"']?([^\"'\s]*)[\"']?\s*")
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TEMPORARY = "ASIA"


def from_profile(profile: str | None = None, path: Path | None = None) -> tuple[str, str]:
    """The access key ID and secret of a profile.

    :param profile: its name; the one that the AWS SDKs would take if None.
    :param path: of the credentials file; likewise.
    :raises SettingsError: when there is none that can be used, saying what to do.
    """
    path = path or Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    profile = profile or os.environ.get("AWS_PROFILE") or "default"
    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the credentials file {path} can't be read: {error.strerror}") from None
    except (configparser.Error, UnicodeDecodeError):
        # The error of the parser quotes lines, and a line may be a secret.
        raise SettingsError(
            f"{path} is no credentials file of AWS's form: [profile], then name = value"
        ) from None
    if not parser.has_section(profile):
        names = ", ".join(parser.sections()) or "none"
        raise SettingsError(f"{path} has no profile {profile!r}; it has: {names}")
    return _checked(_known(parser[profile]), f"the profile {profile!r} of {path}")


def from_text(text: str) -> tuple[str, str]:
    """The access key ID and secret in a text: JSON as ``aws iam create-access-key`` and ``aws configure
    export-credentials`` print it, or lines of ``name = value`` as in a credentials file or a shell.

    :raises SettingsError: when there is none that can be used, saying what to do.
    """
    if text.lstrip().startswith("{"):
        try:
            document = json.loads(text)
        except ValueError:
            raise SettingsError("standard input begins like JSON, and is none") from None
        values = document.get("AccessKey", document)
    else:
        matches = (_ASSIGNMENT.fullmatch(line) for line in text.splitlines())
        values = _known({match[1]: match[2] for match in matches if match})
    return _checked(values if isinstance(values, dict) else {}, "standard input")


def _known(values: Mapping[str, str]) -> dict[str, str]:
    return {_NAMES[name.lower()]: value for name, value in values.items() if name.lower() in _NAMES}


def _checked(values: Mapping[str, Any], source: str) -> tuple[str, str]:
    key_id, secret = values.get("AccessKeyId"), values.get("SecretAccessKey")
    if not isinstance(key_id, str) or not isinstance(secret, str) or not key_id or not secret:
        raise SettingsError(f"{source} has no aws_access_key_id with an aws_secret_access_key")
    if values.get("SessionToken") or key_id.startswith(_TEMPORARY):
        raise SettingsError(
            f"{source} has temporary credentials, with a session token, which end within hours and only "
            "AWS can check. Import the key of an IAM user, or run `lookoutvision keys create` and give the "
            "client of this service that key alone"
        )
    if not _KEY_ID.fullmatch(key_id):
        raise SettingsError(f"the access key ID in {source} is not of 1 to 128 letters, digits, - and _")
    return key_id, secret
