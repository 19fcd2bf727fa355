#!/usr/bin/env bash
# Runs inside a Debian machine: makes the image docker.io/library/box:1 out of its
# busybox, with a page at /www/index.html, for containerd. There is no registry.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin" "$work/root/www"
cp /bin/busybox "$work/root/bin/"
for name in $(busybox --list); do [ "$name" = busybox ] || ln -s busybox "$work/root/bin/$name"; done
echo "this is the pod" >"$work/root/www/index.html"
tar -C "$work/root" -cf "$work/layer.tar" .
sum=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
echo '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:'"$sum"'"]}}' >"$work/config.json"
echo '[{"Config":"config.json","RepoTags":["docker.io/library/box:1"],"Layers":["layer.tar"]}]' >"$work/manifest.json"
tar -C "$work" -cf "$work/image.tar" manifest.json config.json layer.tar
ctr -n k8s.io images import "$work/image.tar"
