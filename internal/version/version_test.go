package version

import (
	"testing"

	utilversion "k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/component-base/version"
)

func TestKubernetesLibrariesReportTheVersion(t *testing.T) {
	t.Parallel()
	info := version.Get()
	if info.GitVersion != Version || info.Major != "1" || info.Minor != "37" || info.GitTreeState != "clean" || info.GitCommit != "" {
		t.Errorf("component-base reports %+v, want %s", info, Version)
	}
	// What the API server answers at /version.
	served := utilversion.DefaultBuildEffectiveVersion().Info()
	if served.GitVersion != Version || served.Major != "1" || served.Minor != "37" {
		t.Errorf("the API server reports %+v, want %s", served, Version)
	}
}
