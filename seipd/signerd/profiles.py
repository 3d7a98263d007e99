"""What a signer may do where: one table, and nothing of it is decided anywhere else. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from services.kernel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class Profile(Enum):
    """Who runs the signer, and for whom."""

    SAAS = "saas"
    SELFHOSTED_SINGLE = "selfhosted-single"
    SELFHOSTED_MULTI = "selfhosted-multi"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """One row of the table."""

    providers: frozenset[str]
    listens: bool
    """It may be asked from other machines, over mutual TLS."""
    socket_group: bool
    """A group may use its unix socket."""
    any_scope: bool
    """A caller from another machine may be allowed every scope at once."""
    same_user: bool
    """It may run as root, or as the daemon's own user."""


TABLE: Mapping[Profile, Allowed] = {
    Profile.SAAS: Allowed(
        providers=frozenset({"pkcs11", "kms"}),
        listens=True,
        socket_group=False,
        any_scope=False,
        same_user=False,
    ),
    Profile.SELFHOSTED_SINGLE: Allowed(
        providers=frozenset({"software", "pkcs11", "kms"}),
        listens=False,
        socket_group=True,
        any_scope=True,
        same_user=True,
    ),
    Profile.SELFHOSTED_MULTI: Allowed(
        providers=frozenset({"software", "pkcs11", "kms"}),
        listens=True,
        socket_group=True,
        any_scope=True,
        same_user=False,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the options of a start ask for."""

    provider: str
    listens: bool = False
    group: bool = False
    same_user: bool = False
    callers: Collection[frozenset[str] | None] = ()
    """The scopes of each caller that is allowed; None is all of them."""


def check_profile(profile: Profile, wanted: Wanted) -> None:
    """Refuse a start that the profile does not allow.

    Raises:
        ConfigError: ``not_in_profile``.
    """
    row = TABLE[profile]
    refusals = (
        (wanted.provider not in row.providers, f"keys kept by the provider {wanted.provider}"),
        (wanted.listens and not row.listens, "--listen"),
        (wanted.group and not row.socket_group, "--group"),
        (wanted.same_user and not row.same_user, "--allow-insecure-same-user"),
        (None in wanted.callers and not row.any_scope, "--allow-spiffe-id without its scopes"),
    )
    for refused, what in refusals:
        if refused:
            raise ConfigError(
                f"the profile {profile.value} does not allow {what}",
                code="not_in_profile",
                mend="leave it out, or choose another --profile",
            )
    if wanted.listens and not wanted.callers:
        raise ConfigError(
            "nobody could ask a signer that listens and allows nobody",
            code="not_in_profile",
            mend="say --allow-spiffe-id spiffe://TRUST-DOMAIN/PATH",
        )
