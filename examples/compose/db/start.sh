#!/bin/sh
# Starts PostgreSQL in the foreground, after making the database if there is
# none, as the entrypoint of an image does.
set -eu

bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
home=/var/lib/postgresql
data=$home/data
new=$home/new

# As root: what is mounted belongs to root at first. Then become postgres.
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$home" /run/postgresql
	chown postgres:postgres "$home" /run/postgresql
	exec setpriv --reuid=postgres --regid=postgres --init-groups /bin/sh "$0"
fi

# Filled under another name first: a start that was cut short begins anew.
if [ ! -e "$data" ]; then
	rm -rf "$new"
	"$bin/initdb" -D "$new" --encoding=UTF8 --locale=C.UTF-8 --auth-local=peer --auth-host=scram-sha-256 --no-sync >/dev/null
	echo 'host all all all scram-sha-256' >>"$new/pg_hba.conf"
	"$bin/pg_ctl" -D "$new" -w -s start -o "-c listen_addresses= -c unix_socket_directories=$new -c fsync=off" >/dev/null
	"$bin/psql" -h "$new" -d postgres -q -v ON_ERROR_STOP=1 -v "database=$DATABASE" \
		-v "password=$(cat /run/secrets/db-password)" -f "${0%/*}/init.sql"
	"$bin/pg_ctl" -D "$new" -w -s -m fast stop
	mv "$new" "$data"
fi

exec "$bin/postgres" -D "$data" -c 'listen_addresses=*' -c jit=off
