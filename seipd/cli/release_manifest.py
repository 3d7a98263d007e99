"""Makes a signed manifest of the installation that it is run from: ``scripts/release-manifest``.

It is no command of ``seipd``: who makes releases runs it, on a machine that is no server.
"""

from __future__ import annotations

from pathlib import Path

import click

from seipd.cli.exits import exit_status_of
from services.base.crypto.signatures import SEED_BYTES, SigningKey, generate_signing_key
from services.base.release.installed import Installation, measure, this_installation
from services.base.release.manifest import parse_version, sign_manifest, version_text
from services.base.storage import files
from services.kernel import canonical
from services.kernel.errors import ConflictError, InputError, SeipdError
from services.kernel.ids import b64u_decode, b64u_encode
from services.runtime.clock import SystemClock

DAY_MS = 86_400_000
INDEX = "index.json"

_MAX_KEY_BYTES = 256


@click.command()
@click.option("--new-key", type=click.Path(path_type=Path), help="Make a release key in this file.")
@click.option("--key", type=click.Path(path_type=Path), help="The file with the release key.")
@click.option("--minimum", default="0.0.0", help="The oldest release that may still run.")
@click.option("--days", type=click.IntRange(1, 3650), default=365, help="How long it is good.")
@click.option("--measurement", multiple=True, help="A further measurement of the same release.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("dist"), help="The folder.")
def main(
    new_key: Path | None,
    key: Path | None,
    minimum: str,
    days: int,
    measurement: tuple[str, ...],
    out: Path,
) -> None:
    """Measure this installation and sign a manifest of it."""
    try:
        if new_key is not None:
            click.echo(b64u_encode(make_key(new_key)))
        elif key is not None:
            path = make_manifest(
                this_installation(),
                read_key(key),
                minimum=minimum,
                days=days,
                further=measurement,
                out=out,
                now_ms=SystemClock().now_ms(),
            )
            click.echo(str(path))
        else:
            raise InputError("neither --key nor --new-key is given", mend="see --help")
    except SeipdError as error:
        click.echo(f"error: {error} — {error.diagnostics() or 'see --help'}", err=True)
        raise click.exceptions.Exit(exit_status_of(error)) from error


def make_key(path: Path) -> bytes:
    """Make a release key in a file that was not there; return its public half.

    Raises:
        ConflictError: ``key_exists``: there is a file of that name.
        StorageError: the disk refused.
    """
    key = generate_signing_key()
    if not files.create_exclusive(path.absolute(), f"{b64u_encode(key.seed)}\n".encode()):
        raise ConflictError(f"{path} is there already", code="key_exists", mend="name another file")
    return key.public_key


def read_key(path: Path) -> SigningKey:
    """Read a release key from a file that nobody else may read.

    Raises:
        NotFoundError: there is none.
        ConfigError: ``key_permissions``: others may read it.
        InputError: ``bad_key``: it holds no key.
    """
    text = files.read_private(path.absolute(), _MAX_KEY_BYTES).decode("ascii", "replace").strip()
    try:
        seed = b64u_decode(text)
    except InputError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise InputError(f"{path} holds no release key", code="bad_key")
    return SigningKey(seed)


def make_manifest(
    installation: Installation,
    signer: SigningKey,
    *,
    minimum: str,
    days: int,
    further: tuple[str, ...],
    out: Path,
    now_ms: int,
) -> Path:
    """Measure an installation, write its signed manifest, and name it in the index beside it.

    Raises:
        ConflictError: ``not_a_release``: it is run from a checkout, or files in it were changed.
        SeipdError: a version or a measurement is none, or the disk refused.
    """
    found = measure(installation)
    foreign = (*found.altered, *found.stray_names)
    if installation.source_folders or foreign:
        raise ConflictError(
            f"this is no plain installation: {', '.join(foreign[:4]) or 'it runs from a checkout'}",
            code="not_a_release",
            mend="run scripts/release-manifest, which makes one",
        )
    data = sign_manifest(
        signer,
        version=parse_version(found.version),
        platform=found.platform,
        python=found.python,
        measurements=tuple({found.digest, *further}),
        minimum_version=parse_version(minimum),
        issued_ms=now_ms,
        expires_ms=now_ms + days * DAY_MS,
    )
    out.mkdir(parents=True, exist_ok=True)
    version = version_text(parse_version(found.version))
    path = out.absolute() / f"{version}-{found.platform}-py{found.python}.json"
    files.write_atomic(path, data, mode=0o644)
    names = sorted(one.name for one in out.glob("*.json") if one.name != INDEX)
    index = canonical.encode({"manifests": list(names)})
    files.write_atomic(out.absolute() / INDEX, index, mode=0o644)
    return path


if __name__ == "__main__":
    main()
