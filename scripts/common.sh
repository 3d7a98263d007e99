# shellcheck shell=bash
# What the scripts share. Sourced, never run.

say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $1"
  exit "${2:-2}"
}

# The system's own Python where it is new enough: programs that run as users of their own must be able to read it, which
# an interpreter in somebody's home does not allow.
find_python() {
  local candidate
  for candidate in /usr/bin/python3 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  printf 'python3\n'
}

# missing_packages COMMAND=PACKAGE ...: print the Debian packages whose command is not here.
# Commands are looked for, not packages, so that a machine which has them from elsewhere is left alone.
missing_packages() {
  local pair
  for pair in "$@"; do
    case ${pair%%=*} in
      venv) "$(find_python)" -c 'import ensurepip, venv' >/dev/null 2>&1 || printf '%s\n' "${pair#*=}" ;;
      *) PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}" >/dev/null || printf '%s\n' "${pair#*=}" ;;
    esac
  done | sort -u
}

# install_packages PACKAGE ...: with apt-get, as root.
install_packages() {
  command -v apt-get >/dev/null || die "missing: $* — this is no Debian or Ubuntu: install them your way and run this again"
  say "installing: $*"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2 || die "apt-get update failed — mend the package sources and run this again" 7
  apt-get install -y -q --no-install-recommends "$@" >&2 || die "apt-get could not install: $*" 7
}

# require_python: Python 3.11 or newer, with a word about it otherwise.
require_python() {
  local python
  python=$(find_python)
  command -v "$python" >/dev/null || die "python3 is missing — apt-get install python3 python3-venv"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || die "$("$python" --version) is too old — Python 3.11 or newer is needed (Debian 12, Ubuntu 24.04)"
}

# ensure_users USER ...: system users that nobody logs in as.
ensure_users() {
  local user
  for user in "$@"; do
    id "$user" >/dev/null 2>&1 \
      || useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
  done
}

# digest FILE ...: one hash over the contents of files, in the order given.
digest() { sha256sum -- "$@" | awk '{print $1}' | sha256sum | cut -c1-64; }

# install_release VENV: the locked dependencies and this tree as a wheel, the same on every machine that does so.
install_release() {
  local into=$1 build
  [[ -x $into/bin/python ]] || "$(find_python)" -m venv "$into"
  "$into/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
  build=$(mktemp -d)
  "$(find_python)" -m venv "$build/venv"
  "$build/venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements-build.lock
  "$build/venv/bin/python" -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$build" .
  "$into/bin/python" -m pip install -q --disable-pip-version-check --no-deps --force-reinstall "$build"/seipd-*.whl
  rm -rf "$build"
}
