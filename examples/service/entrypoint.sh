#!/bin/sh
# bitfront, with the password of PostgreSQL from a secret, so that no environment or address has it
set -eu
if [ -r /run/secrets/database-password ]; then
    PGPASSWORD=$(cat /run/secrets/database-password)
    export PGPASSWORD
fi
exec bitfront "$@"
