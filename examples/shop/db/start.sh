#!/bin/sh
# Starts PostgreSQL in the foreground, after making the database if there is none.
set -eu

bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
home=/var/lib/postgresql
data=$home/data
new=$home/new

# As root: make what postgres may not make itself, then become postgres.
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$home" /run/postgresql
	chown postgres:postgres "$home" /run/postgresql
	exec setpriv --reuid=postgres --regid=postgres --init-groups /bin/sh "$0"
fi

# Filled under another name first: a start that was cut short begins anew. The
# server for that is out of everybody's reach, its socket too.
if [ ! -e "$data" ]; then
	rm -rf "$new"
	"$bin/initdb" -D "$new" --encoding=UTF8 --locale=C.UTF-8 --auth=peer --no-sync >/dev/null
	"$bin/pg_ctl" -D "$new" -w -s start -o "-c listen_addresses= -c unix_socket_directories=$new -c fsync=off" >/dev/null
	"$bin/psql" -h "$new" -d postgres -q -v ON_ERROR_STOP=1 -v "password=$SHOP_PASSWORD" -f "${0%/*}/init.sql"
	"$bin/pg_ctl" -D "$new" -w -s -m fast stop
	mv "$new" "$data"
fi

# After a SIGKILL the data are recovered. The lock file that is left tells the pid
# of a dead server, 1, and PostgreSQL knows it as its own.
exec "$bin/postgres" -D "$data" -c config_file="${0%/*}/postgresql.conf" -c hba_file="${0%/*}/pg_hba.conf"
