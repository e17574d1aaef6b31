#!/usr/bin/env bash
# Installs what the build, the demo and the tests need on a Debian machine with
# Rust. As root it installs what is missing; else it says exactly what to run.
# Usage: tests/setup.sh build|demo|test|cluster
set -euo pipefail
cd "$(dirname "$0")/.."

# Each: what proves that it is there, and the package that brings it.
build=(cc:build-essential make:make cmake:cmake git:git)
demo=(curl:curl nginx:nginx-light redis-server:redis-server /usr/lib/postgresql:postgresql
  tcpdump:tcpdump ip:iproute2 unshare:util-linux)
tests=(nft:nftables mariadbd:mariadb-server nats-server:nats-server wrk:wrk haproxy:haproxy
  openssl:openssl python3:python3
  /usr/lib/python3*/ensurepip:python3-venv ps:procps)
cluster=(containerd:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins nft:nftables
  conntrack:conntrack ip:iproute2 nsenter:util-linux openssl:openssl python3:python3 tcpdump:tcpdump buildah:buildah)

case "${1:-test}" in
  build) wanted=("${build[@]}") ;;
  demo) wanted=("${build[@]}" "${demo[@]}") ;;
  test) wanted=("${build[@]}" "${demo[@]}" "${tests[@]}") ;;
  cluster) wanted=("${build[@]}" "${cluster[@]}") ;;
  *) echo "usage: tests/setup.sh build|demo|test|cluster" >&2; exit 2 ;;
esac

if ! command -v cargo >/dev/null; then
  echo "Rust is missing: install it from https://rustup.rs, then try again." >&2
  exit 1
fi

is_there() {
  case "$1" in
    # A path may be a pattern: directories named after a version.
    /*) compgen -G "$1" >/dev/null ;;
    # Servers live in directories that are not on an ordinary user's PATH.
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
  esac
}

missing=()
for pair in "${wanted[@]}"; do
  is_there "${pair%%:*}" || missing+=("${pair#*:}")
done

if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ]; then
    {
      echo "Missing Debian packages. Run this, then try again:"
      echo "  sudo apt-get update && sudo apt-get install --yes --no-install-recommends ${missing[*]}"
    } >&2
    exit 1
  fi
  if ! command -v apt-get >/dev/null; then
    echo "This is no Debian machine; install by hand: ${missing[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  # The programs are wanted, not the services that their packages would start.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install --yes -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ "${1:-test}" = test ]; then
  # gRPC by another implementation than tonic. Pinned: a test must not change by itself.
  python="${CARGO_TARGET_DIR:-target}/tools/python"
  if ! "$python/bin/python" -c 'import grpc, websockets' 2>/dev/null; then
    echo "setup: python with grpcio and websockets in $python"
    /usr/bin/python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.1 websockets==15.0.1
  fi
fi
