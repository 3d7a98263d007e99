"""The settings of TLS certificates: where they come from."""

from __future__ import annotations

import re

from services.edge.acme.directories import directory_url
from services.kernel.errors import SeipdError

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){1,8}\Z")
_KID = re.compile(r"[!-~]{1,200}\Z")


def bad_certificates(
    *,
    tls: str,
    files: tuple[str, str],
    directory: str,
    email: str,
    binding: tuple[str, str],
) -> list[tuple[str, str]]:
    """Return what is wrong, by setting: name and why."""
    faults = []
    if tls == "files" and not files[0]:
        faults.append(("tls_certificate_file", "is needed for tls files"))
    if tls == "files" and not files[1]:
        faults.append(("tls_key_file", "is needed for tls files"))
    try:
        directory_url(directory)
    except SeipdError as error:
        faults.append(("acme_directory", f"is wrong: {error}"))
    if email and not _EMAIL.match(email):
        faults.append(("acme_email", f"is no mail address: {email[:60]!r}"))
    kid, key_file = binding
    if bool(kid) != bool(key_file):
        missing = "acme_eab_key_file" if kid else "acme_eab_kid"
        faults.append((missing, "is needed: an external account has an id and a key"))
    if kid and not _KID.match(kid):
        faults.append(("acme_eab_kid", "is printable ASCII without spaces"))
    return faults
