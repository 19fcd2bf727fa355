package node

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// frozen is a runtime that does not answer any more, though it is connected.
type frozen struct{ well }

func (frozen) Version(ctx context.Context, _ string) (*runtimeapi.VersionResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestARuntimeThatHangsMakesTheNodeNotReadyAndNotTheLoopHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Config{
			Client: fake.NewClientset(), Runtime: frozen{}, Events: record.NewFakeRecorder(10), Logger: slog.New(slog.DiscardHandler), Name: "a",
			Facts: &Facts{}, Pressure: func() Pressure { return Pressure{} },
		})
		object := version("1", v1.ConditionTrue)
		for range 2 {
			object = object.DeepCopy()
			begin := time.Now()
			m.setStatus(t.Context(), object, begin)
			if took := time.Since(begin); took > statusLimit {
				t.Errorf("a look took %s", took)
			}
			time.Sleep(lookEvery)
		}
		if line := m.Describe(); !strings.HasPrefix(line, "node a is not Ready: container runtime is down: context deadline exceeded") {
			t.Errorf("got %q", line)
		}
		m.Runtime = well{}
		m.setStatus(t.Context(), object, time.Now())
		if line := m.Describe(); line != "node a is Ready" {
			t.Errorf("got %q", line)
		}
	})
}
