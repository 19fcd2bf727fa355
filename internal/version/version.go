// Package version says which version of Kubernetes this is, with Skiff's mark.
//
// It makes k8s.io/component-base, which the API server, the agent, metrics and
// the built-in kubectl ask, say the same. Upstream leaves that to the linker's
// -X flags, so that a program built by a plain "go build" or "go install" would
// call itself v0.0.0-master; here the version is a matter of the source alone.
package version

import (
	"fmt"
	"strings"
	_ "unsafe" // for go:linkname

	"k8s.io/component-base/version"
)

// Version is what the cluster reports.
const Version = "v1.37.2+skiff"

// component-base has no other way in. Should a variable be renamed there, the
// linker does not find it and the tests of this package fail.
var (
	//go:linkname gitVersion k8s.io/component-base/version.gitVersion
	gitVersion string
	//go:linkname gitMajor k8s.io/component-base/version.gitMajor
	gitMajor string
	//go:linkname gitMinor k8s.io/component-base/version.gitMinor
	gitMinor string
	//go:linkname gitCommit k8s.io/component-base/version.gitCommit
	gitCommit string
	//go:linkname gitTreeState k8s.io/component-base/version.gitTreeState
	gitTreeState string
)

// init is run before any package that imports this one can ask.
func init() {
	parts := strings.SplitN(strings.TrimPrefix(Version, "v"), ".", 3)
	gitVersion, gitMajor, gitMinor, gitTreeState = Version, parts[0], parts[1], "clean"
	if strings.HasPrefix(gitCommit, "$Format") { // nobody has said which
		gitCommit = ""
	}
	// What is asked was copied when component-base was initialized.
	if err := version.SetDynamicVersion(Version); err != nil {
		panic(fmt.Sprintf("internal/version: %v", err))
	}
}
