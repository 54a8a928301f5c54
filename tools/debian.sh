# shellcheck shell=bash
#
# debian.sh - what the scripts that fetch from Debian's archive share; to be sourced
# after common.sh, never run.  The archive is whatever mirror this machine's apt is
# configured for.

SC_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# Where other PostgreSQLs are looked for, the calmest first. "experimental" isn't a whole suite, but packages
# on top of sid: what is in it today may be in sid tomorrow, or nowhere.
SC_SUITES=(trixie sid experimental)

# Runs a command as root.
root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		command -v sudo >/dev/null || die "needs root or sudo for: $*"
		sudo "$@"
	fi
}

# The mirror of Debian's main archive in apt's configuration.
debian_mirror() {
	local uri
	# shellcheck disable=SC2016
	uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' \
		2>/dev/null | grep -v security | head -n 1 || true)
	if [ -z "$uri" ]; then	# lists never fetched: read the sources themselves
		uri=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
			/etc/apt/sources.list.d/*.sources 2>/dev/null |
			grep -E '^(deb |URIs:)' | grep -oE '[a-z+]+://[^ ]*/debian/?( |$)' | head -n 1 || true)
	fi
	[ -n "$uri" ] || die "no Debian mirror in apt's configuration"
	echo "${uri% }"
}

# private_apt FOLDER LINE...: apt lists and sources of our own below FOLDER, LINEs being those
# of sources.list without their mirror ("deb trixie main").  Sets the array SC_APT to the
# options that apt's programs need to use them; the system's configuration is not touched.
private_apt() {
	local apt=$1 line mirror
	shift
	mirror=$(debian_mirror)
	mkdir -p "$apt/lists/partial" "$apt/archives/partial"
	for line in "$@"; do
		echo "${line%% *} [signed-by=$SC_KEYRING] $mirror ${line#* }"
	done >"$apt/sources.list"
	SC_APT=(-qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
		-o Dir::State="$apt" -o Dir::State::Lists="$apt/lists" -o Dir::State::Status=/dev/null
		-o Dir::Cache="$apt" -o Dir::Cache::Archives="$apt/archives"
		-o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User="$(id -un)")
}
