#!/bin/sh
# Make what docker-compose.yml reads as secrets, as far as it is not there, and a .env to change.
set -eu
cd "$(dirname "$0")/.."
folder=${SECRETS_DIR:-docker/secrets}
umask 077
mkdir -p "$folder"

# Compose mounts each file as it is, for users of the containers that own none of it: so the files
# can be read by all, and the folder around them by its owner alone.
chmod 700 "$folder"
make_secret() {
    [ -s "$folder/$1" ] || { printf '%s' "$2" >"$folder/$1" && echo "made $folder/$1"; }
    chmod 444 "$folder/$1"
}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

make_secret postgres_password "$(random)"
make_secret nnpm_database_url "postgresql://nnpm:$(cat "$folder/postgres_password")@database/nnpm"
make_secret grafana_password "$(random)"
[ -e .env ] || { cp .env.example .env && chmod 644 .env && echo "made .env"; }
echo "Grafana's user is admin, its password in $folder/grafana_password."
