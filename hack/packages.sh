#!/usr/bin/env bash
# Makes the Debian packages, or a tarball for other distributions, in dist/.
#   hack/packages.sh deb|tarball
# ARCH, amd64 or arm64, is the machine that they are for; REVISION Debian's
# revision of the package. Recipes and scripts are in systemd/packages.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:?deb or tarball}
host=$(go env GOHOSTARCH)
arch=${ARCH:-$host}
revision=${REVISION:-1}
case $arch in amd64 | arm64) ;; *) echo "ARCH=$arch: there are packages for amd64 and arm64" >&2; exit 1 ;; esac
[[ $revision =~ ^[0-9][0-9A-Za-z.~]*$ ]] || { echo "REVISION=$revision: give a number, such as 2" >&2; exit 1; }
version=$(sed -n 's/^const Version = "v\(.*\)"$/\1/p' internal/version/version.go)
# The same source makes the same packages.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH CGO_ENABLED=0 GOFLAGS="${GOFLAGS:--trimpath -buildvcs=false}"
programs="skiff skiff-control skiff-agent skiff-proxy"

# Two at once would write the same files.
mkdir -p .build
exec 9>.build/lock-packages
flock 9

bin=bin
if [ "$arch" != "$host" ]; then
  bin=.build/$arch
  mkdir -p "$bin"
fi
GOARCH=$arch go build -ldflags "$(make -s print-ldflags)" -o "$bin/" ./cmd/...

# The manual and the completions come out of programs of this machine that have
# nothing else to do.
share=.build/$what-$arch-$revision
rm -rf "$share"
mkdir -p "$share" .build/man
go build -tags man -ldflags "$(make -s print-ldflags)" -o .build/man/ ./cmd/...
for program in $programs; do
  .build/man/"$program" "$share/$program"
  mkdir -p "$share/man"
  mv "$share/$program/man" "$share/man/$program"
  gzip -9n "$share/man/$program"/*
done
mv "$share/skiff/completions" "$share/completions"
{
  echo "skiff ($version-$revision) stable; urgency=medium"
  echo
  echo "  * See docs in /usr/share/doc/skiff and the project's history."
  echo
  echo " -- Skiff <skiff@skiff.dev>  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$share/changelog.Debian.gz"
mkdir -p dist

case $what in
deb)
  (cd hack/nfpm && go build -o ../../.build/nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm)
  for program in $programs; do
    mkdir -p "$share/scripts/$program"
    sed -e '/^#SHARED#$/{r systemd/packages/shared.sh
d}' "systemd/packages/$program/postrm" >"$share/scripts/$program/postrm"
    sed -e "s|\${BIN}|$bin|g; s|\${SHARE}|$share|g; s|\${ARCH}|$arch|g; s|\${VERSION}|$version|g; s|\${REVISION}|$revision|g" \
      "systemd/packages/$program/nfpm.yaml" >"$share/$program.yaml"
    .build/nfpm package --config "$share/$program.yaml" --packager deb --target dist/ >/dev/null
    echo "dist/${program}_$version-${revision}_$arch.deb"
  done
  ;;
tarball)
  name=skiff-$version-linux-$arch
  root=.build/$name
  rm -rf "$root"
  mkdir -p "$root"/{bin,systemd,man,completions,docs}
  for program in $programs; do cp "$bin/$program" "$root/bin/"; done
  cp systemd/*.service systemd/*.slice systemd/*.conf "$root/systemd/"
  cp systemd/packages/skiff-agent/modules.conf "$root/systemd/skiff-agent.modules.conf"
  cp "$share"/man/*/*.gz "$root/man/"
  cp "$share"/completions/* "$root/completions/"
  cp README.md LICENSE "$root/"
  cp docs/*.md "$root/docs/"
  install -m 0755 systemd/packages/install.sh "$root/install.sh"
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C .build -czf "dist/$name.tar.gz" "$name"
  rm -rf "$root"
  echo "dist/$name.tar.gz"
  ;;
*)
  echo "hack/packages.sh $what: deb or tarball" >&2
  exit 1
  ;;
esac
