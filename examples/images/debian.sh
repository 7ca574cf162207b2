#!/bin/sh
# Makes the images of examples/shop and examples/compose: example/debian:bookworm, by
# mmdebstrap of the packages that the machine's own sources offer, and on it
# example/NAME:bookworm for each package below. Needs root.
set -eu
cd "$(dirname "$0")"
packages='haproxy memcached postgresql python3-psycopg2'
work=$(mktemp -d)
trap 'platelayer down --quiet debian-packages 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
export DEBIAN_FRONTEND=noninteractive

# The base, with curl; the packages are only fetched. No package starts services in
# it, and postgresql makes no database.
set --
for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
	if [ -e "$f" ]; then set -- "$@" "$f"; fi
done
# shellcheck disable=SC2016
mmdebstrap --variant=minbase --include=curl,usr-is-merged --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
	--aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' --customize-hook='
		cd "$1"
		rm -f etc/hostname etc/resolv.conf
		printf "#!/bin/sh\nexit 101\n" >usr/sbin/policy-rc.d
		chmod 755 usr/sbin/policy-rc.d
		mkdir -p etc/postgresql-common/createcluster.d
		echo "create_main_cluster = false" >etc/postgresql-common/createcluster.d/none.conf' \
	--customize-hook='
		export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
		for p in '"$packages"'; do
			mkdir -p "'"$work"'/packages/$p/partial"
			apt-get -qq --download-only -o "Dir::Cache::archives='"$work"'/packages/$p" install "$p"
		done' \
	bookworm "$work/base.tar" "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
platelayer image import "$work/base.tar" example/debian:bookworm -c 'CMD ["sleep", "infinity"]'

add() {
	platelayer exec --name debian-packages -T "$1" sh -c "apt-get -qq install /packages/$1/*.deb" >"$work/$1.log" 2>&1 || { cat "$work/$1.log" >&2; return 1; }
}
PACKAGES=$work/packages platelayer up --quiet debian.yaml
adding=
for p in $packages; do
	add "$p" &
	adding="$adding $!"
done
for pid in $adding; do wait "$pid"; done
for p in $packages; do
	platelayer commit --name debian-packages "$p" "example/$p:bookworm" -m "with $p"
done
