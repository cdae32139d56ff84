"""Secrets, read from where the profile says they are; they go to QEMU by QMP and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from qlaunch.errors import HostError
from qlaunch.profile.tables import Secret

LARGEST = 4096
# SPICE takes 60 bytes but lets nobody in with more than 59 (spice-server 0.15.1, QEMU 7.2).
LONGEST_PASSWORD = 59


def read_secret(secret: Secret, environment: Mapping[str, str], *, what: str) -> str:
    """The secret itself, without the line end that editors put after it.

    Raises: HostError that says where it was looked for, never what was found.
    """
    if secret.env is not None:
        if secret.env not in environment:
            raise HostError(f"{what}: the environment variable {secret.env} is not set")
        if not environment[secret.env]:
            raise HostError(f"{what}: the environment variable {secret.env} is empty")
        return environment[secret.env]
    path = secret.file or ""
    if secret.systemd_credential is not None:
        folder = environment.get("CREDENTIALS_DIRECTORY") or os.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise HostError(
                f"{what}: there are no systemd credentials here",
                hint="LoadCredential= in the unit gives them",
            )
        path = os.path.join(folder, secret.systemd_credential)
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise HostError(f"{what}: cannot read {path}: {error.strerror}") from error
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise HostError(f"{what}: {path} is not text") from None
    if len(data) > LARGEST or not text:
        raise HostError(f"{what}: {path} is {'empty' if not text else 'too long'} for a secret")
    return text


def check_password(password: str, *, what: str) -> str:
    """`password` if SPICE and VNC can take it. Raises: HostError."""
    if len(password.encode()) > LONGEST_PASSWORD:
        raise HostError(
            f"{what}: longer than {LONGEST_PASSWORD} bytes: nobody could log in with it"
        )
    return password


# What QEMU and its helpers may want to know of their surroundings.
_KEPT = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"}
)
_KEPT_KINDS = ("LC_", "XDG_", "DBUS_", "QEMU_", "SPICE_", "G_", "MESA_", "LIBGL_", "QLAUNCH_")


def environment_for_qemu(
    environment: Mapping[str, str], secrets: Iterable[Secret | None]
) -> dict[str, str]:
    """The part of `environment` that QEMU gets: what was in the shell that happened to start the
    supervisor is nobody's business for days, and a secret never is."""
    hidden = {secret.env for secret in secrets if secret is not None}
    return {
        name: value
        for name, value in environment.items()
        if (name in _KEPT or name.startswith(_KEPT_KINDS)) and name not in hidden
    }
