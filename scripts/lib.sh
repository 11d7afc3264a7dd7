# shellcheck shell=bash
# What the scripts share: where we are, what we say, what we need. To be sourced by bash, right after `set -eu`.

# The root of the repository; every script works from there.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit

# A service may have no home.
HOME=${HOME:-/}
# rustup puts cargo here, and a cron job or a service does not have it in its PATH.
case ":$PATH:" in
*":${CARGO_HOME:-$HOME/.cargo}/bin:"*) ;;
*) PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin ;;
esac

# Says something to the person who watches, apart from what the programs say.
say() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# Gives up.
die() {
  say "$*"
  exit 1
}

# Makes sure that programs are there: "need jq shellcheck". Each is a Debian package of the same name.
need() {
  local missing=() program
  for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

# Installs Debian packages, where we may; says what to do where we may not.
install_packages() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    die "not installed: $*; as root, run: apt-get install $*"
  fi
  say "installing $*"
  apt_get install "$@" || { apt_get update && apt_get install "$@"; } || die "cannot install $* with apt-get"
}

apt_get() {
  # Others may be installing something, too.
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=60 "$@" >/dev/null
}

# Makes sure that a package of PyPI is there, for tests: "need_pypi NAME VERSION". It lies in an environment of its own
# in the build folder, where `milepost_testing::python` finds it, and $PYTHON_BIN is where its programs are; so call
# need_rust first.
need_pypi() {
  local name=$1 version=$2
  local dir=${CARGO_TARGET_DIR:-$ROOT/target}/python/$name-$version
  export PYTHON_BIN=$dir/bin
  [ ! -e "$dir/installed" ] || return 0
  need python3
  # Debian has a part of it in a package of its own.
  python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
  say "installing $name $version from PyPI"
  rm -rf "$dir"
  if ! { python3 -m venv "$dir" && "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "$name==$version"; }; then
    rm -rf "$dir"
    die "cannot install $name from PyPI"
  fi
  : >"$dir/installed"
}

# Makes sure that promtool is there, which checks metrics and alerts; $PROMTOOL is where it is. Debian's package would
# also start Prometheus, so it is only unpacked, into the build folder; so call need_rust first.
need_promtool() {
  local dir=${CARGO_TARGET_DIR:-$ROOT/target}/promtool
  PROMTOOL=$(command -v promtool || echo "$dir/usr/bin/promtool")
  export PROMTOOL
  [ ! -x "$PROMTOOL" ] || return 0
  command -v apt-get >/dev/null || die "not installed: promtool; it is a part of Prometheus"
  say "unpacking promtool"
  rm -rf "$dir"
  mkdir -p "$dir"
  (cd "$dir" && { apt-get -qq download prometheus || { apt_get update && apt-get -qq download prometheus; }; }) 2>/dev/null ||
    die "cannot download the package prometheus with apt-get"
  dpkg-deb --extract "$dir"/prometheus_*.deb "$dir" || die "cannot unpack the package prometheus"
  rm "$dir"/prometheus_*.deb
}

# Makes sure that Rust is there, of the version that rust-toolchain.toml names (rustup fetches it if need be),
# and that there is a folder to build in.
need_rust() {
  command -v cargo >/dev/null || die "cargo is not installed; see https://rustup.rs"
  # Rust links with the system's C compiler, and one dependency compiles C.
  command -v cc >/dev/null || install_packages gcc libc6-dev
  local target=$ROOT/target
  [ -e "$target" ] || target=$ROOT
  if [ -z "${CARGO_TARGET_DIR:-}" ] && ! [ -w "$target" ]; then
    # Somebody else, often root, has built here before, or has put the sources here.
    CARGO_TARGET_DIR=${TMPDIR:-/tmp}/milepost-target-$(id -u)
    export CARGO_TARGET_DIR
    say "$target belongs to somebody else; building in $CARGO_TARGET_DIR"
  fi
}

