"""Holds what a start asks for against its profile, before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seipd.signerd.listening import Listening, listening_of
from seipd.signerd.peers import parse_allowed
from seipd.signerd.profiles import Profile, Wanted, check_profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The options of ``run`` that say who may ask."""

    profile: str
    provider: str
    group: bool
    same_user: bool
    listen: str | None
    files: tuple[str | None, str | None, str | None]
    allowed: tuple[str, ...]


def check_serving(serving: Serving) -> Listening | None:
    """Return where to listen for other machines, if at all.

    Raises:
        ConfigError: ``not_in_profile``, ``bad_listen``, ``bad_spiffe_id``, ``wrong_scope``.
    """
    allowed = parse_allowed(serving.allowed)
    wanted = Wanted(
        provider=serving.provider,
        listens=serving.listen is not None,
        group=serving.group,
        same_user=serving.same_user,
        callers=list(allowed.values()),
    )
    check_profile(Profile(serving.profile), wanted)
    svid, svid_key, bundle = (Path(one) if one else None for one in serving.files)
    return listening_of(
        serving.listen, svid=svid, svid_key=svid_key, bundle=bundle, allowed=allowed
    )
