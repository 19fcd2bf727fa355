package criconfig

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

func TestSignalsHaveANameInTheCRI(t *testing.T) {
	t.Parallel()
	for _, s := range []v1.Signal{v1.SIGTERM, v1.SIGUSR1, v1.SIGRTMIN, v1.SIGRTMINPLUS1, v1.SIGRTMAXMINUS14, v1.SIGKILL} {
		if _, ok := runtimeapi.Signal_value[criSignal(s)]; !ok {
			t.Errorf("%s is not known as %s", s, criSignal(s))
		}
	}
}

func TestAMachineThatShutsDownWaitsForAContainerAsLongAsItsPodMayTake(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		grace *int64
		want  string
	}{
		"nothing said":                {nil, "uint64 2000000"},
		"less than every pod gets":    {ptr.To[int64](0), "uint64 2000000"},
		"the usual":                   {ptr.To[int64](30), "uint64 30000000"},
		"more than fits microseconds": {ptr.To[int64](1 << 62), "uint64 86400000000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := annotations(Container{Pod: &v1.Pod{Spec: v1.PodSpec{TerminationGracePeriodSeconds: c.grace}}})
			if got := a["org.systemd.property.TimeoutStopUSec"]; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
