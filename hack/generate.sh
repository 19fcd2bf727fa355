#!/usr/bin/env bash
# Makes control/openapi/zz_generated.openapi.go: the OpenAPI definitions of
# every type the API serves, from the comments of k8s.io/api.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(go list -m -f '{{.Version}}' k8s.io/kube-openapi)
header=$(mktemp)
trap 'rm -f "$header"' EXIT
packages=(
  k8s.io/api/admissionregistration/v1 k8s.io/api/apps/v1 k8s.io/api/authentication/v1 k8s.io/api/authorization/v1
  k8s.io/api/autoscaling/v1 k8s.io/api/certificates/v1 k8s.io/api/coordination/v1 k8s.io/api/core/v1 k8s.io/api/discovery/v1 k8s.io/api/events/v1
  k8s.io/api/networking/v1 k8s.io/api/node/v1 k8s.io/api/policy/v1 k8s.io/api/rbac/v1 k8s.io/api/scheduling/v1 k8s.io/api/storage/v1
  k8s.io/metrics/pkg/apis/metrics/v1beta1
  k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime
  k8s.io/apimachinery/pkg/util/intstr k8s.io/apimachinery/pkg/version
)
go run "k8s.io/kube-openapi/cmd/openapi-gen" --output-dir control/openapi --output-pkg github.com/skiff-run/skiff/control/openapi \
  --output-file zz_generated.openapi.go --go-header-file "$header" --report-filename /dev/null "${packages[@]}"
echo "generated with kube-openapi $version"
