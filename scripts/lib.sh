# shellcheck shell=bash
#
# What the scripts share: finding what they need on this machine, and installing what is
# missing. Bash scripts source it; bash 3.2, which macOS has, is enough.

# The oldest PostgreSQL that the shop works with; src/private_postgres.rs says the same.
OLDEST_POSTGRES=15

# What libpq reads from the environment would choose another server or session.
for name in ${!PG@}; do
    unset "$name"
done

# Says something to the person at the terminal; standard output is the program's.
say() {
    if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
        printf '\033[1m%s\033[0m\n' "$*" >&2
    else
        printf '%s\n' "$*" >&2
    fi
}

die() {
    say "error: $*"
    exit 1
}

# usage: prints the comment at the top of the script that was called, and ends it.
usage() {
    # shellcheck disable=SC2154 # Every script sets it.
    sed -n '3,/^set /{/^#/s/^# \{0,1\}//p;}' "$script"
    exit
}

# is_count TEXT: whether it is a whole number above 0.
is_count() {
    case $1 in
        '' | *[!0-9]* | 0*) return 1 ;;
    esac
}

# from_here PATH: the same file, absolute, so that it is found from another folder.
from_here() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s\n' "$PWD/$1" ;;
    esac
}

# target_folder: where cargo puts what it builds, which the environment or cargo's own settings
# may say.
target_folder() {
    # shellcheck disable=SC2154 # Every script sets it.
    cargo metadata --manifest-path "$root/Cargo.toml" --no-deps --format-version 1 |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# need_cargo: Rust is the one thing that these scripts do not install.
need_cargo() {
    local bin="${CARGO_HOME:-${HOME:-}/.cargo}/bin"
    # rustup puts its folder on the PATH of the next login only.
    if ! have cargo && [ -x "$bin/cargo" ]; then
        PATH="$bin:$PATH"
    fi
    have cargo || die "Rust is missing; https://rustup.rs says how to install it"
}

# need_component COMMAND: a part of the Rust toolchain that minimal installations lack.
need_component() {
    if cargo "$1" --version >/dev/null 2>&1; then
        return
    fi
    have rustup || die "cargo $1 is missing; install it beside cargo"
    case $1 in
        fmt) rustup component add rustfmt ;;
        *) rustup component add "$1" ;;
    esac
}

# need_cc: Rust links with it, and one dependency has C in it.
need_cc() {
    if have_cc; then
        return
    fi
    if [ "$(uname)" = Darwin ]; then
        die "a C compiler is missing; install it with: xcode-select --install"
    elif have apt-get; then
        apt_update "a C compiler"
        apt_install "a C compiler" gcc libc6-dev
    else
        die "a C compiler is missing; install cc and run this again"
    fi
}

have_cc() {
    if [ "$(uname)" = Darwin ]; then
        # /usr/bin/cc is there from the start and only asks to be installed.
        xcode-select -p >/dev/null 2>&1
    else
        # A compiler without a C library links nothing.
        have cc && [ -e "$(cc -print-file-name=crt1.o)" ]
    fi
}

# need_venv: Python's virtual environments, which Debian keeps in a package of their own.
need_venv() {
    if python3 -c 'import ensurepip' 2>/dev/null; then
        return
    fi
    if have apt-get; then
        apt_update "Python's venv"
        apt_install "Python's venv" python3-venv
    fi
    python3 -c 'import ensurepip' 2>/dev/null || die "Python's venv is missing; install it and" \
        "run this again"
}

# need_postgres: the server programs, which are enough; nobody needs to set up a server.
need_postgres() {
    if have_postgres; then
        return
    fi
    if have apt-get; then
        apt_update "PostgreSQL $OLDEST_POSTGRES or later"
        local version
        version=$(apt_candidate postgresql)
        version=${version%%[!0-9]*}
        [ "${version:-0}" -ge "$OLDEST_POSTGRES" ] || die "this system's packages have" \
            "PostgreSQL ${version:-no version} and the shop needs $OLDEST_POSTGRES or later;" \
            "install one of https://www.postgresql.org/download/ and run this again"
        apt_install_postgres
    elif have brew; then
        brew_install PostgreSQL postgresql@17
    else
        die "PostgreSQL $OLDEST_POSTGRES or later is missing; install its server programs and" \
            "run this again"
    fi
    have_postgres || die "PostgreSQL was installed, but its programs are not where they should be"
}

# Whether there are server programs that the shop accepts; it looks in the same places.
have_postgres() {
    local program version
    while IFS= read -r program; do
        if [ -x "$program" ] && [ -x "${program%/*}/initdb" ]; then
            # "postgres (PostgreSQL) 15.18 (Debian ...)"
            version=$("$program" --version 2>/dev/null) || continue
            version=${version#*) }
            version=${version%%[!0-9]*}
            if [ "${version:-0}" -ge "$OLDEST_POSTGRES" ]; then
                return 0
            fi
        fi
    done < <(postgres_programs)
    return 1
}

postgres_programs() {
    # What is on the PATH may be a link into a folder that has all the programs.
    { type -ap postgres || true; } | while IFS= read -r program; do
        readlink -f "$program" 2>/dev/null || printf '%s\n' "$program"
    done
    printf '%s\n' \
        /usr/lib/postgresql/*/bin/postgres \
        /usr/pgsql-*/bin/postgres \
        /usr/local/pgsql*/bin/postgres \
        /opt/homebrew/opt/postgresql*/bin/postgres \
        /usr/local/opt/postgresql*/bin/postgres \
        /opt/local/lib/postgresql*/bin/postgres
}

# need_redis: the server program, which is enough; nobody needs to set up a server.
need_redis() {
    if have redis-server; then
        return
    fi
    if have apt-get; then
        apt_update Redis
        apt_install_without_server Redis redis-server
    elif have brew; then
        brew_install Redis redis
    fi
    have redis-server || die "Redis is missing; install its redis-server and run this again"
}

# need_pgbouncer: the pooler that some tests put before their database.
need_pgbouncer() {
    need_server PgBouncer pgbouncer
}

# need_nginx, need_haproxy: the programs that the gateway is measured against; the benchmark
# starts them itself.
need_nginx() {
    need_server nginx nginx
}

need_haproxy() {
    need_server HAProxy haproxy
}

# need_server WHAT PACKAGE: a package whose program has the package's name.
need_server() {
    # Debian keeps servers where not everybody's PATH leads.
    if have "$2" || [ -x "/usr/sbin/$2" ]; then
        return
    fi
    if have apt-get; then
        apt_update "$1"
        apt_install_without_server "$1" "$2"
    elif have brew; then
        brew_install "$1" "$2"
    fi
    have "$2" || [ -x "/usr/sbin/$2" ] || die "$1 is missing; install it and run this again"
}

# need_browser: Chrome or Chromium, and the driver through which the tests use it. Fails
# where there is none to be had.
need_browser() {
    # GitHub's runners have the driver, but not always on the PATH.
    if ! have chromedriver && [ -x "${CHROMEWEBDRIVER:-}/chromedriver" ]; then
        PATH="$PATH:$CHROMEWEBDRIVER"
    fi
    if have_browser; then
        return
    fi
    if have apt-get && can_be_root; then
        apt_update "a browser"
        if [ -n "$(apt_candidate chromium-driver)" ]; then
            apt_install "Chromium and its driver" chromium chromium-driver
        elif have snap && [ -n "$(apt_candidate chromium-chromedriver)" ]; then
            # Ubuntu's packages, which install a snap.
            apt_install "Chromium and its driver" chromium-browser chromium-chromedriver
        fi
    elif have brew; then
        brew_install "Chrome and its driver" --cask google-chrome chromedriver
    fi
    have_browser
}

have_browser() {
    have chromedriver || return 1
    local browser
    for browser in google-chrome google-chrome-stable chromium chromium-browser; do
        if have "$browser"; then
            return 0
        fi
    done
    [ -d "/Applications/Google Chrome.app" ] || [ -d "/Applications/Chromium.app" ]
}

APT_UPDATED=no

# apt_update WHAT: reads the lists of packages, once; installing WHAT would fail with old ones.
apt_update() {
    can_be_root || die "$1 is missing, and installing it takes root or sudo; have it installed" \
        "and run this again"
    if [ "$APT_UPDATED" = yes ]; then
        return
    fi
    APT_UPDATED=yes
    say "reading the lists of packages (apt-get update)$(hint_at_sudo)"
    # A list that cannot be had need not be one that matters.
    apt_get update || say "apt-get update failed; trying to go on"
}

# apt_candidate PACKAGE: the version that would be installed; nothing if there is none.
apt_candidate() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([^(].*\)/\1/p'
}

# apt_install WHAT PACKAGE...
apt_install() {
    local what=$1
    shift
    say "installing $what (apt-get install $*)$(hint_at_sudo)"
    apt_get install -y --no-install-recommends "$@" || die "could not install $what"
}

# Installs PostgreSQL's programs only: left alone, the package would also set up a server
# that nobody asked for, started with the machine.
apt_install_postgres() {
    local folder=/etc/postgresql-common/createcluster.d
    local file="$folder/merch-store.conf" status=0
    as_root mkdir -p "$folder"
    echo "create_main_cluster = false" | as_root tee "$file" >/dev/null
    (apt_install PostgreSQL postgresql) || status=$?
    # Servers that somebody sets up later shall come as they always do.
    as_root rm -f "$file"
    as_root rmdir "$folder" 2>/dev/null || true
    [ "$status" = 0 ] || exit "$status"
}

# apt_install_without_server WHAT PACKAGE: installs a server's programs without starting one
# that nobody asked for: a package may only start it where this program says so.
apt_install_without_server() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [ -e "$policy" ]; then
        apt_install "$1" "$2"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
    (apt_install "$1" "$2") || status=$?
    as_root rm -f "$policy"
    [ "$status" = 0 ] || exit "$status"
}

# Runs apt-get without a question, and without a word unless it fails.
apt_get() {
    local log status=0
    log=$(mktemp)
    # The first minutes of a new machine may belong to its automatic updates.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 "$@" </dev/null >"$log" 2>&1 || status=$?
    [ "$status" = 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

# brew_install WHAT ARGUMENT...
brew_install() {
    local what=$1
    shift
    say "installing $what (brew install $*)"
    brew install "$@" >&2 || say "could not install $what"
}

can_be_root() {
    [ "$(id -u)" = 0 ] || have sudo
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

hint_at_sudo() {
    if [ "$(id -u)" != 0 ]; then
        printf ', with sudo'
    fi
}
