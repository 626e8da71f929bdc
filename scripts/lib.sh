# Shared by the scripts beside it; sourced, not run.

step() { printf '\n== %s\n' "$*" >&2; }
die() { printf '%s\n' "$*" >&2; exit 1; }

# A Rust toolchain and a C linker are all that building needs; the Kafka client
# (librdkafka, built from its sources) wants a C++ compiler, make and OpenSSL, too.
need_rust() {
  command -v cargo >/dev/null || die "cargo is not here: install a Rust toolchain (https://rustup.rs), 1.90 or later"
  need_package gcc cc
  need_package g++ c++
  need_package make make
  need_package pkg-config pkg-config
  need_header openssl/ssl.h libssl-dev
}

# need_component NAME COMMAND: a rustup component that gives COMMAND.
need_component() {
  command -v "$2" >/dev/null || rustup component add "$1" || die "$2 is not here and rustup could not add $1"
}

# need_package PACKAGE COMMAND: COMMAND is here, or apt-get installs PACKAGE.
need_package() {
  command -v "$2" >/dev/null && return
  command -v apt-get >/dev/null || die "$2 is not here: install $1"
  local sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  { $sudo apt-get update -qq && $sudo apt-get install -y -qq "$1" >/dev/null; } || die "$2 is not here and apt-get could not install $1"
}

# need_header HEADER PACKAGE: a C header is here, or apt-get installs PACKAGE.
need_header() { [ -e "/usr/include/$1" ] || need_package "$2" "no command of $2"; }

# need_python_packages VENV PACKAGE…: a virtual environment with them.
need_python_packages() {
  local venv=$1
  shift
  [ "$(cat "$venv/has" 2>/dev/null)" != "$*" ] || return 0
  need_package python3 python3
  python3 -c 'import ensurepip' 2>/dev/null || need_package python3-venv "no command of python3-venv"
  python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check "$@" || die "pip could not install $*"
  echo "$*" >"$venv/has"
}

# promtool, unpacked under target and not installed: its package would start a server.
need_promtool() {
  local tools=target/tools
  command -v promtool >/dev/null || [ -x $tools/prometheus/usr/bin/promtool ] && return
  mkdir -p $tools
  (cd $tools && apt-get download prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb prometheus) ||
    printf 'promtool could not be had: its check of the metrics is skipped\n' >&2
  rm -f $tools/prometheus_*.deb
}
