# What `tests/run` and `.ci/run` share: telling what goes on, and getting what is needed. To be sourced, not run.
# shellcheck shell=bash

if [[ -t 1 ]]; then bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'; else bold='' red='' plain=''; fi

# The ones of rustup need not be in the path of a shell that nobody logged in to.
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

# What is built in the ci profile is selected in one way, so that it is built once for all uses.
# shellcheck disable=SC2034
ci_profile=(--profile ci --locked -p proxy -p benches)

steps=()
failures=()

# step NAME COMMAND...: runs a command, says how long it took, and remembers when it failed.
step() {
    local name=$1 began=$SECONDS outcome=passed
    shift
    printf '\n%s==> %s%s\n' "$bold" "$name" "$plain"
    # A subshell of its own keeps `set -e` in force inside the command.
    set +e
    (set -e; "$@")
    local status=$?
    set -e
    if ((status != 0)); then
        outcome="FAILED (exit status $status)"
        failures+=("$name")
    fi
    steps+=("$(printf '%5d s  %-40s %s' $((SECONDS - began)) "$name" "$outcome")")
    printf '%s\n' "${steps[-1]}"
}

# Prints all steps with their times.
tell_steps() {
    printf '\n%s%s%s\n' "$bold" "$1" "$plain"
    printf '%s\n' "${steps[@]}"
    printf '%5d s  in all\n' "$SECONDS"
}

# complain TEXT...: says what is wrong, to be seen.
complain() {
    printf '%s%s%s\n' "$red" "$*" "$plain" >&2
}

# debian 'COMMAND=PACKAGE PACKAGE'...: installs the packages of commands that are not there. Whoever is not root is asked
# to; the exit status then is 1.
debian() {
    local pair packages missing=()
    for pair in "$@"; do
        if ! command -v "${pair%%=*}" >/dev/null && [[ ! -x /usr/sbin/${pair%%=*} ]]; then
            read -ra packages <<<"${pair#*=}"
            missing+=("${packages[@]}")
        fi
    done
    ((${#missing[@]} == 0)) && return
    if ((EUID == 0)) && command -v apt-get >/dev/null; then
        echo "installing ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        { apt-get -qq update && apt-get -qq install -y --no-install-recommends "${missing[@]}"; } && return
        complain "cannot be installed: ${missing[*]}"
    else
        complain "not there: ${missing[*]}; as root: apt-get install ${missing[*]}"
    fi
    return 1
}

# Makes sure that there is a Rust toolchain; which one is in rust-toolchain.toml.
need_rust() {
    command -v cargo >/dev/null && return
    complain "cargo is not there; get Rust by rustup"
    return 1
}

# cargo_tool NAME VERSION: has a program of crates.io in that version in .tools/bin. Without optimization: what it
# costs to run is little beside what it costs to compile.
cargo_tool() {
    local name=$1 version=$2
    [[ -x .tools/bin/$name ]] && grep -qF "\"$name $version " .tools/.crates.toml 2>/dev/null && return
    CARGO_TARGET_DIR=target/tools cargo install --locked --debug --root .tools "$name@$version"
}

# go_program PACKAGE@VERSION: has a Go program in .tools/bin, named after the end of its package's path. What Go keeps of its
# own goes away again. Without Go the exit status is 1.
go_program() {
    local name=${1%@*}
    [[ -x .tools/bin/${name##*/} ]] && return
    command -v go >/dev/null || return 1
    echo "building $1 (go)"
    local kept=$PWD/target/go status=0
    GOBIN=$PWD/.tools/bin GOPATH=$kept GOCACHE=$kept/cache GOFLAGS=-modcacherw timeout 600 go install "$1" || status=$?
    rm -rf "$kept"
    return "$status"
}
