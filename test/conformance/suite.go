// Package conformance names what build.sh builds, so that this module's go.mod
// has all it is made of.
package conformance

import (
	_ "k8s.io/kubernetes/test/e2e" // its test is the suite
)
