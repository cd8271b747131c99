# Sourced by scripts that compile the workspace: the Debian packages that this takes beside Rust. The renderer is
# compiled against GStreamer; everything else needs a C compiler alone.

# Installs packages, or says which ones only root can install.
install_packages() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "These Debian packages are missing, and only root can install them:"
        echo "    apt-get install --no-install-recommends $*"
        return 1
    fi
    local log status
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update >/dev/null
    apt-get -q -y install --no-install-recommends "$@" >"$log" 2>&1
    status=$?
    [ $status = 0 ] || tail -5 "$log"
    rm -f "$log"
    return $status
}

# What it takes to compile and link.
need_build_packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    # Of both: the core, and the library of appsrc and appsink.
    pkg-config --exists gstreamer-1.0 gstreamer-app-1.0 2>/dev/null ||
        missing+=(libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev)
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}
