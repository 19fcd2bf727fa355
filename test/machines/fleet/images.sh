#!/usr/bin/env bash
# Makes, once, the images that a fleet's pods run, and prints the folder of a
# registry that holds them.
#   test/machines/fleet/images.sh [CACHE]
set -euo pipefail
me=$(realpath "$0")
cd "$(dirname "$me")/../../.."
cache=$(realpath -m "${1:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff/machines}")
mkdir -p "$cache"
sum=$(find test/images -type f | sort | xargs cat "$me" | sha256sum | cut -c1-12)
folder=$cache/images-$sum
exec 9>"$cache/lock-images"
flock 9
if [ ! -e "$folder/pushed" ]; then
  rm -rf "$folder"
  # Any port will do for as long as it takes.
  port=$((20000 + $$ % 10000))
  hack/registry.sh start "$folder" "$port" 9>&- >/dev/null || { hack/registry.sh stop "$folder"; exit 1; }
  hack/registry.sh stop "$folder"
  find "$cache" -maxdepth 1 -name 'images-*' ! -name "images-$sum" -mtime +1 -exec rm -rf {} +
fi
echo "$folder/data"
