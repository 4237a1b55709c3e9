#!/bin/sh
# Installs letta: curl -fsSL https://github.com/letta-ai/letta-server/releases/latest/download/install.sh | sh
#
#   as a user   ~/.local/bin/letta and a user service that is not yet started
#   as root     /usr/local/bin/letta, the user letta, the system service
#
#   LETTA_VERSION=v1.2.3    another version than the latest
#   LETTA_DOWNLOAD=URL      where the files are, instead of GitHub (file:// too)
#   LETTA_PREFIX=DIR        where to install, instead of /usr/local or ~/.local
#   LETTA_NO_SERVICE=1      the program alone
#   LETTA_API_KEY=KEY       as root: kept for the service, which is started then
#   LETTA_ENV_NAME=NAME     as root: the name of this machine
#
# Running it again updates the program; settings and the key stay.
set -eu
umask 022

say() { printf '%s\n' "$*"; }
die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# Everything is in a function, so that half a download does nothing.
main() {
    case $(uname -s) in
    Linux) ;;
    *) die "only Linux is supported, this is $(uname -s)" ;;
    esac
    case $(uname -m) in
    x86_64 | amd64) arch=x86_64 ;;
    aarch64 | arm64) arch=aarch64 ;;
    *) die "there is no build for $(uname -m): x86_64 and aarch64 only" ;;
    esac
    name=letta-$arch-unknown-linux-musl
    releases=https://github.com/letta-ai/letta-server/releases
    if [ -n "${LETTA_DOWNLOAD:-}" ]; then
        from=$LETTA_DOWNLOAD
    elif [ -n "${LETTA_VERSION:-}" ]; then
        from=$releases/download/$LETTA_VERSION
    else
        from=$releases/latest/download
    fi
    root=0
    [ "$(id -u)" -ne 0 ] || root=1
    if [ -n "${LETTA_PREFIX:-}" ]; then
        prefix=$LETTA_PREFIX
    elif [ "$root" = 1 ]; then
        prefix=/usr/local
    else
        prefix=${HOME:?HOME is not set}/.local
    fi

    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    say "Downloading $name from $from"
    fetch "$from/$name" "$work/$name"
    fetch "$from/SHA256SUMS" "$work/SHA256SUMS"
    check "$name"
    chmod 755 "$work/$name"
    "$work/$name" --version >"$work/version" || die "the program does not run on this machine"

    mkdir -p "$prefix/bin"
    # Into the same directory first, then renamed: a running program goes on.
    cp "$work/$name" "$prefix/bin/.letta.new"
    mv "$prefix/bin/.letta.new" "$prefix/bin/letta"
    say "Installed $prefix/bin/letta: $(cat "$work/version")"

    if [ "${LETTA_NO_SERVICE:-0}" != 1 ] && has systemctl; then
        fetch "$from/letta-server.service" "$work/unit"
        check letta-server.service unit
        if [ "$root" = 1 ]; then system_service; else user_service; fi
    else
        say "Start it: $prefix/bin/letta server"
    fi
    case :$PATH: in
    *:"$prefix/bin":*) ;;
    *) say "Note: $prefix/bin is not on your PATH." ;;
    esac
}

fetch() {
    case $1 in
    file://*) cp "${1#file://}" "$2" 2>/dev/null || die "$1 cannot be read" ;;
    https://* | http://127.0.0.1[:/]*)
        if has curl; then
            curl -fsSL --retry 3 --connect-timeout 20 -o "$2" "$1" || die "$1 cannot be downloaded"
        elif has wget; then
            wget -q -t 3 -T 20 -O "$2" "$1" || die "$1 cannot be downloaded"
        else
            die "curl or wget is needed"
        fi
        ;;
    *) die "$1 is not an https address" ;;
    esac
}

# check NAME [FILE]: the file has the sum that SHA256SUMS gives for the name.
check() {
    want=$(awk -v name="$1" '$2 == name || $2 == "*" name { print $1 }' "$work/SHA256SUMS")
    [ -n "$want" ] || die "SHA256SUMS does not name $1"
    got=$(sha256sum "$work/${2:-$1}" | cut -d ' ' -f 1)
    [ "$want" = "$got" ] || die "$1 has the checksum $got, expected $want; nothing was installed"
}

system_service() {
    if ! id letta >/dev/null 2>&1; then
        useradd --system --user-group --home-dir /var/lib/letta --shell /bin/bash letta
    fi
    mkdir -p /etc/letta /etc/systemd/system
    sed "s|/usr/local/bin/letta|$prefix/bin/letta|" "$work/unit" >/etc/systemd/system/letta-server.service
    if [ -n "${LETTA_ENV_NAME:-}" ]; then
        printf 'LETTA_ENV_NAME=%s\n' "$LETTA_ENV_NAME" >/etc/letta/server.env
    fi
    if [ -n "${LETTA_API_KEY:-}" ]; then
        (
            umask 077
            mkdir -p /etc/credstore
            printf '%s\n' "$LETTA_API_KEY" >/etc/credstore/letta-api-key
        )
    fi
    [ -d /run/systemd/system ] || return 0
    systemctl daemon-reload
    if [ -n "${LETTA_API_KEY:-}" ] || systemctl -q is-enabled letta-server 2>/dev/null; then
        systemctl -q enable letta-server
        systemctl restart letta-server
        say "letta-server runs: systemctl status letta-server"
    else
        say "Start it:  systemctl enable --now letta-server"
        say "Sign in:   journalctl -fu letta-server shows where"
    fi
}

user_service() {
    units=$HOME/.config/systemd/user
    mkdir -p "$units"
    # What is for a machine of its own, or only the system's manager can do, is left out.
    sed -e "s|/usr/local/bin/letta|$prefix/bin/letta|" \
        -e '/^# letta server as/,/^\[Unit\]/c [Unit]' \
        -e '/network-online/d' \
        -e '/^\(User\|Group\|StateDirectory.*\|WorkingDirectory\|OOMScoreAdjust\|TasksMax\|UMask\)=/d' \
        -e '/^# Looked for/d' -e '/^LoadCredential=/d' \
        -e '/^# What no agent/,/^$/d' \
        -e 's|^Environment=HOME=[^ ]* |Environment=|' \
        -e 's|^EnvironmentFile=.*|EnvironmentFile=-%h/.config/letta/server.env|' \
        -e 's|^WantedBy=.*|WantedBy=default.target|' \
        "$work/unit" >"$units/letta-server.service"
    say "Sign in:   $prefix/bin/letta login"
    say "Start it:  systemctl --user enable --now letta-server"
    say "Stay up after logout: loginctl enable-linger"
}

main "$@"
