#!/usr/bin/env bash
# Builds Kubernetes' conformance suite and its images into a folder of the
# user's cache, once for each version of what they are made of, and prints where
# they are: a folder with e2e.test, ginkgo and programs/, and a registry's folder.
# The first time takes ten minutes on two cores, and 3 GB of memory.
#   test/conformance/build.sh
set -euo pipefail
cd "$(dirname "$0")"
cache=${SKIFF_CONFORMANCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skiff-conformance}
mkdir -p "$cache"
# One at a time, whatever the number of checkouts.
exec 9>"$cache/lock"
flock 9
export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"

key=$( (go env GOVERSION; cat go.mod go.sum build.sh) | sha256sum | cut -c1-12)
suite=$cache/suite-$key
if [ ! -e "$suite" ]; then
  echo "building the suite: ten minutes the first time" >&2
  rm -rf "$cache"/suite-*.new
  mkdir -p "$suite.new/programs"
  # Tests ask what release they belong to.
  version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
  IFS=. read -r major minor _ <<<"${version#v}"
  package=k8s.io/component-base/version
  ldflags="-s -w -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
  go build -ldflags "$ldflags" -o "$suite.new/programs/" \
    k8s.io/kubernetes/test/images/agnhost k8s.io/kubernetes/test/images/nonewprivs k8s.io/kubernetes/test/images/regression-issue-74839 \
    k8s.io/kubernetes/test/images/resource-consumer k8s.io/kubernetes/test/images/resource-consumer/consume-cpu k8s.io/sample-apiserver
  go build -ldflags "$ldflags" -o "$suite.new/" github.com/onsi/ginkgo/v2/ginkgo
  go test -c -vet=off -ldflags "$ldflags" -o "$suite.new/e2e.test" k8s.io/kubernetes/test/e2e
  mv "$suite.new" "$suite"
fi
touch "$suite"

sources=$(go list -m -f '{{.Dir}}' k8s.io/kubernetes)
images=$cache/images-$( (echo "$key"; cat ../images/*.go ../images/*/*.go) | sha256sum | cut -c1-12)
if [ ! -e "$images/pushed" ]; then
  echo "making the images" >&2
  rm -rf "$images"
  trap '../../hack/registry.sh stop "$images"' EXIT
  ../../hack/registry.sh start "$images" 5056 --suite "$suite/programs" --suite-sources "$sources" 9>&- >/dev/null
fi
touch "$images"

# What no checkout has used for a month.
find "$cache" -maxdepth 1 -mindepth 1 -type d -mtime +30 -exec rm -rf {} +
echo "$suite $images"
