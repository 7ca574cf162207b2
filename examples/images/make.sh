#!/bin/sh
# Makes the images example/tools:1 and example/web:1 of Debian's busybox-static and
# the folder site: nothing is pulled. Needs root, as all that writes images.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH=0 # the same digests each time

# A root folder in a tar, owned by root. root DIR NAME CHANGE...
image() {
	dir=$1 name=$2
	shift 2
	tar -C "$dir" --sort=name --owner=0 --group=0 --mtime=@0 -c . | platelayer image import - "$name" "$@"
}

mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp"
chmod 1777 "$work/root/tmp"
cp /bin/busybox "$work/root/bin/"
for applet in sh cat date grep httpd id ls mkdir nc ps sed sleep touch wget; do
	ln -s busybox "$work/root/bin/$applet"
done
printf 'root:x:0:0:root:/:/bin/sh\nweb:x:1000:1000:web:/srv:/bin/sh\n' >"$work/root/etc/passwd"
printf 'root:x:0:\nweb:x:1000:\n' >"$work/root/etc/group"
image "$work/root" example/tools:1 -c 'CMD ["sleep", "infinity"]'

cp -R site "$work/root/srv"
printf '#!/bin/sh\necho "serving $GREETING as $(id -un)"\nexec "$@"\n' >"$work/root/bin/entry"
chmod 755 "$work/root/bin/entry"
image "$work/root" example/web:1 -c 'ENTRYPOINT ["entry"]' -c 'CMD ["httpd", "-f", "-p", "8080", "-h", "/srv"]' \
	-c 'ENV GREETING=everybody' -c 'USER web' -c 'WORKDIR /srv' -c 'EXPOSE 8080' -c 'VOLUME /var/cache/web' \
	-c 'HEALTHCHECK --interval=1s CMD wget -q -O /dev/null http://127.0.0.1:8080/'
