"""Options: who keeps the keys, who may ask; each is also a variable ``SEIPD_SIGNER_…``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from seipd.signerd.profiles import Profile

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("software", "pkcs11", "kms")


def provider_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all providers to a command."""
    for name, metavar, what in reversed(
        (
            ("pkcs11-module", "FILE", "the token's PKCS#11 library"),
            ("pkcs11-token", "LABEL", "the token's label"),
            ("pkcs11-pin-file", "FILE", "its PIN; or the credential seipd-signer-pin"),
            ("kms-region", "REGION", "of AWS KMS, for example eu-central-1"),
            ("kms-endpoint", "URL", "[https://kms.<region>.amazonaws.com]"),
            ("kms-alias-prefix", "TEXT", "what aliases begin with  [seipd/]"),
            ("kms-credentials-file", "FILE", "access key; or the credential seipd-signer-kms"),
        )
    ):
        command = click.option(
            f"--{name}", metavar=metavar, default=None, envvar=_variable(name), help=what
        )(command)
    return click.option(
        "--provider",
        type=click.Choice(KINDS),
        default=None,
        envvar=_variable("provider"),
        help="who keeps the keys: sealed files, a hardware token, AWS KMS  [software]",
    )(command)


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say who may ask, and where, to a command."""
    for name, metavar, what in reversed(
        (
            ("listen", "ADDRESS", "answer peers over mutual TLS, at IP:PORT or unix:/PATH"),
            ("svid", "FILE", "the X.509-SVID shown to them, in PEM, with its chain"),
            ("svid-key", "FILE", "its private key, in PEM"),
            ("bundle", "FILE", "the SPIFFE bundle of its trust domain"),
        )
    ):
        command = click.option(
            f"--{name}", metavar=metavar, default=None, envvar=_variable(name), help=what
        )(command)
    command = click.option(
        "--allow-spiffe-id",
        "allowed",
        metavar="ID[=SCOPE,…]",
        multiple=True,
        envvar=_variable("allow-spiffe-id"),
        help="whom to answer, and in which scopes; again for each",
    )(command)
    return click.option(
        "--profile",
        type=click.Choice([one.value for one in Profile]),
        default=Profile.SELFHOSTED_SINGLE.value,
        show_default=True,
        envvar=_variable("profile"),
        help="what this signer may do: see docs/signer.md",
    )(command)


def _variable(name: str) -> str:
    return f"SEIPD_SIGNER_{name.replace('-', '_').upper()}"
