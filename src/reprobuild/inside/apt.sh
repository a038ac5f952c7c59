#!/bin/sh
# Installs the packages that lie beside it into the image that it runs in, without a network, and leaves nothing
# behind that would be another one the next time. Beside it: `order`, what dpkg is to do; `architecture`; `debs`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C.UTF-8 TZ=UTC PYTHONHASHSEED=0
# The day in /etc/shadow, and what compiled Python files go by.
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-315532800}"
umask 022

has=$(dpkg --print-architecture) wants=$(cat "$here/architecture")
if [ "$has" != "$wants" ]; then
  echo "apt: these packages are for $wants, and this image is for $has" >&2
  exit 1
fi

# Logs, caches that hold times or inode numbers, and what packages draw by lot for one machine, which no two
# containers should share: these files get back what they held before, or go if they weren't there.
kept=$(mktemp -d)
waste="/var/log/alternatives.log /var/log/fontconfig.log
  /var/cache/ldconfig/aux-cache /var/cache/debconf/config.dat-old /var/cache/debconf/templates.dat-old
  /var/lib/dpkg/status-old /var/lib/dpkg/diversions-old /var/lib/dpkg/statoverride-old
  /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid- /usr/sbin/policy-rc.d
  /etc/machine-id /var/lib/dbus/machine-id
  /etc/ssh/ssh_host_rsa_key /etc/ssh/ssh_host_ecdsa_key /etc/ssh/ssh_host_ed25519_key
  /etc/ssh/ssh_host_rsa_key.pub /etc/ssh/ssh_host_ecdsa_key.pub /etc/ssh/ssh_host_ed25519_key.pub"
for file in $waste; do
  if [ -e "$file" ]; then
    mkdir -p "$kept${file%/*}"
    cp -a "$file" "$kept$file"
  fi
done
restore() {
  for file in $waste; do
    rm -f "$file"
    if [ -e "$kept$file" ]; then cp -a "$kept$file" "$file"; fi
  done
  rm -rf "$kept"
}
trap restore EXIT
# No package starts a service here.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

install() {
  dpkg --log=/dev/null --force-confdef --force-confold --force-unsafe-io "$@" </dev/null 3<&-
}
while read -r verb words <&3; do
  set --
  for word in $words; do set -- "$@" "$word"; done
  (cd "$here/debs" && install --no-triggers "--$verb" "$@")
done 3<"$here/order"
install --configure --pending
