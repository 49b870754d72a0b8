# shellcheck shell=bash
# A Debian system of its own for a judge: made by debootstrap, kept in the
# cache, entered in mount, process, IPC and host-name namespaces of its own.
#
# Owns: which mirror, the minimal system as a tar archive, the mounts, and how a
# command runs inside. Refuses to know what is judged there.
#
# DEB-1: nothing is mounted outside the namespace of one command, so that a
#        judge that is killed leaves no mount behind.
# DEB-2: what runs inside ends with the command that started it.
#
# Sourced after lib.sh; needs root and debootstrap.

debian_home=$cache_dir/bare-debian
system_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# debian_minbase RELEASE [REFRESH]: sets `sources` (of apt) and `tarball`, made
# if it is not there. The mirror is the host's; a release that the host's apt
# does not have is looked for on the mirror of the host's own.
debian_minbase() {
    local release=$1 refresh=${2:-0} list mirror host
    ((EUID == 0)) || die "needs root, for the namespaces and the chroot"
    need debootstrap debootstrap
    need unshare util-linux
    need git git
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    need_file "$keyring" debian-archive-keyring
    [[ $release =~ ^[a-z]+$ ]] || die "--release: '$release' is no release's name"
    architecture=$(dpkg --print-architecture)
    # shellcheck disable=SC2016 # apt expands it
    list=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' | sort -u)
    sources=$(awk -v r="$release" '$3 == "main" && index($2, r) == 1 &&
        ($2 == r || substr($2, length(r) + 1, 1) == "-") {
            print "deb " $1 " " $2 " " $3 }' <<<"$list")
    if [[ -z $sources ]]; then
        host=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
        mirror=$(awk -v r="$host" '$3 == "main" && $2 == r { print $1; exit }' <<<"$list")
        [[ -n $mirror ]] || die "apt's configuration names no mirror of Debian"
        sources="deb $mirror $release main"
    fi
    mirror=$(awk -v r="$release" '$3 == r { print $2; exit }' <<<"$sources")
    [[ -n $mirror ]] || die "apt's configuration names no mirror of $release"

    mkdir -p "$debian_home/archives-$release/partial"
    # Held until debian_unlock or the end: apt's archives are shared.
    exec {system_lock}>"$debian_home/.lock-$release"
    flock -w 600 "$system_lock" ||
        die "another judge is at work on $release in $debian_home"
    tarball=$debian_home/$release-$architecture-$(sha256sum \
        <<<"minbase git $sources" | cut -c1-12).tar
    if [[ ! -s $tarball || $refresh -eq 1 ]]; then
        # A release newer than the host's debootstrap is made by sid's script.
        local script=/usr/share/debootstrap/scripts/$release
        [[ -e $script ]] || script=/usr/share/debootstrap/scripts/sid
        say "debootstrap of $release (once; about a minute)"
        rm -rf --one-file-system "$debian_home/new-$release"
        timeout 900 debootstrap --variant=minbase \
            --include=git,ca-certificates --arch="$architecture" \
            --keyring="$keyring" "$release" "$debian_home/new-$release" "$mirror" \
            "$script" >"$results_dir/debootstrap.log" 2>&1 || {
            tail -n 5 "$results_dir/debootstrap.log" >&2
            die "debootstrap failed (log: $results_dir/debootstrap.log)"
        }
        rm -f "$debian_home/new-$release"/var/cache/apt/archives/*.deb
        # Devices come from the host, at run time.
        tar -C "$debian_home/new-$release" --exclude=./dev/* -cf "$tarball.new" .
        rm -rf --one-file-system "$debian_home/new-$release"
        mv "$tarball.new" "$tarball"
    fi
    archives=$debian_home/archives-$release
}
debian_unlock() { flock -u "$system_lock"; }

# debian_unpack DIRECTORY: the minimal system, with the host's way to its mirror
# and to names.
debian_unpack() {
    mkdir -p "$1"
    tar -C "$1" -xpf "$tarball"
    printf '%s\n' "$sources" >"$1/etc/apt/sources.list"
    # Proxies, date checks.
    apt-config dump Acquire | grep -vE '^Acquire(::(Languages|Compression))? ' \
        >"$1/etc/apt/apt.conf.d/90host" || true
    cp -L /etc/resolv.conf /etc/hosts "$1/etc/" 2>/dev/null || true
    cat /etc/hostname >"$1/etc/hostname" 2>/dev/null || true
    mkdir -p "$1/judge"
    debian_write_inside "$1/judge/inside"
}

debian_write_inside() {
    install -m 755 /dev/stdin "$1" <<'INSIDE'
#!/bin/sh
# Runs in the new namespaces: mounts what a machine has, then the command.
set -e
root=$1 archives=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys && mount -o remount,bind,ro sys
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=1777 tmpfs tmp
if [ -n "$archives" ]; then
    mount --bind "$archives" var/cache/apt/archives
fi
exec chroot . "$@"
INSIDE
}

# debian_bundle DIRECTORY: the commit that is checked out, as
# DIRECTORY/checkout.bundle with one branch, named by `branch`; `commit` names
# it in the verdict, whatever is checked out by then.
debian_bundle() {
    commit=$(git -C "$root_dir" rev-parse --short HEAD)
    [[ -z $(git -C "$root_dir" status --porcelain -uno) ]] ||
        say "note: changes that are not committed are not part of this"
    # A name of its own: a bundle of a detached HEAD would have no branch.
    local name=judged-$$
    git -C "$root_dir" branch -f "$name" HEAD
    git -C "$root_dir" bundle create "$1/checkout.bundle" HEAD "$name" \
        >"$results_dir/bundle.log" 2>&1 || {
        git -C "$root_dir" branch -q -D "$name"
        die "git bundle failed: $(last_line "$results_dir/bundle.log")"
    }
    git -C "$root_dir" branch -q -D "$name"
    branch=$name
}

# within USER DIRECTORY LIMIT COMMAND: runs a shell command in the system that
# `system` names. DEB-2 by the process namespace.
running=''
within() {
    local user=$1 directory=$2 limit=$3 command=$4
    local environment=("PATH=$system_path" LANG=C.UTF-8 TERM=dumb
        "HOME=$(awk -F: -v u="$user" '$1 == u { print $6 }' "$system/etc/passwd")"
        "USER=$user")
    local name
    for name in http_proxy https_proxy no_proxy; do
        if [[ -n ${!name:-} ]]; then environment+=("$name=${!name}"); fi
    done
    local as=(setpriv "--reuid=$user" "--regid=$user" --init-groups)
    if [[ $user == root ]]; then as=(); fi
    timeout -k 10 "$limit" unshare --mount --pid --ipc --uts --fork \
        --kill-child "$system/judge/inside" "$system" "$archives" \
        /usr/bin/env -i "${environment[@]}" "${as[@]}" \
        /bin/bash -c "cd '$directory' && $command" </dev/null &
    # Waited for, so that a signal to this script is not held up by it.
    running=$!
    local rc=0
    wait "$running" || rc=$?
    running=''
    return "$rc"
}

# debian_stop: what still runs in the system ends first, and all of it with its
# first process; then the system can go.
debian_stop() {
    if [[ -n $running ]]; then
        kill -TERM "$running" 2>/dev/null || true
        wait "$running" 2>/dev/null || true
    fi
}

# step NAME USER DIRECTORY LIMIT COMMAND: one case; 0 if it passed.
step() {
    local name=$1 rc=0 start log=$results_dir/$1.log
    shift
    say "$name: $4 (as $1)"
    start=$(now_ms)
    within "$@" >"$log" 2>&1 || rc=$?
    if ((rc == 0)); then
        result "$name" passed "$(($(now_ms) - start))" "$(last_line "$log")"
        say "passed $name in $(($(now_ms) - start)) ms: $(last_line "$log")"
        return 0
    fi
    local why="exit code $rc"
    if ((rc == 124 || rc == 137)); then why="not done after $3 s"; fi
    result "$name" failed "$(($(now_ms) - start))" "$why: $(last_line "$log")"
    tail -n 20 "$log" | sed 's/^/    | /' >&2
    return 1
}
