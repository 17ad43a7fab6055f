#!/bin/sh
# Gives holdfast a renewed certificate. Install it, and name it to the program that renews. The Debian package has it in
# /usr/libexec/holdfast.
#
#   install -D -m 755 deploy/renew-hook.sh /usr/local/lib/holdfast/renew-hook.sh
#   getent group ssl-cert || groupadd --system ssl-cert
#   certbot renew --deploy-hook /usr/local/lib/holdfast/renew-hook.sh
#   lego ... renew --renew-hook /usr/local/lib/holdfast/renew-hook.sh
#
# It copies the certificate and the key into a directory that only root and one group can read (HOLDFAST_TLS_DIR, by
# default /etc/holdfast/tls; HOLDFAST_TLS_GROUP, by default ssl-cert), as cert.pem and key.pem. holdfast sees the change
# within some seconds by itself.
set -eu

if [ -n "${RENEWED_LINEAGE:-}" ]; then # certbot
  cert=$RENEWED_LINEAGE/fullchain.pem key=$RENEWED_LINEAGE/privkey.pem
elif [ -n "${LEGO_CERT_PATH:-}" ]; then # lego
  cert=$LEGO_CERT_PATH key=$LEGO_CERT_KEY_PATH
else
  echo 'renew-hook.sh: neither RENEWED_LINEAGE (certbot) nor LEGO_CERT_PATH (lego) is set' >&2
  exit 64
fi
to=${HOLDFAST_TLS_DIR:-/etc/holdfast/tls}

# Each file is written under another name first and then renamed, so that holdfast never reads half of it.
mkdir -p "$to"
chgrp "${HOLDFAST_TLS_GROUP:-ssl-cert}" "$to" # before anything is written, because the group may be missing
umask 077
cp "$cert" "$to/cert.pem.new"
cp "$key" "$to/key.pem.new"
chgrp "${HOLDFAST_TLS_GROUP:-ssl-cert}" "$to/cert.pem.new" "$to/key.pem.new"
chmod 750 "$to"
chmod 640 "$to/cert.pem.new" "$to/key.pem.new"
mv "$to/key.pem.new" "$to/key.pem"
mv "$to/cert.pem.new" "$to/cert.pem"
