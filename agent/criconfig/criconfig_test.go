package criconfig

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSignalsHaveANameInTheCRI(t *testing.T) {
	t.Parallel()
	for _, s := range []v1.Signal{v1.SIGTERM, v1.SIGUSR1, v1.SIGRTMIN, v1.SIGRTMINPLUS1, v1.SIGRTMAXMINUS14, v1.SIGKILL} {
		if _, ok := runtimeapi.Signal_value[criSignal(s)]; !ok {
			t.Errorf("%s is not known as %s", s, criSignal(s))
		}
	}
}
